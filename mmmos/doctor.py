"""``doctor``: what this machine has, and the known ways in which it cannot work."""

import importlib
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec

import pandas as pd

from mmmos import hub, parallel, registry
from mmmos.errors import MmmosError, first_line
from mmmos.features import encoders, weights

PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "torch",
    "transformers",
    "nnAudio",
    "librosa",
    "soundfile",
    "soxr",
    "safetensors",
    "joblib",
)
_MODULES = {"scikit-learn": "sklearn"}
_FORMATS = ("WAV", "FLAC", "OGG", "MP3", "AIFF")


def examine() -> pd.DataFrame:
    """A row for each thing looked at: what, state ("ok", "absent" or "broken"), detail."""
    checks = (
        _python(),
        *map(_package, PACKAGES),
        _guarded("device", _device),
        _guarded("decoder", _decoder),
        _ffmpeg(),
        *_mixes(),
        *_plugins(),
        _hub(),
        *_weights(),
    )
    return pd.DataFrame(checks, columns=["what", "state", "detail"], dtype=object)


Finding = tuple[str, str, str]


def _python() -> Finding:
    cores = parallel.cores()
    return "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores} cores"


def _package(name: str) -> Finding:
    """Importable, and not only installed."""
    try:
        importlib.import_module(_MODULES.get(name, name))
        return name, "ok", version(name)
    except Exception as error:
        return name, "broken", f"cannot be imported: {first_line(error)}. Install MMMOS again with its constraints.txt."


def _guarded(what: str, check: Callable[[], Finding]) -> Finding:
    """A check's finding; one that cannot be carried out is a finding, too."""
    try:
        return check()
    except Exception as error:
        return what, "broken", f"cannot be examined: {first_line(error)}"


def _device() -> Finding:
    import torch

    from mmmos.features.encoders import find_device

    device = find_device("auto")
    name = torch.cuda.get_device_name() if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    return "device", "ok", f"{device} ({name})"


def _decoder() -> Finding:
    import soundfile

    absent = [name for name in _FORMATS if name not in soundfile.available_formats()]
    if absent:
        return "decoder", "broken", f"libsndfile lacks {', '.join(absent)}; install the soundfile wheel from PyPI"
    return "decoder", "ok", f"{soundfile.__libsndfile_version__}: {', '.join(_FORMATS).lower()}"


def _ffmpeg() -> Finding:
    path = shutil.which("ffmpeg")
    return (
        "ffmpeg",
        "ok" if path else "absent",
        path or "only needed for m4a, aac, webm, wma and video; other audio is decoded without it",
    )


def _mixes() -> Iterator[Finding]:
    """Packages that break others by being there: a CUDA torchaudio beside a CPU torch."""
    for name in ("torchaudio", "torchcodec", "torchvision"):
        if find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = (
                f"is installed and cannot be imported, which breaks transformers: {first_line(error)}. Uninstall it."
            )
            yield name, "broken", reason


def _plugins() -> Iterator[Finding]:
    for kind in registry.KINDS:
        try:
            names = registry.names(kind)
            for name in names:
                registry.load(kind, name)
            yield kind, "ok", ", ".join(names)
        except MmmosError as error:
            yield kind, "broken", str(error)


def _hub() -> Finding:
    return "hub", "ok", "offline (HF_HUB_OFFLINE)" if hub.is_offline() else "network allowed"


def _weights() -> Iterator[Finding]:
    """A row for each encoder whose weights are here, hashed, and one that names the others."""
    absent = []
    for name in _encoders():
        try:
            card = encoders.card(name)
            path = weights.is_here(card.weights, card.revision) if card.weights else None
            if path:
                digest = weights.checked(path, card.sha256)
                yield (
                    f"weights of {name}",
                    "ok",
                    f"{path}, SHA-256 {digest[:12]}{' as published' if card.sha256 else ''}",
                )
            elif card.weights:
                absent.append(name)
        except (MmmosError, OSError) as error:
            yield f"weights of {name}", "broken", first_line(error)
    if absent:
        yield "weights", "absent", f"to be fetched before use: {', '.join(absent)}"


def _encoders() -> list[str]:
    """Registered encoders; none when the plug-ins are in a state that ``_plugins`` reports."""
    try:
        return registry.names("encoders")
    except MmmosError:
        return []
