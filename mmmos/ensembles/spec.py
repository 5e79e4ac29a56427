"""What a head is: ``HeadSpec``, whose hash is the key of its run."""

from typing import Annotated, Any, Literal

from pydantic import Field

from mmmos import recipe, registry
from mmmos.axes import AXES
from mmmos.ensembles.heads import own_loss
from mmmos.files import key_of

Layers = str | tuple[str, ...]
Normalise = Literal["unit", "raw", "standard"]
Samples = Literal["clips", "windows"]
Calibration = Literal["auto", "affine", "isotonic", "none"]
Share = Annotated[float, Field(gt=0, le=1)]
LeaveOut = Annotated[float, Field(ge=0, lt=1)]

# What ``layers`` may be beside names of layers.
LAYER_CHOICES = ("all", "last", "mean", "weighted")

# Changes when the training code gives other numbers for the same spec.
CODE = 3


class HeadSpec(recipe.Recipe):
    """A head to be trained: everything that changes its numbers apart from the data.

    ``layers``: all, last, mean, weighted (a learned softmax) or layer names. ``normalise``: unit (each layer's vector
    has length 1), raw, standard (train mean 0, standard deviation 1). ``samples``: a clip is one vector, or each of its
    windows is (``engine.pooled_feed``). ``loss`` and its ``loss_options`` are of neural heads. ``folds`` ≥ 2: one head
    for each grouped fold, averaged; 1: one head on all training clips, held out on dev. ``share``: the part of the
    training groups that is learned from, drawn by the seed, a larger one with all of a smaller one's. ``target``: the
    set whose clips, without their scores, say which training clips count more (``importance``), and which share of the
    dimensions is hidden (``leave_out``). ``options``: of the head.
    """

    head: str
    features: tuple[str, ...]
    layers: Layers = "all"
    normalise: Normalise = "unit"
    samples: Samples = "clips"
    loss: str = "mse"
    loss_options: dict[str, float] = Field(default_factory=dict)
    axes: tuple[str, ...] = AXES
    seed: int = Field(default=0, ge=0)
    folds: int = Field(default=5, ge=1)
    share: Share = 1.0
    target: str | None = None
    importance: bool = False
    leave_out: LeaveOut = 0.0
    calibration: Calibration = "auto"
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short description for tables, such as "ridge melstats:mean unit"; options only where they are not usual."""
        layers = self.layers if isinstance(self.layers, str) else "+".join(self.layers)
        parts = [self.head, f"{'+'.join(self.features)}:{layers}", self.normalise]
        parts += ["windows"] if self.samples == "windows" else []
        parts += [] if own_loss(self.head) else [self.loss]
        usual = registry.load("heads", self.head).Options().model_dump()
        given = {name: value for name, value in self.options.items() if usual.get(name) != value}
        parts += [f"{name}={value}" for name, value in (self.loss_options | given).items()]
        parts += [f"share {self.share:g}"] if self.share < 1 else []
        parts += ["importance"] if self.importance else []
        parts += [f"leave_out {self.leave_out:g}"] if self.leave_out else []
        parts += [f"for {self.target}"] if self.target else []
        return " ".join(parts) + (f" seed {self.seed}" if self.seed else "")

    def __hash__(self) -> int:
        return hash(key_of(self.model_dump(mode="json")))

    def key(self, data: str) -> str:
        """SHA-256 (hex) of this spec, the code's version and the digest of the training data.

        A head or a loss in a local file counts by its name and the file's SHA-256, wherever the file lies.
        """
        spec = self.model_dump(mode="json")
        for field, kind in (("head", "heads"), ("loss", "losses")):
            if registry.is_local(spec[field]):
                spec[field] = [spec[field].rpartition(":")[2], registry.code_of(kind, spec[field])]
        return key_of({"spec": spec, "data": data, "code": CODE})
