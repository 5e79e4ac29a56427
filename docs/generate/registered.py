"""encoders.md, heads.md, losses.md, selectors.md: what MMMOS itself registers."""

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from markdown import code, docstring, first_sentence, inline, page, table
from models import keys, own_fields, toml

from mmmos import registry
from mmmos.ensembles import selectors as rules
from mmmos.ensembles.heads.neural import Neural, TrainingOptions
from mmmos.ensembles.losses import Loss
from mmmos.features.encoders import EncoderCard
from mmmos.recipe import Recipe


def built_in(kind: str) -> dict[str, Any]:
    """The objects of a kind by name, those of plug-ins left out."""
    points = entry_points(group=f"mmmos.{kind}")
    names = sorted(point.name for point in points if point.dist and point.dist.name == "mmmos")
    return {name: registry.load(kind, name) for name in names}


def encoders() -> str:
    """The page of encoders."""
    head = """\
Every registered encoder: what it reads and gives, and where its weights are from. `mmmos features list` says the same,
and [encoders](../guide/encoders.md) how to use them.

An encoder without numbers is a family: it takes any checkpoint of its kind, whose layers and licence are the
checkpoint's. Layers count the input of the first block."""
    found: dict[str, EncoderCard] = built_in("encoders")
    shapes = [
        (
            code(name),
            card.family,
            str(card.rate),
            shape(card),
            f"{1000 * card.hop:g}" if card.hop else "",
            str(card.minimum),
        )
        for name, card in found.items()
    ]
    sources = [
        (code(name), source(card), yes(bool(card.sha256)), card.licence, yes(card.commercial))
        for name, card in found.items()
        if card.weights
    ]
    return page(
        "Encoders",
        head,
        "## Input and output",
        "`rate` is of the input in Hz, `hop` the time between frames in ms, `least` the shortest input in samples.",
        table(("encoder", "family", "rate", "layers × dim", "hop", "least"), shapes),
        "## Weights",
        """\
Weights are fetched from the owner's repository at a pinned revision, eight digits of which are shown, or from a
release; their SHA-256 is compared where it is known. Licences are what the publishers say. `melstats` has no
weights.""",
        table(("encoder", "weights", "SHA-256 known", "licence", "commercial use"), sources),
    )


def shape(card: EncoderCard) -> str:
    """Layers × dimension of an encoder; nothing where the checkpoint decides."""
    return f"{card.layers} × {card.dim}" if card.dim else ""


def source(card: EncoderCard) -> str:
    """A link to a release, or to the hub repository at the pinned revision, named by its owner."""
    parts = card.weights.removeprefix("hf://").split("/")
    if card.weights.startswith("https://"):
        return f"[{parts[3]} {parts[-2]}]({card.weights})"
    return f"[{parts[0]} {card.revision[:8]}](https://huggingface.co/{'/'.join(parts[:2])}/tree/{card.revision})"


def yes(fact: bool) -> str:
    """Yes or no."""
    return "yes" if fact else "no"


def heads() -> str:
    """The page of heads."""
    head = """\
What may stand under `head` and `options` of an [ensemble recipe](recipes.md). A head predicts all axes of a recipe at
once and learns standardised scores, mean 0 and deviation 1 over the training clips; predictions leave in score units.

A head with a criterion of its own takes no `loss`. The [guide](../guide/heads.md) says how to choose, and how to write
your own."""
    found = built_in("heads")
    neural = {name: each for name, each in found.items() if issubclass(each, Neural)}
    classical = {name: each for name, each in found.items() if name not in neural}
    rows = [
        (*named(name, each), each.reads, "its own" if each.own_loss else "a `loss`") for name, each in neural.items()
    ]
    return page(
        "Heads",
        head,
        "## Trained by gradient descent",
        table(("head", "what it is", "reads", "criterion"), rows),
        "Options of all of them:",
        keys(TrainingOptions),
        *(head_section(name, each) for name, each in neural.items()),
        "## Fitted by scikit-learn",
        "They read pooled vectors and have a criterion of their own. Stored are arrays, from which numpy predicts.",
        table(("head", "what it is"), [named(name, each) for name, each in classical.items()]),
        *(head_section(name, each) for name, each in classical.items()),
    )


