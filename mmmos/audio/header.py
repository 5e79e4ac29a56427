"""What the first bytes of a file say of its audio."""

import math
from dataclasses import dataclass

from mmmos.audio import limits
from mmmos.errors import Rejected

# Measured containers by number: append only, since the numbers are stored.
CONTAINERS = (
    *("other", "wav", "rf64", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3"),
    *("mp4", "matroska", "aac", "asf", "avi", "amr", "wavpack", "ape", "dsf", "tta", "musepack", "flv"),
    *("nist", "voc", "svx", "ircam", "paf", "pvf", "htk", "avr"),
)


@dataclass(frozen=True)
class Header:
    """A container and what it declares.

    ``seconds``: declared length (NaN: declared nowhere; None: what the decoder finds). ``cut``: the file ends before
    its container does. A decoder is given ``prefix`` and then the file's bytes from ``offset`` on.
    """

    container: str = "other"
    seconds: float | None = None
    cut: bool = False
    prefix: bytes = b""
    offset: int = 0


def check(rate: float, channels: int, codec: str | None = None) -> None:
    """Raises ``Rejected``: bad_rate, bad_channels, or bad_codec where a codec that is not decoded is named."""
    limits.check_channels(channels)
    limits.check_rate(rate)
    if codec is not None:
        raise bad_codec(codec)


def bad_codec(codec: str) -> Rejected:
    """The rejection of a codec, with the way out."""
    return Rejected("bad_codec", f"the codec {codec} is not decoded: convert it, for example: ffmpeg -i IN OUT.flac")


def declared(bytes_: int, frame: int, rate: float) -> float:
    """Seconds of so many bytes of plain samples, ``frame`` bytes for one of every channel; NaN where unknown."""
    return bytes_ / frame / rate if frame > 0 else math.nan
