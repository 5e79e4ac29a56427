"""The hub's client, and its errors as sentences."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from mmmos import progress
from mmmos.errors import MmmosError, SetupError, first_line
from mmmos.hub.address import Address

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]

# What the hub itself puts into every repository.
ITS_OWN = (".gitattributes",)

_LOGIN = "hf auth login, or HF_TOKEN"


def is_offline() -> bool:
    """True when the environment forbids the network (``HF_HUB_OFFLINE``)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


@contextmanager
def client(address: Address, kind: Kind, token: str | None = None) -> "Iterator[HfApi]":
    """The client, silent where progress is not shown; whatever goes wrong with it is a ``SetupError``.

    ``token`` is that of a push; without it the client takes the usual one, if there is one.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None, token=token)
    try:
        with _bars():
            yield api
    except MmmosError:
        raise
    except Exception as error:
        # The client and what it is made of (http, xet) raise errors of many classes.
        raise SetupError(_sentence(error, address, kind, api.endpoint, pushing=token is not None)) from error


@contextmanager
def _bars() -> Iterator[None]:
    """The client's bars are shown only where progress is."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if progress.is_shown() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _sentence(error: Exception, address: Address, kind: Kind, endpoint: str, *, pushing: bool) -> str:
    """What went wrong, and what to do."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RevisionNotFoundError

    # These wrap what happened.
    if isinstance(error, LocalEntryNotFoundError | RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, RevisionNotFoundError):
        return f"{address.repo} on {endpoint} has no branch, tag or commit {address.revision or 'main'}."
    if isinstance(error, GatedRepoError):
        return f"{address} is open only to those whom its owner lets in: ask on its page, then give a token ({_LOGIN})."
    if status == 401 and pushing:
        return f"{endpoint} does not accept your token for {address}: give one that may write ({_LOGIN})."
    if status in (401, 404):
        return (
            f"There is no {kind} repository {address.repo} on {endpoint}, or it is private and your token ({_LOGIN}) is"
            " absent, has expired or may not read it."
        )
    if status == 403:
        return f"Your token may not do this with {address}: give one that may ({_LOGIN})." + _said(error)
    if status in (409, 412):
        return f"{address} was changed by somebody else at the same time; nothing is pushed. Type the same again."
    if status:
        return f"{endpoint} answers {status} about {address}. Try again later." + _said(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{address} cannot be read or kept here: {error.strerror}: {error.filename}."
    pulled = "" if pushing else "; what was pulled before is there with --offline"
    return (
        f"{address} cannot be reached or read on {endpoint}: {type(error).__name__}: {first_line(error)}. Look to the"
        f" network and type the same again{pulled}."
    )


def _said(error: Exception) -> str:
    said = getattr(error, "server_message", None)
    return f" It says: {str(said)[:200]}" if said else ""
