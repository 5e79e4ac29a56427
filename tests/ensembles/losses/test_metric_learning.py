"""Triplets: who qualifies, who is drawn, what it costs."""

import numpy as np
import pytest
import torch

from mmmos.ensembles.losses import loss

HEADS, AXES, CLIPS, KNOWN, DIM = 2, 3, 6, 9, 4


def inputs(known=KNOWN, memory=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(HEADS, CLIPS, DIM, dtype=torch.float64, generator=generator)
    y = torch.randn(HEADS, AXES, CLIPS, dtype=torch.float64, generator=generator)
    known_z = torch.randn(HEADS, known, DIM, dtype=torch.float64, generator=generator)
    known_y = torch.randn(HEADS, AXES, known, dtype=torch.float64, generator=generator)
    chance = torch.rand(HEADS, AXES, 2, CLIPS, known if memory else CLIPS, generator=generator)
    return z, y, known_z, known_y, chance


def term(name, z, y, known_z, known_y, chance, **options):
    return loss(name, options).of_embedding(z, y, (known_z, known_y), chance)


def squared(a, b):
    return sum((x - w) ** 2 for x, w in zip(a, b, strict=True))


def slow(z, y, known_z, known_y, chance, in_batch, alpha=0.2, eps=0.5, margin=1.0):
    """The paper's formula for one head, with loops; the candidate with the largest number is the drawn one."""
    hinges = []
    for axis in range(len(y)):
        for a in range(len(z)):
            candidates = range(len(z) if in_batch else len(known_z))
            others_z, others_y = (z, y) if in_batch else (known_z, known_y)
            gap = {m: abs(y[axis][a] - others_y[axis][m]) for m in candidates if not (in_batch and m == a)}
            near, far = ([m for m in gap if gap[m] < eps], [m for m in gap if gap[m] > eps])
            if not near or not far:
                continue
            p = max(near, key=lambda m: chance[axis][0][a][m])
            n = max(far, key=lambda m: chance[axis][1][a][m])
            hinges.append(max(0, squared(z[a], others_z[p]) - squared(z[a], others_z[n]) + margin))
    return alpha * sum(hinges) / len(hinges) if hinges else 0.0


@pytest.mark.parametrize("name", ["triplet", "triplet_batch"])
@pytest.mark.parametrize("options", [{}, {"alpha": 1.0, "eps": 1.1, "margin": 3.0}, {"eps": 0.05}])
def test_the_term_is_its_formula(name, options):
    in_batch = name == "triplet_batch"
    for seed in range(5):
        given = inputs(memory=not in_batch, seed=seed)
        got = term(name, *given, **options).tolist()
        wanted = [slow(*(each[head].tolist() for each in given), in_batch, **options) for head in range(HEADS)]
        assert got == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", ["triplet", "triplet_batch"])
def test_gradients_of_the_term_are_those_of_finite_differences(name):
    z, *others = inputs(memory=name == "triplet")
    assert torch.autograd.gradcheck(lambda x: term(name, x, *others), z.requires_grad_())


def test_scores_get_the_mse():
    p, y = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    for name in ("triplet", "triplet_batch"):
        assert torch.equal(loss(name)(p, y), loss("mse")(p, y))


def test_only_triplet_remembers():
    assert loss("triplet").memory > 0
    assert loss("triplet_batch").memory == 0
    z, y, known_z, known_y, chance = inputs(memory=False)
    assert torch.equal(
        term("triplet_batch", z, y, known_z, known_y, chance),
        term("triplet_batch", z, y, known_z[:, :0], known_y[:, :, :0], chance),
    )


def test_the_position_in_memory_does_not_matter_but_for_the_draw():
    z, y, known_z, known_y, chance = inputs()
    order = torch.randperm(KNOWN, generator=torch.Generator().manual_seed(1))
    moved = term("triplet", z, y, known_z[:, order], known_y[:, :, order], chance[..., order])
    assert torch.equal(moved, term("triplet", z, y, known_z, known_y, chance))


@pytest.mark.parametrize("position", range(KNOWN))
def test_the_candidate_with_the_largest_chance_is_drawn_from_its_place_in_memory(position):
    """One clip, of score 0; only memory ``position`` is far, and the others are alike."""
    z, known_z = torch.zeros(1, 1, 1), torch.zeros(1, KNOWN, 1)
    known_z[0, position] = 0.5
    known_y = torch.zeros(1, 1, KNOWN)
    known_y[0, 0, position] = 2.0
    chance = torch.rand(1, 1, 2, 1, KNOWN)
    got = term("triplet", z, torch.zeros(1, 1, 1), known_z, known_y, chance, alpha=1.0)
    assert float(got) == pytest.approx(1 - 0.25)


def test_nothing_is_lost_where_nobody_qualifies():
    z, y, known_z, known_y, chance = inputs()
    places = torch.arange(KNOWN, dtype=torch.float64).expand(HEADS, AXES, KNOWN)
    cases = {
        "nothing is remembered": inputs(known=0),
        "all are near": (z, 0 * y, known_z, 0 * known_y, chance),
        "all are far": (z, y, known_z, known_y + 100, chance),
        "those not far are just at eps": (z, 0 * y, known_z, places.where(places > 4, 0.5), chance),
        "those not near are just at eps": (z, 0 * y, known_z, (places > 4) * 0.5, chance),
    }
    for case, given in cases.items():
        assert term("triplet", *given).tolist() == [0, 0], case
    lonely = torch.arange(CLIPS, dtype=torch.float64).expand(HEADS, AXES, CLIPS)
    given = inputs(memory=False)
    # A clip is not its own positive.
    assert term("triplet_batch", given[0], lonely, *given[2:]).tolist() == [0, 0]


def test_anchors_without_a_triplet_do_not_count():
    z, y, known_z, known_y, chance = inputs()
    far = y.clone()
    far[:, :, 3:] = 100
    alone = term("triplet", z[:, :3], y[:, :, :3], known_z, known_y, chance[..., :3, :])
    assert torch.allclose(term("triplet", z, far, known_z, known_y, chance), alone)


def test_the_draw_is_uniform_among_those_that_qualify():
    """Of nine remembered clips three are near; the memory's places are read back from the distances."""
    draws = 6000
    known_y = torch.tensor([0.1, 3, 0.2, 3, 3, -0.4, 3, 3, 3]).expand(draws, 1, KNOWN)
    known_z = torch.arange(KNOWN, dtype=torch.float64).sqrt()[:, None].expand(draws, KNOWN, 1)
    nothing = torch.zeros(draws, 1, 1, dtype=torch.float64)
    chance = torch.rand(draws, 1, 2, 1, KNOWN, generator=torch.Generator().manual_seed(0))
    # ‖z_a − z_m‖² = m: the hinge is p − n + 9, of which p is one of three and n one of six places.
    hinge = term("triplet", nothing, nothing, known_z, known_y, chance, alpha=1.0, margin=9.0)
    got = np.bincount(hinge.round().long().numpy(), minlength=18)
    wanted = np.zeros(18)
    for p in (0, 2, 5):
        for n in (1, 3, 4, 6, 7, 8):
            wanted[p - n + 9] += draws / 18
    assert (got[wanted == 0] == 0).all()
    hit = wanted > 0
    assert ((got[hit] - wanted[hit]) ** 2 / wanted[hit]).sum() < 3 * hit.sum()


def test_training_on_triplets_brings_like_scores_together():
    """Free embeddings under the term alone: near scores end nearer than far ones."""
    generator = torch.Generator().manual_seed(0)
    y = torch.linspace(-2, 2, 24).expand(1, 1, 24)
    z = torch.randn(1, 24, 3, generator=generator).requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.05)
    for _ in range(200):
        chance = torch.rand(1, 1, 2, 24, 24, generator=generator)
        optimiser.zero_grad()
        term("triplet_batch", z, y, z, y, chance).sum().backward()
        optimiser.step()
    distance = torch.cdist(z[0].detach(), z[0].detach())
    near = (y[0, 0][:, None] - y[0, 0][None]).abs() < 0.5
    assert distance[near].mean() < 0.3 * distance[~near].mean()
