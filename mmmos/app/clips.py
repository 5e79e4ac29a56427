"""One uploaded file on its way: heard within limits, scored, and kept as what the page shows of it."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmmos import audio, resampling
from mmmos.app import pictures
from mmmos.errors import MmmosError, Rejected, first_line
from mmmos.scoring.inputs import Clip
from mmmos.scoring.score import Score
from mmmos.scoring.scorer import Scorer

MAX_SECONDS = 600.0
MAX_BYTES = 50_000_000
PLAYED = (8_000, 48_000)  # Hz: the rates that every browser plays

REASONS = audio.REASONS | {
    "too_long": "more than 10 min of audio, which is what this page takes; mmmos score takes more",
    "too_large": "more than 50 MB, which is what this page takes; mmmos score takes more",
    "upload_failed": "the browser could not send the file",
    "failed": "something went wrong here, and not with the file",
}
"""Why a file has no scores, in words: the page's own limits are narrower than those of ``audio.REASONS``."""


class Upload(NamedTuple):
    """A file as the browser sent it: its ``name`` there, its ``path`` here, or the ``reason`` why it did not come."""

    name: str
    path: Path | None
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """A file on the page: its scores or reason, and its picture and listening copy where it holds audio.

    ``score.path`` is its name, too: no path of this machine is shown. ``rate`` in Hz is that of the picture.
    """

    score: Score
    rate: int = 0
    picture: bytes = b""
    sound: Path | None = None


class Heard(NamedTuple):
    """Mono samples at a rate in Hz that browsers play."""

    wave: pictures.Samples
    rate: int

    @property
    def seconds(self) -> float:
        """Length in s."""
        return len(self.wave) / self.rate


def hear(path: Path) -> Heard:
    """A file's audio, at most ``MAX_SECONDS`` of it. Raises ``Rejected``, with too_long for more."""
    with audio.isolated.stream(path) as clip:
        rate = min(max(clip.rate, PLAYED[0]), PLAYED[1])
        resampler = resampling.resampler("soxr-hq", clip.rate, rate)
        heard, blocks = 0, []
        for block in clip.blocks:
            heard += len(block)
            if heard > MAX_SECONDS * clip.rate:
                raise Rejected("too_long", "")
            blocks.append(resampler.push(block))
        blocks.append(resampler.push(np.zeros(0, np.float32), last=True))
    return Heard(np.concatenate(blocks), rate)


def segment_length(seconds: float) -> float:
    """Length in s of the segments of a clip's curve, each begun half of it after the one before.

    10 s, of short clips half their length, and at least 1 s.
    """
    return min(10.0, max(1.0, seconds / 2))


def entry(upload: Upload, name: str, scorer: Scorer, folder: Path) -> Entry:
    """An uploaded file under a name, scored or refused; its listening copy lies in a folder. Raises nothing."""
    try:
        if upload.path is None:
            raise Rejected(upload.reason, "")
        heard = hear(upload.path)
        length = segment_length(heard.seconds)
        clip = Clip(name, str(upload.path))
        (score,) = scorer.stream([clip], segments=length, hop=length / 2)
        score = replace(score, path=name, detail=_without(score.detail, upload.path, name))
        if score.reason:
            return Entry(score)
        picture = pictures.spectrogram(heard.wave, heard.rate)
        return Entry(score, heard.rate, picture, listening_copy(heard, folder))
    except Rejected as error:
        return Entry(refused(name, error.reason, _without(error.detail, upload.path, name)))
    except MmmosError as error:
        return Entry(refused(name, "failed", _without(first_line(error), upload.path, name)))
    except Exception as error:
        # Their messages may name anything of this machine.
        return Entry(refused(name, "failed", type(error).__name__))


def refused(name: str, reason: str, detail: str) -> Score:
    """The row of a file without scores."""
    return Score(name, name, reason=reason, detail=detail)


def listening_copy(heard: Heard, folder: Path) -> Path:
    """What was scored as a FLAC of 16 bits: every browser plays it, whatever the file was."""
    import soundfile

    path = folder / f"{secrets.token_hex(8)}.flac"
    soundfile.write(path, np.clip(heard.wave, -1, 1), heard.rate, format="FLAC", subtype="PCM_16")
    return path


def unused(name: str, taken: set[str]) -> str:
    """A name that no other file of the page has: "a.wav", "a.wav (2)", …"""
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name} ({count})"
    return free


def uploads(items: Any, folder: Path) -> Iterator[Upload]:
    """What the browser says that it has sent. Only regular files below the upload folder are taken."""
    for item in items if isinstance(items, list) else []:
        known = item if isinstance(item, dict) else {}
        name = str(known.get("name") or "file")
        path, reason = known.get("path"), known.get("reason")
        if isinstance(path, str) and is_upload(Path(path), folder):
            yield Upload(name, Path(path))
        else:
            yield Upload(name, None, reason if reason == "too_large" else "upload_failed")


def is_upload(path: Path, folder: Path) -> bool:
    """Whether a path is a regular file below a folder, links resolved."""
    with suppress(OSError, ValueError):
        found = path.resolve(strict=True)
        return found.is_relative_to(folder.resolve()) and found.is_file()
    return False


def _without(text: str, path: Path | None, name: str) -> str:
    """A text without the path of this machine."""
    return text if path is None else text.replace(str(path), name).replace(str(path.parent), "…")
