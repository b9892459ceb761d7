"""Losses and regularisers: gradients, that each switch acts, and behaviour that the notebooks only show."""

import math
import pytest, torch
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.gnn.losses import (
    AdaptiveMarginLoss,
    FocalLoss,
    MarginSchedule,
    bpr_loss,
    choice_loss,
    margin_loss,
    sampled_softmax_loss,
    segment_log_softmax,
)
from turnover_nb.data.post_sets import Positives
from turnover_nb.models.gnn.regularisers import (
    UncertaintyWeighting,
    augment,
    colleague_smoothing,
    fixed_weights,
    nt_xent,
)
from turnover_nb.models.gnn.negatives import HardNegativeSampler
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


def test_gradients_of_the_ranking_losses():
    pos, neg, hard = double(6), double(6, 3, seed=1), torch.rand(6, 3, generator=gen(2)) < 0.5
    for f in (
        bpr_loss,
        sampled_softmax_loss,
        lambda a, b: margin_loss(a, b, 1.0),
        lambda a, b: AdaptiveMarginLoss()(a, b, hard),
    ):
        assert torch.autograd.gradcheck(f, (pos, neg))


def test_each_switch_of_the_adaptive_margin_acts_on_the_gradient():
    pos, neg, hard = double(60), double(60, 3, seed=1), torch.rand(60, 3, generator=gen(2)) < 0.5

    def grad(loss, accuracy=0.9):
        loss.schedule.update(accuracy)
        return torch.autograd.grad(loss(pos, neg, hard), neg)[0]

    base = grad(AdaptiveMarginLoss())
    assert torch.equal(base, grad(AdaptiveMarginLoss()))
    fixed = MarginSchedule(step=0.0)
    for other in (
        AdaptiveMarginLoss(hard_weight=1.0),
        AdaptiveMarginLoss(rank_weight=0.0),
        AdaptiveMarginLoss(schedule=fixed),
    ):
        assert not torch.allclose(base, grad(other))
    assert not torch.allclose(base, grad(AdaptiveMarginLoss(), accuracy=0.3))
    active = (AdaptiveMarginLoss().schedule.margin - (pos[:, None] - neg) > 0).detach()
    g = torch.autograd.grad(AdaptiveMarginLoss(rank_weight=0.0)(pos, neg, hard), neg)[0]
    assert torch.allclose(g, active * torch.where(hard, 2.0, 1.0).double() / hard.numel())


def test_two_losses_have_two_schedules():
    "A shared default would let one run's margin move another's"
    a, b = AdaptiveMarginLoss(), AdaptiveMarginLoss()
    a.schedule.update(0.9)
    assert (a.schedule.margin, b.schedule.margin) == (1.1, 1.0)


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


def test_log_q_of_the_sampler_makes_the_estimated_sum_unbiased():
    "E[e^s/q] over the sampler's own draws is the sum of e^s over all posts that are not positives, hard ratio and cache included"
    positives = Positives.of(torch.tensor([0, 0, 1]), torch.tensor([0, 4, 2]), 2, 40)
    s = torch.randn(2, 40, generator=gen())
    sampler = HardNegativeSampler(positives, 40, k=5, hard_ratio=0.7)
    sampler.refresh(lambda p: s[p], 0)
    people = torch.tensor([0, 1])
    post, _ = sampler.sample(people, 200_000, gen(1))
    ratio = (s.gather(1, post) - sampler.log_q(people, post)).exp().double()
    want = torch.stack([s[0].exp().sum() - s[0, [0, 4]].exp().sum(), s[1].exp().sum() - s[1, 2].exp()]).double()
    assert ((ratio.mean(1) - want).abs() < 4 * ratio.std(1) / ratio.shape[1] ** 0.5).all()
    pos = s[people, torch.tensor([0, 2])]
    full = ((pos.double().exp() + want).log() - pos).mean().item()
    assert math.isclose(
        sampled_softmax_loss(pos, s.gather(1, post), sampler.log_q(people, post)).item(), full, rel_tol=0.01
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
