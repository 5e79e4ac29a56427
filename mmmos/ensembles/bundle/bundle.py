"""``read_bundle``: a ``Model`` of untrusted files, checked before anything of them is used."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from threadpoolctl import ThreadpoolController

from mmmos.ensembles.bundle import encoders, layouts
from mmmos.ensembles.bundle.about import ABOUT, ANCHORING, CARD, FORMAT, About, digest_of
from mmmos.ensembles.bundle.arrays import Arrays, arrays_of, json_of
from mmmos.ensembles.bundle.container import Container, Source, open_container
from mmmos.ensembles.calibration import Calibration
from mmmos.ensembles.heads.neural import Neural
from mmmos.ensembles.model import Array, Loaded, Predicted
from mmmos.ensembles.one_thread import one_thread
from mmmos.ensembles.runs import Run, part
from mmmos.ensembles.shift.anchoring import Anchoring
from mmmos.errors import StoreError, UsageError
from mmmos.features.table import Features
from mmmos.recipe import sentences

# Mistakes of a ``bundle.json`` that are told at once.
SHOWN = 3


@dataclass(frozen=True, eq=False)
class Bundle:
    """An exported ensemble: a ``Model``.

    ``about``: what ``bundle.json`` says; ``members``: their runs, in its order; ``anchoring``: lines for the scores, if
    any; ``folder``: that it lies in, None for single files; ``weights``: of encoders or feature sets, given by name.
    """

    about: About
    members: tuple[Run, ...]
    anchoring: Anchoring | None = None
    folder: Path | None = None
    weights: Mapping[str, str | Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the ensemble."""
        return self.about.name

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything in the bundle but its card."""
        return self.about.digest

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes of the scores."""
        return self.about.axes

    def encoders(self, device: str = "auto") -> list[Loaded]:
        """The feature sets that members read, with their encoders.

        Raises ``SetupError`` where weights are not to be had, or are not those that the members were trained on.
        """
        places = (self.folder, Path()) if self.folder else (Path(),)
        return [encoders.load(each, self.weights, places, device, self.about.mmmos) for each in self.about.encoders]

    def predict(self, features: Features, domains: Sequence[str | None] | None = None) -> Predicted:
        """Scores and spread of clips, each computed alone; ``domains`` (clips,), None where unknown.

        A head's weight in the spread is its member's, whatever its sign, divided by the member's heads.
        """
        domains = [None] * len(features) if domains is None else domains
        if len(domains) != len(features):
            raise UsageError(
                f"There are {len(features)} clips and {len(domains)} domains; give each clip one, or None."
            )
        scores = np.zeros((len(features), len(self.axes)))
        spread = np.zeros_like(scores)
        with one_thread(_pools()):
            for row, domain in enumerate(domains):
                scores[row], spread[row] = self._predict_clip(_alone(features, row), domain)
        return Predicted(scores, spread if len(self.head_shares) > 1 else None)

    def _predict_clip(self, features: Features, domain: str | None) -> tuple[Array, Array]:
        """Scores and spread (axes,) of one clip."""
        said = [_mean_and_heads(run, features) for run in self.members]
        score = np.einsum("ra,ra->a", np.stack([each[0] for each in said]), self.member_weights)
        single = np.concatenate([each[1:] for each in said])
        if self.anchoring is not None:
            lines = self.anchoring.of(domain)
            score, single = lines(score), lines(single)
        mean = (self.head_shares * single).sum(axis=0)
        return score, np.sqrt((self.head_shares * (single - mean) ** 2).sum(axis=0))

    @cached_property
    def member_weights(self) -> Array:
        """Weights (members, axes)."""
        return np.array([[member.weights[axis] for axis in self.axes] for member in self.about.members])

    @cached_property
    def head_shares(self) -> Array:
        """Weights of single heads (heads, axes), 0 up, that sum to 1 for each axis."""
        rows = zip(np.abs(self.member_weights), self.members, strict=True)
        shares = np.concatenate([np.tile(row / len(run.members), (len(run.members), 1)) for row, run in rows])
        total = shares.sum(axis=0)
        return np.asarray(shares / np.where(total > 0, total, 1))


