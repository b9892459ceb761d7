"""Losses and regularisers: gradients, that each switch acts, and behaviour that the notebooks only show."""

import math
import pytest
import torch
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.gnn.losses import (
    PREFERENCE_LOSSES,
    TURNOVER_LOSSES,
    Comparison,
    FocalLoss,
    MarginSchedule,
    adaptive_margin_loss,
    choice_loss,
    segment_log_softmax,
)
from turnover_nb.models.gnn.regularisers import (
    UncertaintyWeighting,
    augment,
    colleague_smoothing,
    fixed_weights,
    nt_xent,
)
from turnover_nb.data.split import make_split
from worlds import world

gen = lambda seed=0: torch.Generator().manual_seed(seed)
double = lambda *shape, seed=0: torch.randn(*shape, generator=gen(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("alpha,gamma", [(0.25, 2.0), (0.5, 0.0), (0.35, 2.5), (0.3, 0.4)])
def test_focal_value_and_gradient(alpha, gamma):
    x, y = double(20), (torch.rand(20, generator=gen(1)) < 0.3).double()
    p = x.sigmoid().detach()
    p_y, a_y = torch.where(y == 1, p, 1 - p), y * alpha + (1 - y) * (1 - alpha)
    assert math.isclose(
        FocalLoss(alpha, gamma)(x, y).item(), (-a_y * (1 - p_y) ** gamma * p_y.log()).mean().item(), rel_tol=1e-12
    )
    assert torch.autograd.gradcheck(lambda x: FocalLoss(alpha, gamma)(x, y), (x,))


def test_focal_alpha_and_gamma_act():
    x, y = double(20), (torch.rand(20, generator=gen(1)) < 0.3).double()
    grads = [
        torch.autograd.grad(FocalLoss(*s)(x, y), x)[0] for s in ((0.25, 2.0), (0.35, 2.0), (0.25, 2.5), (0.5, 0.0))
    ]
    assert all(not torch.allclose(a, b) for i, a in enumerate(grads) for b in grads[:i])


def triples(pos, neg, **more):
    "Six situations of a chosen post and three others, which are the negatives"
    n, k = neg.shape
    utility = torch.cat([pos[:, None], neg], 1).flatten()
    chosen = (torch.arange(n * (k + 1)) % (k + 1)) == 0
    situation = torch.arange(n).repeat_interleave(k + 1)
    at = torch.arange(n).repeat_interleave(k)
    hard = torch.rand(n * k, generator=gen(2)) < 0.5
    seen = dict(negative=neg.flatten(), at=at, hard=hard)
    return Comparison(utility, situation, chosen, torch.ones_like(chosen), n, **seen, **more)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_gradients_of_the_preference_losses(name):
    loss = PREFERENCE_LOSSES[name].function
    assert torch.autograd.gradcheck(lambda pos, neg: loss(triples(pos, neg)), (double(6), double(6, 3, seed=1)))


def test_with_all_others_as_negatives_sampled_softmax_is_the_likelihood():
    c = triples(double(6), double(6, 3, seed=1))
    a, b = (PREFERENCE_LOSSES[k].function(c).item() for k in ("choice", "sampled_softmax"))
    assert math.isclose(a, b, rel_tol=1e-12)


@pytest.mark.parametrize("name", TURNOVER_LOSSES)
def test_gradients_of_the_turnover_losses(name):
    y = (torch.rand(20, generator=gen(1)) < 0.3).double()
    loss = TURNOVER_LOSSES[name](0.3, 1.5)
    assert torch.autograd.gradcheck(lambda x: loss(x, y, weight=torch.ones(20, dtype=torch.float64)), (double(20),))


def test_each_switch_of_the_adaptive_margin_acts_on_the_gradient():
    pos, neg = double(60), double(60, 3, seed=1)

    def grad(**more):
        return torch.autograd.grad(adaptive_margin_loss(triples(pos, neg, **more)), neg)[0]

    base = grad()
    assert torch.equal(base, grad())
    for other in (dict(hard_weight=1.0), dict(rank_weight=0.0), dict(margin=1.1)):
        assert not torch.allclose(base, grad(**other)), other
    c = triples(pos, neg)
    active = (1.0 - c.difference() > 0).detach()
    want = active * torch.where(c.hard, 2.0, 1.0).double() / len(c.hard)
    assert torch.allclose(grad(rank_weight=0.0).flatten(), want)


def test_the_margin_survives_a_checkpoint(tmp_path):
    one = MarginSchedule(start=0.9, maximum=2.8)
    [one.update(0.7) for _ in range(4)]
    torch.save(one.state_dict(), tmp_path / "m.pt")
    two = MarginSchedule(start=0.9, maximum=2.8)
    two.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert [one.update(a) for a in (0.9, 0.1, 0.5)] == [two.update(a) for a in (0.9, 0.1, 0.5)] == [1.4, 1.3, 1.2]


def test_choice_loss_gradient_with_unavailable_alternatives():
    s, sit = double(9), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    chosen, ok = torch.tensor([1, 0, 0, 1, 0, 0, 0, 1, 0]).bool(), torch.tensor([1, 1, 1, 1, 0, 1, 1, 1, 0]).bool()
    assert torch.autograd.gradcheck(lambda s: choice_loss(s, sit, chosen, ok, 3), (s,))
    g = torch.autograd.grad(choice_loss(s, sit, chosen, ok, 3), s)[0]
    p = segment_log_softmax(s, sit, ok, 3).exp()
    assert torch.allclose(g, (p - chosen.double()) / 3) and (g[~ok] == 0).all()  # P − 1(chosen), the textbook gradient
    assert torch.allclose(torch.zeros(3, dtype=torch.float64).index_add(0, sit, p), torch.ones(3, dtype=torch.float64))
    order = torch.randperm(9, generator=gen())
    assert torch.allclose(
        segment_log_softmax(s[order], sit[order], ok[order], 3), segment_log_softmax(s, sit, ok, 3)[order]
    )


def test_fixed_weights_and_their_gradients():
    a, b = double(1), double(1, seed=1)
    losses = dict(turnover=a.square().sum(), preference=b.square().sum())
    for alpha, beta in ((0.2, 0.8), (0.75, 0.25), (0.0, 1.0)):
        g = torch.autograd.grad(fixed_weights(alpha, beta)(losses), (a, b), retain_graph=True, allow_unused=True)
        assert torch.allclose(g[1], 2 * beta * b) and (torch.allclose(g[0], 2 * alpha * a) if alpha else g[0] is None)


def test_uncertainty_weights_settle_at_half_the_inverse_loss():
    u = UncertaintyWeighting()
    opt = torch.optim.Adam(u.parameters(), lr=0.05)
    losses = dict(turnover=torch.tensor(0.4), preference=torch.tensor(0.7))
    for _ in range(600):
        opt.zero_grad()
        u(losses).backward()
        opt.step()
    assert all(math.isclose(w, 1 / (2 * losses[k].item()), rel_tol=1e-3) for k, w in u.weights().items())
    assert u.log_variance["preference"].grad is not None and len(u.state_dict()) == 2


def test_smoothing_needs_no_pairs():
    "A unit of 200,000 has 2·10^10 pairs; the identity with the variance holds: mean over pairs of ‖z_i − z_j‖² = 2·variance"
    z = torch.randn(200_000, 2, generator=gen())
    unit, who = torch.zeros(200_000, dtype=torch.long), torch.arange(200_000)
    assert math.isclose(colleague_smoothing(z, unit, who, 1).item(), 2 * z.var(0).sum().item(), rel_tol=1e-4)


def test_smoothing_gradient_and_empty_relation():
    z, unit, who = double(5, 2), torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 2, 4])
    assert torch.autograd.gradcheck(lambda z: colleague_smoothing(z, unit, who, 2), (z,))
    none = torch.zeros(0, dtype=torch.long)
    loss = colleague_smoothing(z, none, none, 0)
    loss.backward()
    assert loss.item() == 0 and (z.grad == 0).all()
    order = torch.tensor([3, 0, 4, 2, 1])
    assert torch.allclose(colleague_smoothing(z, unit, who, 2), colleague_smoothing(z, unit[order], who[order], 2))


