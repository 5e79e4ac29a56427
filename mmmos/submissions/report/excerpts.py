"""What a clip looks and sounds like: the first seconds of its audio as a spectrogram and as a small MP3.

A spectrogram is the logarithm of the power in bands of equal width on the mel scale (O'Shaughnessy, 1987), darker
where there is more of it, down to ``RANGE`` dB below its loudest band. MP3 is what every browser plays, and the encoder
writes the same bytes for the same samples, which those of Ogg do not.
"""

import base64
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmmos import audio
from mmmos.errors import Rejected, SetupError

SECONDS = 10.0  # of a clip that are shown and played
BANDS, COLUMNS = 80, 320
RANGE = 70.0  # dB
TOP = 12_000.0  # Hz
SHADES = 32
BITRATE = 0.9  # compression level: about 45 kbit/s at 24 kHz

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Excerpt:
    """The first ``seconds`` of a clip: ``picture`` is a PNG that goes up to ``top`` Hz, ``sound`` an MP3, empty where
    this machine cannot write one.
    """

    seconds: float
    top: float
    picture: bytes
    sound: bytes

    def as_json(self) -> dict[str, object]:
        """JSON values that ``of_json`` reads."""
        coded = {name: base64.b64encode(getattr(self, name)).decode() for name in ("picture", "sound")}
        return {"seconds": self.seconds, "top": self.top, **coded}

    @classmethod
    def of_json(cls, values: dict[str, object]) -> "Excerpt":
        """An excerpt from what ``as_json`` gave. Raises ``KeyError`` or ``ValueError`` for others."""
        picture, sound = (base64.b64decode(str(values[name]), validate=True) for name in ("picture", "sound"))
        return cls(float(str(values["seconds"])), float(str(values["top"])), picture, sound)


def excerpt(path: str | Path, start: float | None = None, end: float | None = None) -> Excerpt | None:
    """The first seconds of a file, or of its segment [start, end) in s; None where there is no audio to be had."""
    blocks, length = [], 0
    try:
        with audio.isolated.stream(path, start, end) as clip:
            rate = clip.rate
            wanted = round(SECONDS * rate)
            for block in clip.blocks:
                blocks.append(block)
                length += len(block)
                if length >= wanted:
                    break
    except (Rejected, SetupError):
        return None
    wave = np.concatenate(blocks)[:wanted]
    top = min(TOP, rate / 2)
    return Excerpt(len(wave) / rate, top, png(shades(wave, rate, top)), mp3(wave, rate))


def shades(wave: Samples, rate: int, top: float) -> NDArray[np.uint8]:
    """Picture (bands, columns) of mono samples, high bands first: 255 (nothing) to 0 in ``SHADES`` steps."""
    size = 2 ** int(np.ceil(np.log2(0.04 * rate)))
    padded = np.pad(wave, size // 2)
    hop = max(1, (len(padded) - size) // (COLUMNS - 1))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:COLUMNS]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
    edges = hertz(np.linspace(0, float(mel(top)), BANDS + 1)) * size / rate
    upto = np.stack([np.interp(edges, np.arange(total.shape[1]), row) for row in total])
    bands = np.diff(upto, axis=1)
    level = 10 * np.log10(np.maximum(bands, 1e-12) / max(float(bands.max()), 1e-9))
    dark = np.clip(1 + level / RANGE, 0, 1)
    return (255 - np.round(dark.T[::-1] * (SHADES - 1)) * 255 / (SHADES - 1)).astype(np.uint8)


def mel(frequency: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Place of a frequency in Hz on the mel scale."""
    return np.asarray(2595 * np.log10(1 + np.asarray(frequency) / 700))


def hertz(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequency in Hz of a place on the mel scale."""
    return 700 * (10 ** (place / 2595) - 1)


def png(grey: NDArray[np.uint8]) -> bytes:
    """A picture (height, width) as a grey PNG of 8 bits (ISO/IEC 15948)."""
    height, width = grey.shape
    rows = np.column_stack([np.zeros(height, np.uint8), grey]).tobytes()
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(rows, 9),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def mp3(wave: Samples, rate: int) -> bytes:
    """Mono samples as MP3 at 24 kHz or less, empty where libsndfile writes none."""
    import soundfile
    import soxr

    if "MP3" not in soundfile.available_formats():
        return b""
    wanted = next((each for each in (24_000, 22_050, 16_000, 12_000, 11_025, 8_000) if each <= rate), None)
    if wanted is None:
        return b""
    file = io.BytesIO()
    played = np.clip(soxr.resample(wave, rate, wanted), -1, 1)
    soundfile.write(file, played, wanted, format="MP3", subtype="MPEG_LAYER_III", compression_level=BITRATE)
    return file.getvalue()
