"""The published layouts of M2D: what the name of a checkpoint's folder says, and where its encoder is in the file.

What weights do not tell is in the name of their folder, such as m2d_clap_vit_base-80x1001p16x16-240128: 80 mel bands,
at most 1001 frames at once, patches of 16 bands × 16 frames, and 16 kHz unless p32k follows. No check can see that a
name is wrong about the sample rate: it gives wrong numbers.
"""

import math
import re
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmmos.errors import SetupError
from mmmos.features import checkpoint

if TYPE_CHECKING:
    from torch import Tensor

MELS, HEAD = 80, 64
LICENCE = "NTT evaluation licence, non-commercial"
RELEASES = "https://github.com/nttcslab/m2d/releases"

# Release and folder of published checkpoints, by the names of their cards.
PUBLISHED = {
    "m2d-clap-as-ft": "v0.3.0/m2d_clap_vit_base-80x1001p16x16-240128_AS-FT_enconly",
    "m2d-as-ft": "v0.3.0/m2d_as_vit_base-80x1001p16x16-240213_AS-FT_enconly",
    "m2d-as-ft-32k": "v0.3.0/m2d_as_vit_base-80x1001p16x16p32k-240413_AS-FT_enconly",
    "m2d-ft": "v0.3.0/m2d_vit_base-80x1001p16x16-221006-mr7_as_46ab246d",
    "m2d-clap": "v0.1.0/m2d_clap_vit_base-80x608p16x16-240128",
    "m2d-25hz": "v0.1.0/m2d_vit_base-80x200p16x4-230529",
    "m2d-speech": "v0.2.0/m2d_s_vit_base-80x608p80x2-230220",
}

# Where the encoder is in a file: one fine-tuned with EVAR, one of RuntimeM2D, any other.
_PREFIXES = ("module.ar.runtime.backbone.", "backbone.", "")

# Parts that training or other tasks need.
_PRETRAINING = ("decoder_", "mask_token", "target_", "offline_predictor.")
_CLAP = ("audio_proj.", "text_proj.", "text_encoder.", "logit_scale")
_AROUND = ("head.", "head_norm.", "to_spec.", "module.head.", "module.ar.")
_UNUSED = (*_PRETRAINING, *_CLAP, *_AROUND)

# Mean and standard deviation of the log-mel values for models of 2022, which hold none.
_NORM_STATS = (-7.1, 4.2)


@dataclass(frozen=True)
class Layout:
    """Frames of the longest input, bands and frames of a patch, sample rate (Hz)."""

    frames: int
    patch_mels: int
    patch_frames: int
    rate: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of the longest input over frequency and time."""
        return MELS // self.patch_mels, self.frames // self.patch_frames

    @property
    def fft(self) -> int:
        """Samples of the spectrogram's window: 25 ms."""
        return self.rate // 40

    @property
    def hop(self) -> int:
        """Samples between frames of the spectrogram: 10 ms."""
        return self.rate // 100


def read_layout(text: str) -> Layout:
    """The layout in a text such as ``80x1001p16x16`` or ``80x608p16x16p32k``. Raises ``SetupError``.

    The name of a text encoder that may follow (``p16kpA``, ``p16kpBpTI``) changes nothing here.
    """
    match = re.fullmatch(rf"{MELS}x(\d{{1,5}})p(\d{{1,2}})x(\d{{1,5}})(?:p(16|32)k)?(?:p[A-Z](?:pTI)?)?", text)
    if match:
        layout = Layout(int(match[1]), int(match[2]), int(match[3]), 1000 * int(match[4] or 16))
        if layout.patch_mels and layout.patch_frames and min(layout.grid):
            return layout
    raise SetupError(f"There is no M2D layout {text!r}. {_how()}")


def find_layout(path: Path, option: str | None = None, name: str = "") -> Layout:
    """The layout that the option says, else the folder of the weights, else the published checkpoint of that name."""
    folder = (path if path.is_dir() else path.parent).absolute().name
    said = str(option or in_name(folder) or in_name(PUBLISHED.get(name, "")))
    if not said:
        raise SetupError(f"The name of the folder {folder!r} does not say the layout of the M2D in it. {_how()}")
    return read_layout(said)


def in_name(folder: str) -> str:
    """The part of a folder's name that says a layout, "" without one."""
    part = f"{folder}-".split("-")[1]
    return part if re.match(r"\d+x\d", part) else ""


def _how() -> str:
    return (
        f"Keep the folder's name as published, or give layout = such as '{MELS}x608p16x16': {MELS} mel bands x frames,"
        " p, bands x frames of a patch, and p32k at the end for a model at 32 kHz."
    )


def read_encoder(file: Path) -> tuple[dict[str, "Tensor"], str]:
    """The encoder's tensors by the names of timm's vision transformer, and what stands before those in the file."""
    found = checkpoint.read(file, allow=[Namespace])
    if "model" in found:
        found = checkpoint.entry(found, "model", file, dict)
    used = {str(key): value for key, value in found.items()}
    prefix = next(prefix for prefix in _PREFIXES if not prefix or any(key.startswith(prefix) for key in used))
    outside = [key for key in used if not key.startswith((prefix, *_UNUSED))]
    if outside:
        raise SetupError(f"{file} holds more than an M2D. Unexpected keys: {checkpoint.listed(outside)}.")
    inside = {key.removeprefix(prefix): value for key, value in used.items() if key.startswith(prefix)}
    inside = {key: value for key, value in inside.items() if not key.startswith(_UNUSED)}
    return checkpoint.tensors(inside, file), prefix


def pop_norm_stats(state: dict[str, "Tensor"], source: Path) -> tuple[float, float]:
    """Mean and standard deviation of the log-mel values, taken out of a state dict. Raises ``SetupError``."""
    values = state.pop("norm_stats").flatten().tolist() if "norm_stats" in state else _NORM_STATS
    if len(values) != 2 or not all(map(math.isfinite, values)) or values[1] <= 0:
        raise SetupError(f"norm_stats in {source} must be a mean and a positive deviation; got {list(values[:5])}.")
    return values[0], values[1]


def check(state: dict[str, "Tensor"], layout: Layout, source: Path) -> None:
    """Raise ``SetupError`` when a state dict is of another layout, or of no vision transformer."""
    ranks = {"pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    missing = [key for key, rank in ranks.items() if key not in state or state[key].ndim != rank]
    if missing:
        raise SetupError(f"The weights in {source} are of no M2D. Missing keys: {checkpoint.listed(missing)}.")
    (_, positions, dim), patch = state["pos_embed"].shape, tuple(state["patch_embed.proj.weight"].shape[2:])
    held = f"{positions - 1} positions and patches of {patch[0]} x {patch[1]}"
    told = f"{math.prod(layout.grid)} positions and patches of {layout.patch_mels} x {layout.patch_frames}"
    if held != told:
        raise SetupError(
            f"The weights in {source} have {held}, by the layout {told}. The folder's name, or layout = …, is of"
            " another checkpoint."
        )
    if not dim or dim % HEAD:
        raise SetupError(f"The weights in {source} are {dim} wide; an M2D has heads of {HEAD} dimensions.")