def test_contrast_prefers_the_right_partner_and_has_a_gradient():
    a, b = double(8, 4), double(8, 4, seed=1)
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), (a, b))
    assert nt_xent(a, a).item() < nt_xent(a, a.roll(1, 0)).item() and torch.allclose(nt_xent(a, b), nt_xent(b, a))
    assert torch.allclose(nt_xent(3 * a, b), nt_xent(a, b)) and not torch.allclose(
        nt_xent(a, b, 0.1), nt_xent(a, b, 0.5)
    )


def test_a_view_of_a_real_graph_drops_each_edge_in_both_directions():
    survey = world(n=60)
    data = build_graph(survey, make_split(survey, seed=0), colleagues=("employer",)).at("train")
    x, edges = data.x_dict, data.edge_index_dict
    new_x, new = augment(x, edges, gen(), 0.3, 0.1)
    assert set(new) == set(edges) and set(new_x) == set(x)
    for (s, r, d), e in edges.items():
        if r.startswith("rev_"):
            continue
        back = new[d, f"rev_{r}", s] if (d, f"rev_{r}", s) in new else None
        if back is not None:
            assert torch.equal(back.flip(0), new[s, r, d])
        if e.shape[1] > 30:
            assert 0.4 < new[s, r, d].shape[1] / e.shape[1] < 0.95
    before = torch.random.get_rng_state()
    again = augment(x, edges, gen(), 0.3, 0.1)[1]
    assert all(torch.equal(new[t], again[t]) for t in new) and torch.equal(before, torch.random.get_rng_state())
    assert any(not torch.equal(new[t], v) for t, v in augment(x, edges, gen(1), 0.3, 0.1)[1].items())
