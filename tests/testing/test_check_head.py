"""check_head: what is sound passes, each kind of broken one is caught and named."""

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from mmmos import registry
from mmmos.ensembles.heads.classical import Ridge
from mmmos.ensembles.heads.neural import Neural, Output, TrainingOptions
from mmmos.ensembles.heads.pooled import Linear
from mmmos.ensembles.heads.stack import Affine
from mmmos.recipe import Recipe
from mmmos.testing import check_head

# With which heads learn 64 clips in little time.
SMALL = {
    "adversarial": {"hidden": 16, "lr": 1e-2, "epochs": 20},
    "aesa": {
        "width": 8,
        "hidden": 8,
        "shared": 8,
        "attention_heads": 1,
        "depth": 1,
        "dropout": 0.0,
        "lr": 3e-2,
        "epochs": 16,
        "batch": 32,
    },
    "attention": {"width": 16, "lr": 3e-2, "epochs": 8},
    "blstm": {"hidden": 8, "lr": 3e-2, "epochs": 10},
    "blstm_t": {"hidden": 8, "lr": 3e-2, "epochs": 12, "batch": 32},
    "gradient_boosting": {"trees": 20},
    "layersum": {"hidden": 16, "lr": 1e-2, "epochs": 20},
}


@pytest.mark.parametrize("name", registry.names("heads"))
def test_every_registered_head_passes(name):
    check_head(name, SMALL.get(name))


class NoOptions(Recipe):
    pass


class Sound:
    """Least squares of all features."""

    Options = NoOptions
    own_loss = True

    def __init__(self, *, options, weighted=False, loss="mse", seed=0):
        self.options, self.seed, self.arrays = self.Options.model_validate(options), seed, {}

    def table(self, blocks):
        return np.concatenate([block.reshape(len(block), int(np.prod(block.shape[1:]))) for block in blocks], 1)

    def fit(self, blocks, targets, held_out):
        x = self.table(blocks)
        self.arrays = {"w": np.linalg.lstsq(x, targets, rcond=None)[0]}
        return self

    def predict(self, blocks):
        return (
            np.stack([row @ self.arrays["w"] for row in self.table(blocks)]).astype(np.float32)
            if len(blocks[0])
            else self.none()
        )

    def none(self):
        return np.zeros((0, self.arrays["w"].shape[1]), np.float32)

    def state(self):
        return self.arrays

    def restore(self, state):
        self.arrays = state
        return self


class TakesAnyOption(Sound):
    class Options(BaseModel):
        pass


class NeedsAnOption(Sound):
    class Options(Recipe):
        alpha: float

    def __init__(self, *, options, **rest):
        super().__init__(options={"alpha": 1.0} | options, **rest)


class LearnsNothing(Sound):
    def fit(self, blocks, targets, held_out):
        return super().fit(blocks, np.random.default_rng(self.seed).permutation(targets), held_out)


class ReadsTheFirstSetAlone(Sound):
    def table(self, blocks):
        return super().table(blocks[:1])


class FailsWithoutClips(Sound):
    def none(self):
        raise ZeroDivisionError


class GivesDoubles(Sound):
    def predict(self, blocks):
        return super().predict(blocks).astype(np.float64)


class LooksAtNeighbours(Sound):
    def predict(self, blocks):
        said = super().predict(blocks)
        return said - said.mean(0) * 0.1 if len(said) else said


class Constant(Sound):
    def predict(self, blocks):
        return 0 * super().predict(blocks)


class DrawsFromTheProcess(Sound):
    def fit(self, blocks, targets, held_out):
        return super().fit(blocks, targets + np.random.normal(0, 0.1, targets.shape), held_out)


class WritesToItsInput(Sound):
    def predict(self, blocks):
        for block in blocks:
            block += 0.01
        return super().predict(blocks)


class StoresText(Sound):
    def state(self):
        return self.arrays | {"name": np.array(["mine"])}


class ForgetsWhatItLearned(Sound):
    def fit(self, blocks, targets, held_out):
        self.middle = targets.mean(0) + 1
        return super().fit(blocks, targets, held_out)

    def predict(self, blocks):
        return super().predict(blocks) + np.float32(getattr(self, "middle", 0))


class RestoresNothing(Sound):
    def restore(self, state):
        self.arrays = state


class IgnoresItsLoss(Sound):
    own_loss = False


class IgnoresWeighted(Sound):
    learns_layers = True


class Small(TrainingOptions):
    lr: float = 1e-2
    epochs: int = 20


class SoundNeural(Linear):
    Options = Small


