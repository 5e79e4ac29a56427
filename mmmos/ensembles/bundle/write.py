"""``write_bundle``: an ensemble's runs as a folder or a flat zip; equal ensembles give equal bytes."""

import hashlib
import io
import os
import secrets
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mmmos.ensembles.bundle.about import ABOUT, ANCHORING, CARD, FORMAT, About, Lines, digest_of
from mmmos.ensembles.bundle.arrays import json_of
from mmmos.ensembles.bundle.card import card
from mmmos.ensembles.bundle.container import open_container
from mmmos.ensembles.model import Array
from mmmos.ensembles.runs import Run, learned_arrays
from mmmos.ensembles.shift.anchoring import Anchoring
from mmmos.errors import MmmosError, UsageError
from mmmos.files import TEMPORARY, pretty_json, sync_folder, tensor_bytes, write_atomic

_DATE = (1980, 1, 1, 0, 0, 0)
# What a Mac leaves in every folder that it showed.
_MAC = ".DS_Store"


def files_of(
    facts: Mapping[str, Any],
    runs: Sequence[Run],
    weights: Array,
    anchoring: Anchoring | None = None,
    on: str | None = None,
) -> dict[str, bytes]:
    """The files of a bundle by name.

    ``facts``: the fields of ``About`` but format, digest, members, anchoring and files. ``weights`` (runs, axes);
    ``on``: the labelled set of ``anchoring``.
    """
    axes = facts["axes"]
    arrays = {f"{run.key}.safetensors": tensor_bytes(learned_arrays(run)) for run in runs}
    if anchoring is not None:
        lines = [anchoring.everything, *anchoring.domains.values()]
        named = {f"{number}.{name}": array for number, each in enumerate(lines) for name, array in each.state().items()}
        arrays[ANCHORING] = tensor_bytes(named)
    members = [
        {
            "key": run.key,
            "spec": run.spec.model_dump(mode="json"),
            "data": run.data,
            "epochs": [list(member.epochs) for member in run.members],
            "weights": dict(zip(axes, map(float, row), strict=True)),
            "file": f"{run.key}.safetensors",
        }
        for run, row in zip(runs, weights, strict=True)
    ]
    fields = {
        **facts,
        "format": FORMAT,
        "members": members,
        "anchoring": None if anchoring is None else Lines(on=str(on), domains=tuple(anchoring.domains)).model_dump(),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in arrays.items()},
    }
    # As JSON and back, so that the digest is of what a reader sees.
    fields = json_of(pretty_json(fields).encode(), ABOUT)
    fields["digest"] = digest_of(fields)
    about = About.model_validate(fields)
    texts = {ABOUT: pretty_json(fields).encode(), CARD: card(about).encode()}
    return dict(sorted((texts | arrays).items()))


def write_bundle(files: Mapping[str, bytes], to: str | Path, *, overwrite: bool = False) -> Path:
    """Write the files of a bundle to a new folder, or to a zip where ``to`` ends in .zip; it is whole or absent.

    Raises ``UsageError`` for what is there already, unless it is a bundle and ``overwrite``.
    """
    target = Path(to).expanduser().absolute()
    refuse_taken(target, overwrite=overwrite)
    if target.suffix == ".zip":
        return write_atomic(target, _zipped(files))
    scratch = target.parent / f".{target.name}.{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}"
    try:
        for name, data in files.items():
            write_atomic(scratch / name, data)
        _take_place(scratch, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def is_written(files: Mapping[str, bytes], to: str | Path) -> bool:
    """Whether a place holds this bundle already; the card may have been edited."""
    try:
        with closing(open_container(Path(to).expanduser().absolute())) as there:
            wanted = {name: data for name, data in files.items() if name != CARD}
            return set(there.sizes) == set(files) and all(there.read(name) == data for name, data in wanted.items())
    except MmmosError:
        return False


def _take_place(scratch: Path, target: Path) -> None:
    """Rename a folder to a name that another one may have, which is kept unless that succeeds."""
    former = scratch / TEMPORARY
    if target.exists():
        target.rename(former)
    try:
        scratch.rename(target)
    except OSError:
        if former.exists():
            former.rename(target)
        raise
    shutil.rmtree(target / TEMPORARY, ignore_errors=True)


def refuse_taken(target: Path, *, overwrite: bool) -> None:
    """Raise ``UsageError`` where a bundle would take the place of something else, or of a bundle unasked."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise UsageError(f"{target} holds something else; name another place, or replace a bundle with --overwrite.")
    mixed = UsageError(f"{target} holds other things than a bundle and is not overwritten; name another place.")
    try:
        with closing(open_container(target)):
            pass
    except MmmosError:
        raise mixed from None
    hidden = target.is_dir() and any(each.name.startswith(".") and each.name != _MAC for each in target.iterdir())
    if hidden or target.is_dir() != (target.suffix != ".zip"):
        raise mixed


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def quantiles_of(ratings: Array, count: int) -> list[float]:
    """Evenly spaced quantiles from 0 to 100 % of the ratings that are known, to four decimals."""
    known = ratings[np.isfinite(ratings)]
    return [round(float(each), 4) for each in np.quantile(known, np.linspace(0, 1, count))]
