"""A synthesized listening test with known ground truth, in the layout of the AudioMOS Challenge 2025, track 2.

Speech-, music- and environment-like sounds are made by formulas, damaged in known ways and rated by simulated raters.
Results on them show that a pipeline works and say nothing about people.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mmmos import progress
from mmmos.axes import AXES, LONG_NAMES
from mmmos.demo.plan import SIZES, Clip, plan_clips
from mmmos.demo.render import render_clip
from mmmos.errors import UnknownName, UsageError

__all__ = ["make_corpus"]

VERSION = 2
"""Version of what is made: the same seed, size and version give the same bytes on the same machine and libraries."""

SETS = ("train", "dev", "pam", "test")
GROUPED = ("train", "dev")
MARKER = "corpus.json"
CHALLENGE_FILE = "challenge.toml"

CHALLENGE = """\
[data]
train = ["train.csv"]          # labelled, natural
dev   = ["dev.csv"]            # labelled, natural
pam   = ["pam.csv"]            # labelled, synthetic proxy
eval  = ["test.csv"]           # to predict; its labels are used for nothing but `evaluate`
[features]
recipe = "melstats"
[ensembles]
recipe = "quick"
[submission]
format = "audiomos2025-track2"
name   = "demo"                # -> submissions/demo/
"""

README = """\
# Demo corpus (seed {seed}, size {size})

Synthesized audio with simulated ratings, written by `mmmos demo`. **Nobody has listened to it, and results on it say
nothing about people**: it shows that the pipeline runs and that it finds what was put in.

| manifest | clips | use |
|---|---|---|
| `train.csv`, `dev.csv` | {train} + {dev}, "natural" generators of speech, music and sound | fitting and selecting |
| `pam.csv` | {pam}, synthetic, {pam_systems} systems | selecting on synthetic audio |
| `test.csv` | {test}, synthetic, {test_systems} other systems | prediction; its labels are for evaluation only |

Production Quality follows a known degradation (`provenance.csv`: `chain`, `q`), Production Complexity the number of
simultaneous sources (`k`); Content Enjoyment and Content Usefulness are derived from both, the domain, the source and
the system, so that their joint statistics resemble real ones. `annotations.jsonl` holds ten simulated ratings per clip
and axis: whole numbers around the true score, which `provenance.csv` gives. `group` names the speaker, song or scene
that clips share.
"""


def make_corpus(folder: str | Path, *, seed: int = 0, size: str = "small") -> Path:
    """Write a corpus into a folder and return the path of its ``challenge.toml``.

    ``size``: "tiny" (64 clips of about 1 s) or "small" (272 clips of about 3 s). The same seed, size and version write
    the same bytes. A complete corpus of that seed, size and version is left alone; any other demo corpus is replaced.
    The ``challenge.toml`` of a demo corpus is the user's: it stays as it is.
    Audio is synthesized and ratings are simulated. Raises ``UnknownName`` for another size and ``UsageError`` for a
    folder that holds such files of somebody else.

    >>> mmmos.make_corpus(".", size="tiny").name
    'challenge.toml'
    """
    if size not in SIZES:
        raise UnknownName("corpus size", size, SIZES)
    folder = Path(folder)
    wanted = {"seed": seed, "size": size, "version": VERSION}
    marker = _read_marker(folder)
    if not _is_complete(folder, marker, wanted):
        clips = plan_clips(seed, size)
        texts = _texts(clips, seed, size)
        names = [*texts, *(clip.path for clip in clips)]
        _make_room(folder, names, marker)
        _write_marker(folder, wanted | {"digest": None, "bytes": dict.fromkeys(names)})
        for clip in progress.track(clips, len(clips), "synthesizing clips"):
            _write_audio(folder / clip.path, clip)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
        sizes = {name: (folder / name).stat().st_size for name in names}
        _write_marker(folder, wanted | {"digest": _digest(folder, names), "bytes": sizes})
    challenge = folder / CHALLENGE_FILE
    if not challenge.exists():
        challenge.write_text(CHALLENGE, encoding="utf-8")
    return challenge


def _read_marker(folder: Path) -> dict[str, Any]:
    """What ``corpus.json`` says, or an empty dict where it is absent or damaged."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) and isinstance(marker.get("bytes"), dict) else {}