def read_bundle(source: Source, *, weights: Mapping[str, str | Path] | None = None) -> Bundle:
    """A bundle in a folder, in a zip, or of files or their bytes by name.

    ``weights``: a local file or folder for each encoder, by its name or its feature set's, in place of the recorded
    weights. Nothing that the bundle holds is run. Raises ``UsageError`` where there is no bundle, ``StoreError`` for
    one that is damaged, hostile, or of a newer format.
    """
    with closing(open_container(source)) as container:
        about = _about(container)
        runs = tuple(
            layouts.restored_run(member, about, _arrays(container, about, member.file), _where(container, member.file))
            for member in about.members
        )
        anchoring = _anchoring(container, about)
    for name in weights or {}:
        encoders.check_name(name, about.encoders)
    folder = None if isinstance(source, Mapping) else Path(source).expanduser().absolute().parent
    return Bundle(about, tuple(map(_ready, runs)), anchoring, folder, dict(weights or {}))


def _about(container: Container) -> About:
    """What ``bundle.json`` says. Raises ``StoreError``."""
    where = f"{container.where}: {ABOUT}"
    fields = json_of(container.read(ABOUT), where)
    number = fields.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise StoreError(f"{where} has no format number; got {number!a}.")
    if number > FORMAT:
        raise StoreError(
            f"{container.where} is of format {number}, and this MMMOS reads formats up to {FORMAT}: it was written by"
            f" MMMOS {fields.get('mmmos')!a}. Install a newer MMMOS."
        )
    if fields.get("digest") != digest_of(fields):
        raise StoreError(f"{where} is damaged: its digest is not that of its contents. Get the bundle again.")
    try:
        about = About.model_validate(fields)
    except ValidationError as error:
        told = [each.replace(": the recipe: ", ": ") for each in sentences(error, About, where)]
        raise StoreError(" ".join(told[:SHOWN])) from None
    names = set(container.sizes) - {ABOUT, CARD}
    if undeclared := sorted(names - set(about.files)):
        raise StoreError(f"{container.where} holds {undeclared[0]}, which its {ABOUT} does not name. Remove it.")
    if missing := sorted(set(about.files) - names):
        raise StoreError(f"{container.where} lacks {missing[0]}, which its {ABOUT} names. Get the bundle again.")
    return about


def _arrays(container: Container, about: About, name: str) -> Arrays:
    """The arrays of a file. Raises ``StoreError`` when its checksum is another."""
    data = container.read(name)
    if hashlib.sha256(data).hexdigest() != about.files[name]:
        raise StoreError(f"{container.where} is damaged: {name} has another SHA-256. Get the bundle again.")
    return arrays_of(data, _where(container, name))


def _where(container: Container, name: str) -> str:
    return f"{container.where}: {name}"


def _anchoring(container: Container, about: About) -> Anchoring | None:
    """The lines that scores are brought to a labelled set's scale by. Raises ``StoreError``."""
    if about.anchoring is None:
        return None
    where, arrays = _where(container, ANCHORING), _arrays(container, about, ANCHORING)
    lines = [
        layouts.lines(part(arrays, str(n)), len(about.axes), where) for n in range(1 + len(about.anchoring.domains))
    ]
    if len(arrays) != len(lines) * len(Calibration.__dataclass_fields__):
        raise StoreError(f"{where} holds arrays of more lines than {ABOUT} names.")
    return Anchoring(lines[0], dict(zip(about.anchoring.domains, lines[1:], strict=True)))


def _ready(run: Run) -> Run:
    """A run whose neural heads are built once, not at each prediction."""
    for member in run.members:
        if isinstance(member.head, Neural):
            member.head.keep_module()
    return run


def _mean_and_heads(run: Run, features: Features) -> Array:
    """What a run says of one clip, and then what each of its heads does (1 + heads, axes)."""
    said = run.standardised(features)[:, 0]
    return run.scores(np.concatenate([said.mean(axis=0, keepdims=True), said])).astype(np.float64)


def _alone(features: Features, row: int) -> Features:
    """The features of one clip."""
    sets = {name: array.rows([row]) for name, array in features.sets.items()}
    return Features((features.ids[row],), (features.keys[row],), sets, features.status)


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded by now; looking for them takes milliseconds."""
    return ThreadpoolController()
