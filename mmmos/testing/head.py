"""``check_head`` holds any head, ours or another's, to what training, storing and predicting rely on."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from safetensors.numpy import load

from mmmos import registry
from mmmos.ensembles.heads.neural import Batch, Neural, Output
from mmmos.ensembles.runs import FoldHead
from mmmos.features.threads import threads
from mmmos.files import canonical_json, tensor_bytes
from mmmos.metrics import srcc
from mmmos.testing.head_subject import NEW, SHAPES, Subject
from mmmos.testing.promises import hold, random_states, unchanged_process

# Rank correlation with truth on new clips that a head must reach.
LEARNED = 0.5
TOLERANCE = 1e-5
STACK_TOLERANCE = 1e-3

PARTS = ("Options", "own_loss", "predict", "state", "restore")


def check_head(subject: str | type[Any], options: Mapping[str, Any] | None = None) -> None:
    """Raise ``AssertionError`` with a sentence for each promise that a head breaks.

    ``subject``: a registered head, one in a local file (``mine.py:Mine``), or its class. ``options``: of the head, in
    place of its own, such as sizes with which it learns 64 clips in seconds.
    """
    head_class = registry.load("heads", subject) if isinstance(subject, str) else subject
    assert isinstance(head_class, type), f"A head is a class; got {type(head_class).__name__}."
    absent = [name for name in PARTS if not hasattr(head_class, name)]
    assert not absent, f"The head {head_class.__name__} lacks {', '.join(absent)}: see mmmos.ensembles.heads."
    trains = hasattr(head_class, "fit") or issubclass(head_class, Neural)
    assert trains, f"The head {head_class.__name__} has no fit and is no mmmos.ensembles.heads.neural.Neural."
    with threads("cpu"):
        hold(Subject(head_class, options or {}), CHECKS)


def _bits(one: NDArray[Any], other: NDArray[Any], what: str) -> None:
    assert one.shape == other.shape, f"{what}: shape {one.shape} became {other.shape}"
    gap = np.abs(one - other).max(initial=0.0)
    assert np.array_equal(one, other), f"{what}: predictions differ by {gap:.2g}; they must have the same bits"


def options_are_checked_and_have_defaults(subject: Subject) -> None:
    """``Options`` is a pydantic model whose fields have defaults, as JSON values, and that refuses other names."""
    model = subject.head_class.Options
    assert issubclass(model, BaseModel), f"Options is {model!r}; derive it from mmmos.recipe.Recipe"
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    assert not needed, f"the options {', '.join(needed)} have no default, which a recipe without them needs"
    given = model.model_validate(subject.options).model_dump()
    canonical_json(given)
    assert model.model_validate(given).model_dump() == given, "options that were read once are read as others again"
    try:
        subject.head_class(options={"no_such_option": 1}, weighted=False, loss="mse", seed=0)
    except ValueError:
        return
    raise AssertionError(
        "an unknown option is taken without a word; validate with self.Options.model_validate(options), and derive"
        " Options from mmmos.recipe.Recipe"
    )


def it_learns(subject: Subject) -> None:
    """Scores that are linear in the features of two sets are ranked on clips that it has not seen."""
    predicted = subject.predict(subject.trained(few=False))
    ranks = [srcc(said, true) for said, true in zip(predicted.T, subject.targets[NEW].T, strict=True)]
    poor = [f"axis {axis}: {rank:.2f}" for axis, rank in enumerate(ranks) if not rank > LEARNED]
    assert not poor, (
        f"the SRCC with the truth of new clips is too low ({', '.join(poor)}; {LEARNED:g} is asked for). Axes 0 and 1"
        " are told by the first feature set, 2 and 3 by the second; give options with which it learns 64 clips"
    )


def predictions_are_finite_float32_of_clips_and_axes(subject: Subject) -> None:
    """Of no clip, one and many, from one feature set and two, for one axis and four, and far from training clips."""
    for sets, axes in ((("a", "b"), 4), (("a",), 1)):
        head = subject.trained(sets=sets, axes=axes, few=True)
        for clips in (NEW, NEW[:1], NEW[:0]):
            said = subject.predict(head, clips, sets)
            case = f"{len(clips)} clips, {axes} axes, feature sets: {len(sets)}"
            assert said.shape == (len(clips), axes), f"{case}: shape {said.shape}"
            assert np.isfinite(said).all(), f"{case}: predictions are not finite"
    direct = _direct(subject, subject.trained())
    assert direct.dtype == np.float32, f"predict gives {direct.dtype}, not float32"
    if not subject.reads_frames:
        far = [np.full((3, *shape), 8.0, np.float32) for shape in SHAPES.values()]
        assert np.isfinite(subject.trained().head.predict(far)).all(), "8 deviations off: predictions are not finite"


def _direct(subject: Subject, trained: FoldHead) -> NDArray[Any]:
    """What ``predict`` itself gives."""
    inputs = subject.inputs().at(NEW)
    if subject.reads_frames:
        return np.asarray(trained.head.predict(inputs.standardised(trained.standardise)))
    return np.asarray(trained.head.predict(trained.standardise(inputs.blocks)))


def a_clip_is_predicted_as_if_alone(subject: Subject) -> None:
    """Whatever clips are beside it, in any order."""
    head = subject.trained()
    together = subject.predict(head)
    alone = np.concatenate([subject.predict(head, NEW[place : place + 1]) for place in range(len(NEW))])
    for case, other in {"alone": alone, "in reverse order": subject.predict(head, NEW[::-1])[::-1]}.items():
        gap = np.abs(together - other).max()
        assert gap <= TOLERANCE, f"clips {case} have other predictions than together: they differ by {gap:.2g}"


def the_features_matter(subject: Subject) -> None:
    """Other clips have other predictions."""
    said = subject.predict(subject.trained())
    assert np.ptp(said, axis=0).all(), "all clips have the same prediction on an axis"


def the_seed_decides_all_chance(subject: Subject) -> None:
    """The same seed gives the same bits, whatever the random state of the process."""
    first = subject.predict(subject.trained())
    with random_states(1):
        again = subject.train([subject.make(few=True)])[0]
    _bits(first, subject.predict(again), "trained again with the same seed")


def the_process_is_left_as_it_was(subject: Subject) -> None:
    """Training and predicting leave random states and settings of the process alone."""
    with unchanged_process("training or predicting"):
        subject.predict(subject.train([subject.make(few=True)])[0])


def the_inputs_are_left_alone(subject: Subject) -> None:
    """Neither training nor predicting writes to what is given in."""
    before, targets = [array.copy() for array in subject.read()], subject.targets.copy()
    head = subject.train([subject.make(few=True)])[0]
    same = all(map(np.array_equal, before, subject.read())) and np.array_equal(targets, subject.targets)
    assert same, "training changed the given arrays in place"
    if not subject.reads_frames:
        blocks = head.standardise(subject.inputs().at(NEW).blocks)
        copies = [block.copy() for block in blocks]
        head.head.predict(blocks)
        assert all(map(np.array_equal, blocks, copies)), "predict changed the given arrays in place"


def the_state_is_all_that_it_learned(subject: Subject) -> None:
    """``state`` is numeric numpy arrays by name, from which a new head predicts the same bits, stored in between."""
    trained = subject.trained()
    state = trained.head.state()
    for name, array in state.items():
        plain = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
        what = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        assert plain, f"the state {name!r} is {what}; it must be a numpy array of numbers"
    wanted = subject.predict(trained)
    head = subject.make(few=True).restore(load(tensor_bytes(state)))
    assert hasattr(head, "predict"), "restore gives no head; it ends with return self"
    restored = FoldHead(trained.standardise, head, trained.offset)
    _bits(wanted, subject.predict(restored), "restored from its state")
    assert set(head.state()) == set(state), "the state of a restored head has other names"


def in_a_stack_it_is_trained_as_alone(subject: Subject) -> None:
    """A neural head that stacks has the same predictions when others, of other seeds, are trained beside it."""
    if not (subject.is_neural and subject.head_class.stacks):
        return
    together = subject.train([subject.make(few=True, seed=seed) for seed in range(3)])
    for seed, head in enumerate(together):
        gap = np.abs(subject.predict(head) - subject.predict(subject.trained(seed=seed))).max()
        assert gap <= STACK_TOLERANCE, (
            f"the head with seed {seed} differs by {gap:.2g} when two others are trained beside it; keep the leading"
            " dimension of heads apart, as mmmos.ensembles.heads.stack does, or set stacks = False"
        )


def a_loss_is_taken_or_refused(subject: Subject) -> None:
    """Without ``own_loss``, the loss that a recipe names is what the head minimises."""
    if subject.head_class.own_loss:
        return
    one, other = subject.predict(subject.trained()), subject.predict(subject.trained(loss="ccc"))
    assert not np.array_equal(one, other), (
        "the losses mse and ccc give the same head; where it has a criterion of its own, set own_loss = True"
    )


def an_embedding_is_what_it_says(subject: Subject) -> None:
    """With ``embeds``, the output of a neural head holds an embedding (heads, clips, dim)."""
    if not (subject.is_neural and getattr(subject.head_class, "embeds", False)):
        return
    embedding = _output(subject, subject.trained().head).embedding
    assert embedding is not None, "embeds = True, and its output has no embedding; set embeds = False"
    fits = embedding.ndim == 3 and tuple(embedding.shape[:2]) == (1, 2)
    assert fits, f"the embedding of two clips is {tuple(embedding.shape)}; it must be (1, 2, dim)"


def _output(subject: Subject, head: Any) -> Output:
    """What a neural head's module gives of two clips."""
    length = 4 if subject.reads_frames else None
    shape = (1, 2) if length is None else (1, 2, length)
    draw = torch.Generator().manual_seed(0)
    blocks = [torch.randn(*shape, *own, generator=draw) for own in SHAPES.values()]
    lengths = None if length is None else torch.tensor([[length, length]])
    with torch.inference_mode():
        found: Output = head.module()(Batch(blocks, lengths))
    return found


def layers_are_weighted_where_it_says_so(subject: Subject) -> None:
    """With ``learns_layers``, ``weighted`` makes another head, which is trained and predicts."""
    if not getattr(subject.head_class, "learns_layers", False):
        return
    weighted = subject.predict(subject.trained(weighted=True))
    assert np.isfinite(weighted).all(), "with weighted layers, predictions are not finite"
    assert not np.array_equal(weighted, subject.predict(subject.trained())), (
        "weighted changes nothing; where the head learns no weights of layers, set learns_layers = False"
    )


CHECKS: tuple[Callable[[Subject], None], ...] = (
    options_are_checked_and_have_defaults,
    it_learns,
    predictions_are_finite_float32_of_clips_and_axes,
    a_clip_is_predicted_as_if_alone,
    the_features_matter,
    the_seed_decides_all_chance,
    the_process_is_left_as_it_was,
    the_inputs_are_left_alone,
    the_state_is_all_that_it_learned,
    in_a_stack_it_is_trained_as_alone,
    a_loss_is_taken_or_refused,
    an_embedding_is_what_it_says,
    layers_are_weighted_where_it_says_so,
)
