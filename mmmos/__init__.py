"""MMMOS: predict what people think of audio.

The pipeline is manifest → features → ensembles → submissions, one function per verb; ``load`` gives a scorer.
Importing the package imports neither torch nor pandas; each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "AXES": "mmmos.axes",
    "MmmosError": "mmmos.errors",
    "Workers": "mmmos.parallel",
    "check_submission": "mmmos.submissions.check",
    "encoder": "mmmos.features.encoders",
    "evaluate": "mmmos.metrics",
    "extract": "mmmos.features.extraction.extract",
    "load": "mmmos.scoring",
    "locate": "mmmos.manifest",
    "make_corpus": "mmmos.demo",
    "read_manifest": "mmmos.manifest",
    "run": "mmmos.pipeline",
    "select": "mmmos.ensembles.ensemble",
    "train": "mmmos.ensembles.training.train",
    "write_submission": "mmmos.submissions.write",
}

__all__ = [
    "AXES",
    "MmmosError",
    "Workers",
    "__version__",
    "check_submission",
    "encoder",
    "evaluate",
    "extract",
    "load",
    "locate",
    "make_corpus",
    "read_manifest",
    "run",
    "select",
    "train",
    "write_submission",
]

if TYPE_CHECKING:
    from mmmos.axes import AXES
    from mmmos.demo import make_corpus
    from mmmos.ensembles.ensemble import select
    from mmmos.ensembles.training.train import train
    from mmmos.errors import MmmosError
    from mmmos.features.encoders import encoder
    from mmmos.features.extraction.extract import extract
    from mmmos.manifest import locate, read_manifest
    from mmmos.metrics import evaluate
    from mmmos.parallel import Workers
    from mmmos.pipeline import run
    from mmmos.scoring import load
    from mmmos.submissions.check import check_submission
    from mmmos.submissions.write import write_submission


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mmmos' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
