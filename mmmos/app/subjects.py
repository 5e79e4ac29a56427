"""What the page says of a model: its name, its members, its encoders with their licences, what to beware of."""

from typing import TYPE_CHECKING

from mmmos.app.view import Subject
from mmmos.ensembles.model import Model
from mmmos.features.spec import FeatureSpec

if TYPE_CHECKING:
    from mmmos.ensembles.bundle.about import About


def subject_of(model: Model, notice: str = "") -> Subject:
    """A model as the page shows it; ``notice`` is said before all else. Only a bundle has facts and a reference."""
    about: About | None = getattr(model, "about", None)
    warnings = [notice] if notice else []
    if about is None:
        return Subject(model.name, model.axes, tuple(_encoder(model)), tuple(warnings))
    for each in about.encoders:
        if not each.commercial:
            warnings.append(
                f"Not for commercial use: the weights of {each.facts.name} are under the licence {each.facts.licence}."
            )
    return Subject(model.name, model.axes, tuple(_facts(about)), tuple(warnings), about.reference)


def _encoder(model: Model) -> list[str]:
    """The licence of a published system, which is one encoder with its heads."""
    spec = getattr(model, "spec", None)
    if not isinstance(spec, FeatureSpec):
        return []
    return [f"The published {spec.encoder.name} (licence: {spec.encoder.licence})."]


def _facts(about: "About") -> list[str]:
    count = len(about.members)
    encoders = ", ".join(dict.fromkeys(each.facts.name for each in about.encoders))
    licences = ", ".join(dict.fromkeys(each.facts.licence for each in about.encoders))
    members = "One run" if count == 1 else f"The weighted mean of {count} runs"
    return [f"{members} on {encoders} (licence: {licences})."]
