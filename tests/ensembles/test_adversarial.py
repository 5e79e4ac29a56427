"""Gradient reversal against domains: what is minimised, and what a domain is."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from mmmos.ensembles.heads.adversarial import Adversarial
from mmmos.ensembles.heads.neural import Batch
from mmmos.ensembles.heads.pooled import MLP
from mmmos.errors import UnknownName, UsageError

COLUMN = {"domains": "domain", "hidden": 6}


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def draws(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def table(*domains):
    return pd.DataFrame({"domain": domains})


def adversary(domains=3, heads=(0, 1), **options):
    head = Adversarial(options=COLUMN | options)
    head.side(table(*map(str, range(domains))), [])
    return head, head.build([(2, 4)], 3, draws(*heads)).double()


def gradients(module, value):
    found = torch.autograd.grad(value, list(module.parameters()), allow_unused=True, retain_graph=True)
    return {name: each for (name, _), each in zip(module.named_parameters(), found, strict=True) if each is not None}


# --- the objective ----------------------------------------------------------------------------------------------------


def test_scores_and_their_layers_are_those_of_an_mlp_and_the_classifier_reads_the_embedding():
    _, module = adversary()
    plain = MLP(options={"hidden": 6}).build([(2, 4)], 3, draws(0, 1)).double()
    batch = Batch([noise(2, 7, 2, 4, dtype=torch.float64)])
    output, wanted = module(batch), plain(batch)
    assert torch.equal(output.outputs, wanted.outputs) and torch.equal(output.embedding, wanted.embedding)
    hidden = torch.relu(output.embedding @ module.first.weight + module.first.bias[:, None])
    assert output.domain.shape == (2, 7, 3)
    assert torch.allclose(output.domain, hidden @ module.classes.weight + module.classes.bias[:, None])


@pytest.mark.parametrize("loss", ["mse", "ccc"])
def test_the_objective_is_the_loss_and_the_weighted_cross_entropy_of_known_domains(loss):
    head = Adversarial(options=COLUMN | {"weight": 0.3}, loss=loss)
    head.domains = 3
    module = head.build([(2, 4)], 3, draws(0, 1)).double()
    output = module(Batch([noise(2, 7, 2, 4, dtype=torch.float64)]))
    y, labels = noise(2, 7, 3, seed=1, dtype=torch.float64), torch.tensor([[0, 1, 2, -1, 0, -1, 2], [-1] * 7])
    value = head.objective(output, y, {"domain": labels}, {})
    known = cross_entropy(output.domain[0][labels[0] >= 0], labels[0][labels[0] >= 0])
    wanted = head.criterion()(output.outputs, y) + 0.3 * torch.stack([known, torch.zeros(())])
    assert torch.allclose(value, wanted)


def test_shared_layers_get_the_negative_gradient_of_the_cross_entropy_and_the_classifier_its_own():
    head, module = adversary(weight=0.7)
    y, labels = noise(2, 9, 3, seed=1, dtype=torch.float64), torch.arange(9).expand(2, 9) % 3
    output = module(Batch([noise(2, 9, 2, 4, dtype=torch.float64)]))
    all_of_it = gradients(module, head.objective(output, y, {"domain": labels}, {}).sum())
    of_loss = gradients(module, head.criterion()(output.outputs, y).sum())

    # The same classifier without reversal.
    hidden = torch.relu(module.first(output.embedding))
    entropy = cross_entropy(module.classes(hidden).flatten(0, 1), labels.flatten()) * 2
    of_entropy = gradients(module, entropy)
    for name, gradient in all_of_it.items():
        sign = 1 if name.startswith(("first", "classes")) else -1
        parts = [of_loss.get(name, torch.zeros(())), sign * 0.7 * of_entropy.get(name, torch.zeros(()))]
        assert torch.allclose(gradient, sum(parts)), name
    assert {name.split(".")[0] for name in of_entropy} == {"scorer", "first", "classes"}


def test_batches_of_unknown_domains_give_the_classifier_a_gradient_of_zero():
    head, module = adversary()
    output = module(Batch([noise(2, 5, 2, 4, dtype=torch.float64)]))
    head.objective(output, noise(2, 5, 3).double(), {"domain": torch.full((2, 5), -1)}, {}).sum().backward()
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all()
        assert bool((parameter.grad == 0).all()) == name.startswith(("first", "classes")), name


def probed(weight):
    """How well domains can be told from embeddings of four trained heads, by least squares (mean share of variance that
    is explained), and their mean loss.
    """
    rng = np.random.default_rng(0)
    domain = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 1, 6)).astype(np.float32)
    y = torch.from_numpy(x[:, 0, :2].copy()).expand(4, -1, -1)
    x[:, 0, 5] += 2 * domain
    head = Adversarial(options={"domains": "domain", "hidden": 16, "weight": weight})
    labels = torch.from_numpy(head.side(table(*map(str, domain)), [])["domain"]).expand(4, -1)
    module, batch = head.build([(1, 6)], 2, draws(0, 1, 2, 3)), Batch([torch.from_numpy(x).expand(4, -1, -1, -1)])
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(300):
        optimiser.zero_grad()
        output = module(batch)
        head.objective(output, y, {"domain": labels}, {}).sum().backward()
        optimiser.step()
    told = []
    for embedding in output.embedding.detach().numpy():
        z = np.c_[embedding, np.ones(400)]
        residual = domain - z @ np.linalg.lstsq(z, domain, rcond=None)[0]
        told.append(1 - residual.var() / domain.var())
    return np.mean(told), float(head.criterion()(output.outputs.detach(), y).mean())


def test_a_trained_embedding_hides_the_domain_and_still_scores():
    (told, loss), (hidden, other) = probed(0.0), probed(4.0)
    assert told > 0.42 and hidden < 0.35
    assert loss < 0.05 and other < 0.15


# --- domains ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["domain", "set", "system", "group"])
def test_domains_are_the_names_in_a_column_and_unknown_ones_are_left_out(column):
    head = Adversarial(options={"domains": column})
    assert head.columns() == (column,)
    clips = pd.DataFrame({column: ["b", "a", None, "c", np.nan, "", "a"], "other": "x"})
    labels = head.side(clips, [])["domain"]
    assert labels.dtype == np.int64 and labels.tolist() == [1, 0, -1, 2, -1, -1, 0]
    assert head.domains == 3


def test_numbers_serve_as_names():
    assert Adversarial(options=COLUMN).side(table(7, 12, 7), [])["domain"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("domains", [("a", "a"), (None, "a"), (None, None), ()])
def test_fewer_than_two_domains_are_refused(domains):
    with pytest.raises(UsageError, match=r"two domains at least; the column 'domain' gives [01]\. Take another column"):
        Adversarial(options=COLUMN).side(table(*domains), [])


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(UnknownName, match=r"no column of the clips 'domain'. Did you mean 'domains'"):
        Adversarial(options=COLUMN).side(pd.DataFrame({"domains": ["a", "b"]}), [])


def test_clusters_are_those_of_the_vectors_and_of_the_heads_seed():
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], 20)
    blocks = [
        rng.normal(size=(60, 2, 3)).astype(np.float32) + 20 * true[:, None, None],
        np.ones((60, 1, 2), np.float32),
    ]
    clips = table(*["x"] * 60)
    head = Adversarial(options={"domains": "kmeans", "clusters": 3})
    labels = head.side(clips, blocks)["domain"]
    assert head.columns() == () and head.domains == 3
    assert all(len(set(labels[true == each])) == 1 for each in range(3)) and len(set(labels)) == 3
    flat = [noise(60, 1, 5).numpy()]
    found = [Adversarial(options={"clusters": 6}, seed=seed).side(clips, flat)["domain"] for seed in (0, 0, 1)]
    assert found[0].tolist() == found[1].tolist() != found[2].tolist()


def test_clusters_need_as_many_clips_and_two_kinds_of_vectors():
    head = Adversarial(options={"clusters": 4})
    with pytest.raises(UsageError, match="3 training clips do not make 4 clusters; take fewer"):
        head.side(table("a", "b", "c"), [np.ones((3, 1, 2), np.float32)])
    same = np.ones((9, 1, 2), np.float32)
    with pytest.raises(UsageError, match="domains = 'kmeans' gives 1"):
        head.side(table(*"abcdefghi"), [same])
    same[4:] = 0
    assert len(set(head.side(table(*"abcdefghi"), [same])["domain"])) == 2 and head.domains == 4


def test_random_domains_are_of_equal_size_and_of_the_heads_seed():
    clips = table(*["x"] * 21)
    found = [
        Adversarial(options={"domains": "random", "clusters": 4}, seed=s).side(clips, [])["domain"] for s in (3, 3, 4)
    ]
    assert found[0].tolist() == found[1].tolist() != found[2].tolist()
    assert sorted(np.bincount(found[0])) == [5, 5, 5, 6]


def test_a_restored_head_knows_its_domains_and_predicts_the_same_bits():
    head, module = adversary(domains=5, heads=(3,))
    head.learned([(2, 4)], 3, {name: p.detach()[0].float() for name, p in module.named_parameters()})
    x = [noise(9, 2, 4).numpy()]
    again = Adversarial(options=COLUMN).restore(head.state())
    assert again.domains == 5 and again.predict(x).shape == (9, 3)
    assert again.predict(x).tobytes() == head.predict(x).tobytes()
