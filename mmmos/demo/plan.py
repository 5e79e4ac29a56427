"""What a demo corpus holds: every clip's source, quality, scores and file, decided before any sound is made."""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from numpy.random import Generator

from mmmos.demo.degradations import DEGRADATIONS, LEVELS, chain_of, quality_left
from mmmos.demo.ratings import simulate_raters, source_taste, system_taste, true_scores
from mmmos.demo.signals import seed_of, seeded
from mmmos.demo.systems import SYSTEMS

DOMAINS = {"speech": "speaker", "music": "song", "sound": "scene"}
"""The domains, and what a source of each is called."""

RATES = {
    "speech": (16000, 16000, 22050, 24000, 48000),
    "music": (32000, 44100, 48000),
    "sound": (22050, 32000, 44100, 48000),
}
LAYERS = {"speech": (1, 1, 1, 1, 1, 1, 1, 1, 2, 3), "music": (1, 1, 2, 2, 3, 3, 4, 5), "sound": (1, 1, 1, 2, 2, 3, 4)}
FORMATS = ("wav", "wav", "flac", "flac", "mp3")


@dataclass(frozen=True)
class Size:
    """Clips of each set, systems of the synthetic sets, and the shortest and longest clip in s."""

    train: int
    dev: int
    systems: Mapping[str, int]
    per_system: Mapping[str, int]
    seconds: tuple[float, float]
    per_group: int


SIZES = {
    "tiny": Size(24, 10, {"pam": 3, "test": 6}, {"pam": 4, "test": 3}, (0.8, 1.5), 2),
    "small": Size(120, 40, {"pam": 5, "test": 12}, {"pam": 8, "test": 6}, (2.0, 4.0), 4),
}


@dataclass(frozen=True)
class Identity:
    """Where a clip belongs.

    ``set``: train, dev, pam or test; ``system``: id, empty for natural clips; ``generator``: "natural" or the name of
    the system's maker; ``group``: the speaker, song, scene or prompt that several clips share.
    """

    id: str
    set: str
    domain: str
    system: str
    generator: str
    group: str


@dataclass(frozen=True)
class Clip(Identity):
    """One clip.

    ``chain``: degradations as text; ``q``: quality in [0, 1]; ``k``: simultaneous sources; ``true``: scores before
    rater noise; ``ratings``: ten per axis; ``source_seed``, ``seed``: of the group's character and of the clip.
    """

    chain: str
    q: float
    k: int
    true: Mapping[str, float]
    ratings: Mapping[str, list[float]]
    source_seed: int
    seed: int
    format: str
    rate: int
    channels: int
    seconds: float

    @property
    def path(self) -> str:
        """The audio file, relative to the corpus folder."""
        return f"audio/{self.id}.{self.format}"


def plan_clips(seed: int, size: str) -> list[Clip]:
    """All clips of a corpus, set by set."""
    return [*_natural(seed, SIZES[size]), *_synthetic(seed, SIZES[size])]


def _natural(seed: int, size: Size) -> Iterator[Clip]:
    """Natural clips: domains in turn, ``per_group`` clips to a source, no source in two sets."""
    numbers, sources = dict.fromkeys(DOMAINS, 0), dict.fromkeys(DOMAINS, 0)
    for name, count in (("train", size.train), ("dev", size.dev)):
        for turn, (domain, source) in enumerate(DOMAINS.items()):
            for index in range((count + len(DOMAINS) - 1 - turn) // len(DOMAINS)):
                sources[domain] += index % size.per_group == 0
                numbers[domain] += 1
                clip_id, group = f"demo-{domain}-{numbers[domain]:04d}", f"{source}-{sources[domain]:03d}"
                rng = seeded(seed, "plan", clip_id)
                steps = _random_steps(rng, (0.22, 0.5, 0.28))
                best, k = rng.uniform(0.9, 1.0), int(rng.choice(LAYERS[domain]))
                identity = Identity(clip_id, name, domain, "", "natural", group)
                yield _clip(seed, rng, size, identity, steps, best, k, source_taste(seeded(seed, "taste", group)))


def _synthetic(seed: int, size: Size) -> Iterator[Clip]:
    """Synthetic clips, system by system; the systems of a set render the same prompts."""
    for name in ("pam", "test"):
        for system in [system for system in SYSTEMS if system.set == name][: size.systems[name]]:
            names = seeded(seed, "names", system.name)
            system_id, liked = "sys" + _code(names, 5), system_taste(seeded(seed, "taste", system.name))
            for index in range(size.per_system[name]):
                clip_id = f"demo-{system_id}-utt{_code(names, 6)}"
                group = f"{name}-{system.domain}-prompt-{index + 1:02d}"
                rng = seeded(seed, "plan", clip_id)
                steps = _random_steps(rng, (0.7, 0.3)) | system.habit
                prompt = source_taste(seeded(seed, "taste", group))
                taste = {axis: liked[axis] + 0.5 * prompt[axis] for axis in prompt}
                k, best = int(rng.choice(system.layers)), system.quality * rng.uniform(0.93, 1.0)
                identity = Identity(clip_id, name, system.domain, system_id, system.name, group)
                yield _clip(seed, rng, size, identity, steps, best, k, taste)


def _random_steps(rng: Generator, chances: tuple[float, ...]) -> dict[str, int]:
    """Random degradations: their number follows ``chances`` (of none, one, two), their steps are uniform."""
    count = int(rng.choice(len(chances), p=chances))
    kinds = rng.permutation(list(DEGRADATIONS))[:count]
    return {str(kind): int(rng.integers(1, LEVELS + 1)) for kind in kinds}


def _code(rng: Generator, length: int) -> str:
    """Random letters of both cases and digits."""
    return "".join(rng.choice(list(string.ascii_letters + string.digits), length))


def _clip(
    seed: int,
    rng: Generator,
    size: Size,
    identity: Identity,
    steps: dict[str, int],
    best: float,
    k: int,
    taste: Mapping[str, float],
) -> Clip:
    """The clip with its scores, ratings and file properties; telephone clips are stored at 8 kHz.

    ``best``: quality before the degradation ``steps``.
    """
    domain, q = identity.domain, round(best * quality_left(steps), 4)
    true = true_scores(domain, q, k, taste)
    return Clip(
        **vars(identity),
        chain=chain_of(steps),
        q=q,
        k=k,
        true=true,
        ratings=simulate_raters(seeded(seed, "raters", identity.id), true),
        source_seed=seed_of(seed, "source", identity.group),
        seed=seed_of(seed, "clip", identity.id),
        format=str(rng.choice(FORMATS)),
        rate=8000 if "mulaw" in steps else int(rng.choice(RATES[domain])),
        channels=1 if domain == "speech" and rng.uniform() < 0.85 else int(rng.integers(1, 3)),
        seconds=round(float(rng.uniform(*size.seconds)), 2),
    )