def named(name: str, head: Any) -> tuple[str, str]:
    """A head's name as a link to its section, and what it is."""
    return f"[`{name}`](#{name})", first_sentence(inspect.getdoc(head) or "")


def head_section(name: str, head: Any) -> str:
    """One head: its docstring, facts, options of its own."""
    options: type[Recipe] = head.Options
    own = own_fields(options, TrainingOptions) if issubclass(options, TrainingOptions) else list(options.model_fields)
    facts = []
    if issubclass(head, Neural):
        facts += ['`layers = "weighted"` is allowed.'] if head.learns_layers else []
        facts += ["It has an embedding, which `triplet` and `triplet_batch` look at."] if head.embeds else []
    training = " besides those of training" if issubclass(options, TrainingOptions) else ""
    table_of_options = keys(options, own) if own else ""
    closing = f"Options{training}:" if own else f"No options{training}."
    return "\n\n".join(
        part for part in (f"### `{name}`", docstring(head), " ".join(facts), closing, table_of_options) if part
    )


def losses() -> str:
    """The page of losses."""
    head = """\
What may stand under `loss` and `loss_options` of an [ensemble recipe](recipes.md). A loss is taken for each axis and
averaged; every option is a number of 0 up.

Prediction p, truth y, differences of pairs dp = p_i − p_j and dy = y_i − y_j of a batch of B clips, all on standardised
scores unless said. *Anchored*: the optimum lies on the scale of the scores; what is not anchored is
[calibrated](../guide/ensembles.md) before it is averaged. *Numbers*: what a head gives for each axis. A loss of pairs
needs many clips in a batch; in a batch of one its pairs are 0. Early stopping watches the loss itself on the held-out
clips, of one with an embedding the part of the scores."""
    found: dict[str, Loss] = built_in("losses")
    rows = [
        (f"[`{name}`](#{name})", formula(each), yes(each.anchored), str(each.outputs), options_of(each))
        for name, each in found.items()
    ]
    return page(
        "Losses",
        head,
        table(("loss", "formula", "anchored", "numbers", "options"), rows),
        *(loss_section(name, each) for name, each in found.items()),
    )


def formula(loss: Loss) -> str:
    """The first sentence of a loss's docstring, and of what it adds on the embedding."""
    parts = [loss.function, loss.embedding]
    return " + ".join(first_sentence(inspect.getdoc(part) or "") for part in parts if part)


def options_of(loss: Loss) -> str:
    """A loss's options with their defaults."""
    return ", ".join(f"{code(name)} = {value:g}" for name, value in loss.parameters().items())


def loss_section(name: str, loss: Loss) -> str:
    """One loss: its docstring, how a score is made of several numbers, options."""
    parts = [f"## `{name}`", docstring(loss.function)]
    if loss.embedding:
        parts += ["Added on the embedding z of the head:", docstring(loss.embedding)]
    if loss.decode:
        parts.append(f"The score is: {first_sentence(inspect.getdoc(loss.decode) or '').lower()}.")
    anchored = "Anchored." if loss.anchored else "Not anchored."
    parts.append(f"{anchored} Options: {options_of(loss)}." if loss.parameters() else f"{anchored} No options.")
    return "\n\n".join(parts)


def selectors() -> str:
    """The page of selectors."""
    head = """\
What may stand under `rule` of `[select]` in an [ensemble recipe](recipes.md), and as the `rule` of `mmmos.select`. A
selector chooses runs of a pool and weighs them; parameters other than `on`, `k` and `metric` stand under `options`."""
    about = (inspect.getdoc(rules) or "").split("\n\n")[1]
    found: Mapping[str, Callable[..., Any]] = built_in("selectors")
    return page("Selectors", head, inline(about), *(selector_section(name, each) for name, each in found.items()))


def selector_section(name: str, selector: Callable[..., Any]) -> str:
    """One selector: its docstring and parameters."""
    parameters = list(inspect.signature(selector).parameters.values())[1:]
    rows = [(code(each.name), code(toml(each.default))) for each in parameters]
    return "\n\n".join(
        [f"## `{name}`", docstring(selector), table(("parameter", "default"), rows) if rows else "No parameters."]
    )
