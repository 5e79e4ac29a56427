"""``mmmos features list`` and ``fetch``: the registered encoders and their weights."""

from collections.abc import Iterator

from mmmos.cli.options import Json
from mmmos.cli.output import put_table, say
from mmmos.errors import UsageError


def list_encoders(*, json: Json = False) -> int:
    """The registered encoders: weights, licence, input rate, layers, dimension, frame hop, least input.

    Example: mmmos features list
    """
    import pandas as pd

    from mmmos.features.encoders import cards

    rows = [
        {
            "encoder": card.name,
            "weights": card.weights if json else _short(card.weights) or ("none" if card.dim else "yours"),
            "revision": card.revision if json else card.revision[:8],
            "sha256": card.sha256 if json else card.sha256[:8],
            "licence": card.licence,
            "rate_Hz": card.rate,
            "layers": card.layers or None,
            "dim": card.dim or None,
            "hop_ms": 1000 * card.hop,
            "minimum_samples": card.minimum,
        }
        for card in cards()
    ]
    put_table(pd.DataFrame(rows).astype({"layers": "Int64", "dim": "Int64"}), as_json=json, decimals=0)
    return 0


def _short(weights: str) -> str:
    """Weights for a table: of a file of the hub its repository, of a release its tag."""
    if weights.startswith("https://"):
        return f"release {weights.split('/')[-2]}"
    return "/".join(weights.removeprefix("hf://").split("/")[:2])


def fetch(*names: str, revision: str = "") -> int:
    """Fetch weights to this machine's cache, and check their SHA-256 where it is known.

    Example: mmmos features fetch wavlm-base-plus muq-large-msd-iter

    Parameters
    ----------
    names
        Encoders, feature recipes, hub ids owner/name, files hf://owner/name/file.pt, or releases https://….zip.
    revision
        A commit of the hub repository; by default the encoder's pinned one.
    """
    if not names:
        raise UsageError("Name what to fetch: mmmos features list shows the encoders.")

    from mmmos.features import weights

    for name in names:
        for encoder, source, pinned, expected in _weights_of(name, revision):
            if not source:
                say(f"The encoder {encoder} has no weights of its own to fetch.")
                continue
            path = weights.fetch(source, pinned)
            digest = weights.checked(path, expected)
            say(f"{source}: {path}\nSHA-256 {digest}{' as published' if expected else ''}")
    return 0


def _weights_of(name: str, revision: str) -> Iterator[tuple[str, str, str, str]]:
    """Encoder, weights, revision and known SHA-256 of everything that a name stands for."""
    if "/" in name and not name.endswith(".toml"):
        yield name, name, revision, ""
        return

    from mmmos.features.encoders import card as card_of
    from mmmos.features.spec import resolve

    for table in resolve(name).tables():
        card = card_of(table.encoder)
        own = table.weights is None and not (revision or table.revision)
        pinned = revision or table.revision or (card.revision if table.weights is None else "")
        yield table.encoder, table.weights or card.weights, pinned, card.sha256 if own else ""
