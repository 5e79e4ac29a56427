"""Shards of a challenge: one part of its features and heads for each of several machines that share the workspace.

The parts need not know of each other; each may be repeated, and what a part finds done it leaves as it is.
"""

from dataclasses import dataclass
from pathlib import Path

from mmmos import challenge
from mmmos.challenge import Inputs
from mmmos.ensembles.training import train as training
from mmmos.ensembles.training.train import Part
from mmmos.features.extraction import extract as extraction
from mmmos.features.extraction.extract import extract
from mmmos.features.extraction.options import Options
from mmmos.features.table import Features
from mmmos.parallel import Jobs, Shard, shard_of
from mmmos.pipeline import stored_features


@dataclass(frozen=True)
class Share:
    """What a shard of ``run`` came to: its ``clips`` are encoded.

    ``lacking``: clips of other shards whose features are still to come; ``heads``: None as long as there are any.
    """

    shard: Shard
    clips: int
    lacking: int
    heads: Part | None


def run_shard(
    path: str | Path = "challenge.toml", *, shard: str | Shard, jobs: Jobs = 0, device: str = "auto"
) -> Share:
    """A shard's part of the features of a challenge and, once those of all shards are there, its part of the heads.

    ``pipeline.run`` does the rest when all shards are done.
    """
    shard, inputs = shard_of(shard), challenge.read(path)
    challenge.check_selection(inputs, inputs.ensembles.select)
    own = extraction.complete(
        inputs.clips, inputs.features, store=inputs.store, options=Options(device, jobs), shard=shard
    )
    lacking = _lacking_elsewhere(inputs, shard)
    if lacking:
        return Share(shard, len(own), lacking, None)
    features = extract(inputs.clips, inputs.features, store=inputs.store, device=device, jobs=jobs)
    return Share(shard, len(own), 0, _train(inputs, features, shard, jobs, device))


def train_shard(
    path: str | Path,
    *,
    shard: str | Shard,
    recipe: str | None = None,
    jobs: Jobs = 0,
    device: str = "auto",
    exact: bool = False,
) -> Part:
    """A shard's part of the heads of a challenge, under its own ensemble recipe or another one.

    Raises ``UsageError`` as long as clips lack features: shards would compute those of each other.
    """
    shard, inputs = shard_of(shard), challenge.read(path, ensembles=recipe)
    advice = (
        f"shards of heads begin when all are there: type mmmos run --shard {shard}, and so on for the other shards, or"
        " mmmos ensembles train once without --shard"
    )
    return _train(inputs, stored_features(inputs, advice), shard, jobs, device, exact)


def _train(inputs: Inputs, features: Features, shard: Shard, jobs: Jobs, device: str, exact: bool = False) -> Part:
    return training.train_shard(
        inputs.ensembles,
        features,
        inputs.clips,
        shard=shard,
        folder=inputs.runs,
        name=inputs.recipe_name,
        jobs=jobs,
        device=device,
        exact=exact,
    )


def _lacking_elsewhere(inputs: Inputs, shard: Shard) -> int:
    """Clips of the other shards that lack features, of the feature set that most of them lack."""
    tables = [
        extraction.plan(clips, inputs.features, store=inputs.store)
        for clips in (inputs.clips, extraction.part(inputs.clips, shard))
    ]
    every, own = (table["clips"] - table["stored"] for table in tables)
    return int((every - own).max())