class _Mixed(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, batch):
        outputs = self.inner(batch).outputs
        return Output(outputs + outputs.mean(0, keepdim=True))


class MixesTheStack(SoundNeural):
    def build(self, shapes, axes, draws):
        return _Mixed(super().build(shapes, axes, draws))


class HasNoEmbedding(SoundNeural):
    embeds = True


class _Plain(torch.nn.Module):
    """All layers of all sets side by side, whatever ``weighted`` says."""

    def __init__(self, shapes, outputs, draws):
        super().__init__()
        self.last = Affine(sum(layers * dim for layers, dim in shapes), outputs, draws)

    def forward(self, batch):
        return Output(self.last(torch.cat([block.flatten(2) for block in batch.blocks], 2)))


class MixesNoLayers(Neural):
    Options = Small

    def build(self, shapes, axes, draws):
        return _Plain(shapes, self.outputs(axes), draws)


class SaysItMixesNone(MixesNoLayers):
    learns_layers = False


class MinimisesItsOwn(SaysItMixesNone):
    def objective(self, output, targets, side, constants):
        return (output.outputs - targets).square().mean((1, 2))


class SeedsTheProcess(SaysItMixesNone):
    def build(self, shapes, axes, draws):
        torch.manual_seed(0)
        return super().build(shapes, axes, draws)


BROKEN = {
    TakesAnyOption: "options_are_checked_and_have_defaults: an unknown option is taken without a word",
    NeedsAnOption: "options_are_checked_and_have_defaults: the options alpha have no default",
    LearnsNothing: r"it_learns: the SRCC with the truth of new clips is too low \(axis 0",
    ReadsTheFirstSetAlone: r"it_learns: .* too low \(axis 2",
    FailsWithoutClips: "predictions_are_finite_float32_of_clips_and_axes: ZeroDivisionError",
    GivesDoubles: "predictions_are_finite_float32_of_clips_and_axes: predict gives float64",
    LooksAtNeighbours: "a_clip_is_predicted_as_if_alone: clips alone have other predictions",
    Constant: "the_features_matter: all clips have the same prediction",
    DrawsFromTheProcess: "the_seed_decides_all_chance: trained again with the same seed: predictions differ",
    WritesToItsInput: "the_inputs_are_left_alone: predict changed the given arrays in place",
    StoresText: "the_state_is_all_that_it_learned: the state 'name' is <U4",
    ForgetsWhatItLearned: "the_state_is_all_that_it_learned: restored from its state: predictions differ by",
    RestoresNothing: "the_state_is_all_that_it_learned: restore gives no head; it ends with return self",
    IgnoresItsLoss: "a_loss_is_taken_or_refused: the losses mse and ccc give the same head",
    IgnoresWeighted: "layers_are_weighted_where_it_says_so: weighted changes nothing",
    MixesTheStack: "in_a_stack_it_is_trained_as_alone: the head with seed 0 differs by .* set stacks = False",
    HasNoEmbedding: "an_embedding_is_what_it_says: embeds = True, and its output has no embedding",
    MixesNoLayers: "layers_are_weighted_where_it_says_so: weighted changes nothing; .* set learns_layers = False",
    MinimisesItsOwn: "a_loss_is_taken_or_refused: the losses mse and ccc give the same head",
    SeedsTheProcess: "the_process_is_left_as_it_was: training or predicting changed the random state",
}


@pytest.mark.parametrize("head", [Sound, SoundNeural, SaysItMixesNone])
def test_a_sound_head_passes(head):
    check_head(head)


@pytest.mark.parametrize(("broken", "said"), BROKEN.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_a_broken_head_is_caught(broken, said):
    with pytest.raises(AssertionError, match=said) as caught:
        check_head(broken)
    assert len(str(caught.value).splitlines()) <= 3


def test_what_is_no_head_is_refused():
    with pytest.raises(AssertionError, match="A head is a class; got Ridge"):
        check_head(Ridge(options={}))
    with pytest.raises(AssertionError, match="The head Recipe lacks Options, own_loss, predict, state, restore"):
        check_head(Recipe)
    with pytest.raises(AssertionError, match=r"has no fit and is no mmmos.ensembles.heads.neural.Neural"):
        check_head(type("Idle", (), dict.fromkeys(("Options", "own_loss", "predict", "state", "restore"))))


def test_a_head_in_a_file_is_checked_by_its_name(tmp_path):
    (tmp_path / "mine.py").write_text("from mmmos.ensembles.heads.classical import Ridge\nclass Mine(Ridge): pass\n")
    check_head(f"{tmp_path}/mine.py:Mine", {"alpha": 0.1})
