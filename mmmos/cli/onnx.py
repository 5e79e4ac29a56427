"""``mmmos ensembles onnx``: the heads of a bundle as one ONNX graph."""

from pathlib import Path

from mmmos.cli.output import put, say, shown_path


def onnx(bundle: str, /, *, to: Path = Path("heads.onnx")) -> int:
    """Write the heads of a bundle as one ONNX graph, from clip embeddings to scores, checked with onnxruntime.

    Example: mmmos ensembles onnx first --to heads.onnx

    Parameters
    ----------
    bundle
        The name of an exported ensemble, a folder or zip, or hf://owner/name@revision.
    to
        The file, whose name ends in .onnx; one that is there is replaced.
    """
    from mmmos.ensembles.onnx import export_onnx
    from mmmos.errors import UsageError
    from mmmos.scoring import naming

    if naming.is_audiobox(bundle):
        raise UsageError(
            f"{bundle} is a checkpoint of Audiobox; only bundles of mmmos ensembles export have an ONNX form."
        )
    model = naming.find(bundle)
    path = export_onnx(model, to)
    say(f"{model.name}: {path.stat().st_size / 1e6:.1f} MB; onnxruntime gives the bundle's scores.")
    put(shown_path(path))
    return 0