def _write_marker(folder: Path, marker: dict[str, Any]) -> None:
    """Replace ``corpus.json`` at once."""
    fresh = folder / f".{MARKER}.part"
    fresh.write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    fresh.replace(folder / MARKER)


def _is_complete(folder: Path, marker: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the marker is of the wanted corpus and every file has the size that it had when it was written."""
    if not marker.get("digest") or any(marker.get(key) != value for key, value in wanted.items()):
        return False
    paths = {folder / name: size for name, size in marker["bytes"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _make_room(folder: Path, names: Iterable[str], marker: dict[str, Any]) -> None:
    """Make the folders and remove the files of an earlier corpus; files of nobody known are an error."""
    known = [MARKER, *marker["bytes"]] if marker else []
    own = [] if marker else [CHALLENGE_FILE]
    foreign = [name for name in (MARKER, *names, *own) if name not in known and (folder / name).exists()]
    if foreign:
        raise UsageError(
            f"{folder} holds {foreign[0]}, which no demo corpus wrote. Name another folder, or remove the file."
        )
    for name in known[1:]:
        if Path(name).parent in (Path(), Path("audio")):
            (folder / name).unlink(missing_ok=True)
    (folder / "audio").mkdir(parents=True, exist_ok=True)


def _write_audio(path: Path, clip: Clip) -> None:
    """Render a clip into its file: wav of 16 or 24 bits, flac, or mp3 of about 190 kbit/s or less."""
    subtypes = {"wav": ("PCM_16", "PCM_24"), "flac": ("PCM_16",), "mp3": ("MPEG_LAYER_III",)}[clip.format]
    options = {"compression_level": 0.2, "bitrate_mode": "VARIABLE"} if clip.format == "mp3" else {}
    soundfile.write(path, render_clip(clip), clip.rate, subtype=subtypes[clip.seed % len(subtypes)], **options)


def _texts(clips: Sequence[Clip], seed: int, size: str) -> dict[str, str]:
    """All text files of the corpus by name."""
    counts = {name: sum(clip.set == name for clip in clips) for name in SETS}
    systems = {f"{name}_systems": len({clip.system for clip in clips if clip.set == name}) for name in SETS}
    manifests = {f"{name}.csv": _manifest([clip for clip in clips if clip.set == name]) for name in SETS}
    return manifests | {
        "annotations.jsonl": "".join(json.dumps(_annotation(clip)) + "\n" for clip in clips),
        "provenance.csv": _provenance(clips),
        "README.md": README.format(seed=seed, size=size, **counts, **systems),
    }


def _manifest(clips: Sequence[Clip]) -> str:
    """A manifest in the challenge's columns and ``domain``, with the mean of the ten ratings as score."""
    rows = [
        {"sample_id": clip.id, "data_path": clip.path, "domain": clip.domain}
        | {LONG_NAMES[axis]: float(np.mean(clip.ratings[axis])) for axis in AXES}
        | ({"group": clip.group} if clip.set in GROUPED else {})
        for clip in clips
    ]
    return _table(rows)


def _annotation(clip: Clip) -> dict[str, Any]:
    """Ten ratings per axis, in the layout of the challenge's annotations."""
    return {"data_path": clip.id} | {LONG_NAMES[axis]: clip.ratings[axis] for axis in AXES}


def _provenance(clips: Sequence[Clip]) -> str:
    """What every clip is made of, and its true scores."""
    before = ("id", "set", "domain", "system", "generator", "chain", "q", "k")
    after = ("group", "source_seed", "seed", "format", "rate", "channels", "seconds")
    rows = [
        {name: getattr(clip, name) for name in before}
        | {f"true_{axis}": clip.true[axis] for axis in AXES}
        | {name: getattr(clip, name) for name in after}
        for clip in clips
    ]
    return _table([{"sample_id": row.pop("id"), **row} for row in rows])


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _digest(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over the names and contents of all files."""
    total = hashlib.sha256()
    for name in sorted(names):
        total.update(f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
