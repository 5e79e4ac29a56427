"""``export_onnx``: the heads of a bundle as one ONNX graph, from clip embeddings to scores."""

from pathlib import Path

from mmmos.ensembles.model import Model
from mmmos.errors import SetupError, UsageError

__all__ = ["export_onnx"]


def export_onnx(bundle: Model, to: str | Path) -> Path:
    """Write the heads of a ``Bundle`` to an .onnx file: operators of opset 17, and for trees of ai.onnx.ml 3.

    Inputs are the raw clip embeddings (clips, layers, dim) float32 of each feature set, by its name; outputs ``scores``
    (clips, axes) float32, score units, and ``spread`` where there is more than one head. The same bundle gives the same
    bytes. The file is there only after onnxruntime has given the bundle's scores to 1e-4.

    Raises ``SetupError`` without the extra ``onnx``, for a head that has no form in ONNX, for other scores, and for
    more than 2 GB; ``UsageError`` for what is no bundle, and for another ending than .onnx.
    """
    to = Path(to)
    if to.suffix != ".onnx":
        raise UsageError(f"The graph is written to a file whose name ends in .onnx; got {str(to)!r}.")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise SetupError(f"Export to ONNX needs {error.name}: pip install 'mmmos[onnx]'") from None
    from mmmos.ensembles.bundle import Bundle
    from mmmos.ensembles.onnx.export import checked_model
    from mmmos.files import write_atomic

    if not isinstance(bundle, Bundle):
        raise UsageError(
            f"Only the heads of a bundle that mmmos ensembles export has made can be written as ONNX; {bundle.name!r}"
            " is none."
        )
    return write_atomic(to, checked_model(bundle))
