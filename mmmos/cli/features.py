"""``mmmos features``: encoders, and the store of what they gave."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from mmmos.cli.output import put_table, say, say_rejected, shown_path

app = App(name="features", help="Encode once, keep on disk: encoders and the store.")


@app.command(name="list")
def list_encoders(*, json: bool = False) -> int:
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


@app.command
def fetch(*names: str, revision: str = "") -> int:
    """Fetch weights to this machine's cache, and check their SHA-256 where it is known.

    Example: mmmos features fetch wavlm-base-plus muq-large-msd-iter

    Parameters
    ----------
    names
        Encoders, hub ids owner/name, files hf://owner/name/file.pt, or releases https://….zip.
    revision
        A commit of the hub repository; by default the encoder's pinned one.
    """
    from mmmos import registry
    from mmmos.errors import UsageError
    from mmmos.features import weights

    if not names:
        raise UsageError("Name what to fetch: mmmos features list shows the encoders.")
    for name in names:
        source, pinned, expected = name, revision, ""
        if "/" not in name:
            card = registry.load("encoders", name)
            source, pinned = card.weights, revision or card.revision
            expected = "" if revision else card.sha256
        if not source:
            say(f"The encoder {name} has no weights of its own to fetch.")
            continue
        path = weights.fetch(source, pinned)
        digest = weights.checked(path, expected)
        say(f"{source}: {path}\nSHA-256 {digest}{' as published' if expected else ''}")
    return 0


@app.command
def extract(
    recipe: str,
    /,
    *inputs: str,
    store: Path = Path("features"),
    root: list[str] | None = None,
    weights: str | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
    device: str = "auto",
    jobs: int = 0,
    dry_run: bool = False,
) -> int:
    """Encode clips into the store; what is there already is not computed again.

    Example: mmmos features extract melstats train.csv dev.csv --root /your_path=/data

    Parameters
    ----------
    recipe
        A feature recipe (name or .toml), or one encoder.
    inputs
        Manifests, folders, globs, or - for a list on stdin.
    store
        The store's folder.
    root
        A=B: read paths below A as below B; repeatable.
    weights
        Weights for one encoder: a hub id, a file or a folder.
    precision
        Of one encoder: float32 or bfloat16, which is another feature set.
    device
        Where encoders run: auto, cpu, cuda, cuda:1, mps.
    jobs
        Processes that decode and encode; 0 means this one, with a thread on each core.
    dry_run
        Say how many clips are there and how many are missing.
    """
    from mmmos.features import extract as extraction
    from mmmos.features.spec import EncoderRecipe
    from mmmos.manifest import read_manifest

    encoders: extraction.Encoders = recipe
    if weights or precision:
        encoders = [EncoderRecipe(encoder=recipe, weights=weights, precision=precision)]
    clips = read_manifest(list(inputs), root=root, labels=False)
    if dry_run:
        put_table(extraction.plan(clips, encoders, store=store))
        return 0
    features = extraction.extract(clips, encoders, store=store, device=device, jobs=jobs)
    say(f"{len(features)} of {len(clips)} clips are in {shown_path(store)}/ ({', '.join(features.sets)}).")
    return say_rejected(features.rejected())


@app.command
def show(
    *,
    store: Path = Path("features"),
    manifest: list[str] | None = None,
    root: list[str] | None = None,
    json: bool = False,
) -> int:
    """What a store holds; or, with manifests, how many of their clips exist on disk and which do not.

    Example: mmmos features show --manifest train.csv --root /your_path=/data

    Parameters
    ----------
    manifest
        A manifest; repeatable.
    root
        A=B: read paths below A as below B; repeatable.
    """
    import pandas as pd

    if not manifest:
        from mmmos.features.store import summaries

        put_table(pd.DataFrame([summary.as_dict() for summary in summaries(store)]), as_json=json, decimals=1)
        return 0
    from mmmos.manifest import describe, locate, read_manifest

    clips = read_manifest(manifest, root=root)
    found = locate(clips)
    put_table(describe(clips), as_json=json)
    missing = clips.loc[found["how"] == "missing", "path"]
    other = int((found["how"] == "other extension").sum())
    say(f"{len(clips) - len(missing)} of {len(clips)} clips exist ({other} with another extension).")
    for clip, path in missing.head(20).items():
        say(f"  missing: {clip}: {path}")
    if len(missing) > 20:
        say(f"  … and {len(missing) - 20} more")
    return 3 if len(missing) else 0


@app.command
def verify(*, store: Path = Path("features")) -> int:
    """Check every checksum of a store; exit code 4 when something is damaged.

    Example: mmmos features verify --store features
    """
    from mmmos.errors import StoreError
    from mmmos.features.store import verify as verify_store

    problems = verify_store(store)
    if problems:
        raise StoreError("\n".join([*problems, "The next extraction computes these clips again."]))
    say(f"{shown_path(store)}/ is whole.")
    return 0
