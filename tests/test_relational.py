"The turnover part of the relational model: sums over others, messages by brute force, no leak, planted data"

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from turnover_nb.core.tables import Relation
from turnover_nb.data.split import make_split
from turnover_nb.graph.audit import leak_audit
from turnover_nb.graph.rewrite import rewrite
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import make_model
from turnover_nb.models.relational.settings import RelationalSettings
from turnover_nb.models.relational.turnover import (
    Colleagues,
    Groups,
    Inputs,
    Network,
    Prior,
    ResidualMessage,
    TurnoverPart,
    one_cycle,
    phase_groups,
    rates,
    relational_inputs,
)
from turnover_nb.synthetic.world import make_synthetic
from worlds import world

FAST = dict(epochs=25)


def same(a, b):
    "Have two models the same weights?"
    weights = (m.network.state_dict().values() for m in (a, b))
    return all(torch.equal(x, y) for x, y in zip(*weights, strict=True))


def without_choices(s):
    "A survey of turnover alone"
    bare = {k: replace(r, posts=None) for k, r in s.relations.items()}
    return replace(s, choices=None, posts=None, post_types=None, relations=bare)


def only(s, *relations):
    "A survey with some of its relations"
    return replace(s, relations={k: s.relations[k] for k in relations})


def fit(graph, seed=0, device='cpu', **settings):
    return make_model('relational', **FAST | settings).fit(graph, seed, device=device)


def graph_of(s, *args, **kw):
    "The graph of the turnover of a survey under a split of it"
    s = without_choices(s)
    return build_graph(s, make_split(s, *args, **kw))


def parts_of(model, g, phase='test'):
    "The logit by part of the phase's people, in the order of `predict`, and their employee numbers"
    index = g.at(phase)['employee'].index.numpy()
    mine = np.isin(index, g.split.people(phase))
    with torch.no_grad():
        parts = model.network.turnover_part.parts(relational_inputs(g, phase))
    return {k: v.detach().numpy()[mine] for k, v in parts.items()}, index[mine]


@pytest.fixture(scope='module')
def made():
    w = world(120, missing=0.1)
    y = w.turnover.copy()
    y[np.flatnonzero(y == 0)[:9]] = np.nan
    return without_choices(replace(w, turnover=y))


@pytest.fixture(scope='module')
def fitted(made):
    g = graph_of(made)
    return g, fit(g)


def random_groups(n=40, R=3, nodes=7, seed=0):
    g = np.random.default_rng(seed)
    rows = np.unique(np.stack([g.integers(0, n, 90), g.integers(0, nodes * R, 90)]), axis=1)
    rows = rows[:, g.permutation(rows.shape[1])]
    return Groups(
        torch.tensor(rows[0]), torch.tensor(rows[1]), torch.tensor(rows[1] // nodes), n, nodes * R, tuple('abc'[:R])
    )


def dense(groups):
    "Number of shared nodes of each pair per relation, the diagonal zero, [R, n, n]"
    out = torch.zeros(len(groups.names), groups.n, groups.n)
    for k in range(groups.m):
        rows = groups.node == k
        p = groups.person[rows]
        if len(p):
            out[groups.relation[rows][0]][p[:, None], p] += 1
    return out * (1 - torch.eye(groups.n))


# --- sums over the others


@pytest.mark.parametrize('seed', range(3))
def test_sum_others_is_the_sum_over_all_pairs(seed):
    g = random_groups(seed=seed)
    A = dense(g)
    v = torch.randn(g.n, 3, 4, generator=torch.Generator().manual_seed(seed))
    want = torch.einsum('rij,jrk->irk', A, v)
    assert torch.allclose(g.sum_others(v), want, atol=1e-5) and torch.equal(g.count(v), A.sum(2).T)


def test_the_order_of_rows_does_not_matter():
    g = random_groups()
    v = torch.randn(g.n, 3, 2, generator=torch.Generator().manual_seed(1))
    o = torch.randperm(len(g.node), generator=torch.Generator().manual_seed(2))
    other = replace(g, **{k: getattr(g, k)[o] for k in ('person', 'node', 'relation')})
    assert torch.allclose(g.sum_others(v), other.sum_others(v), atol=1e-5)


def test_a_team_is_the_manager_and_the_reports(made):
    g = build_graph(made, make_split(made))
    groups = phase_groups(build_graph(only(made, 'manager'), g.split), 'test')
    rows = set(zip(groups.person.tolist(), groups.node.tolist()))
    e = g.at('test')['employee', 'managed_by', 'employee'].edge_index
    assert rows == set(zip(*e.tolist())) | {(b, b) for b in e[1].tolist()} and len(rows) == len(groups.person)


# --- messages


def brute(message, logit, groups, labelled, label):
    A, p, tau = dense(groups), torch.sigmoid(logit), message.variance.detach()
    out = torch.zeros(groups.n)
    for r in range(len(groups.names)):
        for i in range(groups.n):
            at = [(y, j) for y, j in zip(label, labelled.tolist())]
            s = sum(A[r, i, j] * (y - p[j]) for y, j in at)
            h = sum(A[r, i, j] * p[j] * (1 - p[j]) for y, j in at)
            out[i] += tau[r] * s / (1 + tau[r] * h)
    return out


def test_message_is_one_newton_step_over_the_others():
    g = random_groups()
    rng = torch.Generator().manual_seed(0)
    m = ResidualMessage(3)
    m.raw.data = torch.tensor([-1.0, 0.5, 2.0])
    logit, labelled = torch.randn(g.n, generator=rng), torch.randperm(g.n, generator=rng)[:25]
    label = (torch.rand(25, generator=rng) < 0.4).float()
    assert torch.allclose(m(logit, g, labelled, label), brute(m, logit, g, labelled, label), atol=1e-5)


def test_nobodys_own_label_or_logit_is_in_their_message():
    "The Jacobian of messages in labels and logits has a zero diagonal: no label comes back through a colleague"
    g = random_groups()
    m = ResidualMessage(3)
    logit = torch.randn(g.n, generator=torch.Generator().manual_seed(3))
    every = torch.arange(g.n)
    y = (torch.arange(g.n) % 3 == 0).float()
    for f, at in ((lambda y: m(logit, g, every, y), y), (lambda v: m(v, g, every, y), logit)):
        J = torch.autograd.functional.jacobian(f, at)
        assert J.diagonal().abs().max() < 1e-6 < 0.01 < J.abs().max()


def test_the_posterior_mode_of_a_small_effect():
    "For a small variance the message is the mode of the random effect, found by Newton iteration to the end"
    g = Groups(torch.arange(9), torch.zeros(9, dtype=torch.long), torch.zeros(9, dtype=torch.long), 9, 1, ('firm',))
    m = ResidualMessage(1, 0.02)
    logit = torch.linspace(-2, 1, 9)
    y = torch.tensor([1.0, 0, 1, 0, 1, 0, 0, 1, 1])
    got = m(logit, g, torch.arange(9), y)
    for i in range(9):
        u, o = torch.tensor(0.0), torch.arange(9) != i
        for _ in range(50):
            p = torch.sigmoid(logit[o] + u)
            u = u + ((y[o] - p).sum() - u / 0.02) / ((p * (1 - p)).sum() + 1 / 0.02)
        assert abs(u - got[i]) < 2e-3 and abs(u) > 1e-3


# --- no leak


def test_nothing_of_held_out_people_reaches_training(made):
    split = make_split(made)
    held = np.union1d(split.valid, split.test)
    new = rewrite(made, held, np.random.default_rng(0), labels=True, features=True)
    a, b = (build_graph(s, split) for s in (made, new))
    i, j = (relational_inputs(g, 'train') for g in (a, b))
    for k in ('x', 'train', 'labelled', 'label'):
        assert torch.equal(getattr(i, k), getattr(j, k)), k
    assert torch.equal(i.likelihood.nan_to_num(-1), j.likelihood.nan_to_num(-1)) and i.groups.names == j.groups.names
    pairs = lambda g: dense(g.groups)
    assert torch.equal(pairs(i), pairs(j))  # nodes may be numbered anew: who shares them does not
    model = fit(a)
    assert same(model, fit(b))
    train = rewrite(made, split.train[:9], np.random.default_rng(0), labels=True)
    assert not same(model, fit(build_graph(train, split)))  # the comparison can fail


@pytest.mark.parametrize('likelihood', ['second', 'soft'])
def test_no_held_out_label_moves_a_score(made, likelihood):
    split = make_split(made)
    a = build_graph(made, split)
    m = fit(a, likelihood_target=likelihood)
    for people in (split.test[:1], split.test[1:], split.valid):
        b = build_graph(rewrite(made, people, np.random.default_rng(1), labels=True), split)
        for phase in ('valid', 'test'):
            p, q = m.predict(a, phase), m.predict(b, phase)
            other = dict(zip(q.people.tolist(), q.turnover))  # a person without a label may get one
            assert [other[i] for i in p.people.tolist()] == p.turnover.tolist()


def test_a_training_colleagues_label_moves_the_score_of_their_colleagues_only(made):
    s = only(made, 'employer')
    split = make_split(s)
    a = build_graph(s, split)
    m = fit(a)
    firm = dict(zip(*s.relations['employer'].edges))
    j = next(i for i in split.train if s.turnover[i] == 0 and any(firm[k] == firm[i] for k in split.test))
    y = s.turnover.copy()
    y[j] = 1
    p, q = (m.predict(g) for g in (a, build_graph(replace(s, turnover=y), split)))
    up = q.turnover - p.turnover
    mates = np.array([firm[k] == firm[j] for k in p.people])
    assert (up[mates] > 1e-4).all() and (up[~mates] == 0).all()


@pytest.mark.parametrize('settings', [{}, dict(branch='sage')])
def test_leak_audit_passes_with_the_scores(made, settings):
    g = graph_of(made)
    assert leak_audit(fit(g, **settings), g).passed


# --- inductive


def test_unseen_firms_and_people_without_relations_get_the_prior_mean(made):
    split = make_split(made, 'group', group='employer')
    g = build_graph(only(made, 'employer'), split)
    # nobody of the test firms was in training
    assert np.abs(parts_of(fit(g), g)[0]['messages']).max() < 1e-6
    bare = {}
    for k, r in made.relations.items():
        gone = np.isin(r.edges, split.test).any(0) if r.labels is None else np.isin(r.edges[0], split.test)
        bare[k] = replace(r, edges=r.edges[:, ~gone])
    g = build_graph(replace(made, relations=bare), split)
    m = fit(g)
    parts = parts_of(m, g)[0]
    assert (parts['messages'] == 0).all() and (parts['colleagues'] == 0).all() and np.ptp(m.predict(g).turnover) > 0


@pytest.mark.parametrize('protocol', ['holdout', 'kfold', 'group', 'time'])
def test_every_protocol(made, protocol):
    kw = dict(kfold=dict(fold=1), group=dict(group='employer')).get(protocol, {})
    g = graph_of(made, protocol, **kw)
    m = fit(g)
    p, (parts, people) = m.predict(g), parts_of(m, g)
    assert np.array_equal(people, g.split.test) and np.isin(p.people, people).all()
    logit = sum(v.astype('float64') for v in parts.values())[np.isin(people, p.people)]
    assert np.allclose(1 / (1 + np.exp(-logit)), p.turnover)


# --- any survey


def without(s, what):
    if what == 'most labels':
        y = s.turnover.copy()
        y[np.flatnonzero(y == 0)[:60]] = np.nan
        return replace(s, turnover=y)
    nothing = dict(relations={}, likelihood=None, features=pd.DataFrame(index=s.features.index))
    return replace(s, **{what: nothing[what]})


@pytest.mark.parametrize('what', ['relations', 'likelihood', 'most labels', 'features'])
def test_surveys_that_lack_something(made, what):
    g = graph_of(without(made, what))
    m = fit(g)
    part = m.network.turnover_part
    assert np.isfinite(m.predict(g).turnover).all()
    assert (part.stated is None) == (what == 'likelihood') and (part.messages is None) == (what == 'relations')


def test_no_turnover_label_and_no_labelled_training_person_are_named(made):
    g = graph_of(replace(made, turnover=None))
    with pytest.raises(ValueError, match='no turnover labels'):
        relational_inputs(g, 'train')
    with pytest.raises(ValueError, match='neither turnover labels nor choices'):
        fit(g)
    split = make_split(made)
    y = made.turnover.copy()
    y[split.train] = np.nan
    with pytest.raises(ValueError, match='no training person has a turnover label'):
        fit(build_graph(replace(made, turnover=y), split))


def test_one_group_of_all_does_not_pass_for_a_feature(made):
    "The mean over the others of a single group is one's own feature, turned round: it must stay small"
    edges = np.stack([np.arange(made.n), np.zeros(made.n, 'int64')])
    g = graph_of(replace(made, relations=dict(firm=Relation('firm', 'employer', np.array(['all']), edges))))
    i = relational_inputs(g, 'train')
    for k in range(i.x.shape[1]):
        u = Colleagues(i.x[:, [k]], i.groups)
        u.weight.data += 1.0
        assert u(i.x[:, [k]], i.groups, i.train).std() < 0.5
    assert np.isfinite(fit(g).predict(g).turnover).all()


def test_constant_columns_and_a_rare_class(made):
    s = replace(made, features=made.features.assign(age=3.0))
    y = np.zeros(made.n)
    y[[1, 40, 80]] = 1
    for w in (s, replace(s, turnover=y)):
        g = graph_of(w)
        m = fit(g)
        assert np.isfinite(m.predict(g).turnover).all()
        assert all(torch.isfinite(p).all() for p in m.network.parameters())


# --- switches: what each changes is in test_switches


def test_all_off_is_the_base_rate(made):
    g = graph_of(made)
    off = dict(linear=False, products=False, network=0, colleague_features=False, residual_messages=False)
    m = fit(g, **off, likelihood_target='none', epochs=100)
    y = g.supervision('train').turnover.mean().item()
    assert np.allclose(m.predict(g).turnover, y, atol=0.01)


def test_likelihood_is_used_in_training_only(made):
    split = make_split(made)
    v = made.likelihood.copy()
    v[split.train] = np.roll(v[split.train], 1)
    a, b = (build_graph(s, split) for s in (made, replace(made, likelihood=v)))
    m = fit(a)
    assert same(*(fit(g, likelihood_target='none') for g in (a, b)))
    assert not same(m, fit(b))
    assert np.array_equal(*(m.predict(g).turnover for g in (a, b)))


def test_repeats_to_the_bit_and_leaves_the_global_generator(fitted):
    g, m = fitted
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    assert same(*(fit(g, branch='sage') for _ in range(2)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(m, fit(g)) and not same(m, fit(g, seed=1))


# --- a prior without a scale


def alone(x, y):
    "Inputs without relations, for the own features alone"
    none = torch.zeros(0, dtype=torch.long)
    every = torch.arange(len(x))
    groups = Groups(none, none, none, len(x), 0, ())
    return Inputs(x, groups, every, every, y, torch.full_like(y, torch.nan), data=None)


def trained(i, steps=250, **settings):
    m = TurnoverPart(i, None, RelationalSettings(**settings))
    adam, cycle = one_cycle(rates(m), steps)
    for _ in range(steps):
        adam.zero_grad()
        sum(m.losses(i).values()).backward()
        adam.step()
        cycle.step()
    return m


@pytest.mark.parametrize('n,D,rate', [(300, 20, 0.1), (300, 200, 0.3), (6000, 20, 0.05), (6000, 60, 0.5)])
def test_noise_costs_no_more_than_a_free_regression_at_every_size(n, D, rate):
    """In spite of D²/2 products and a network: an unpenalised logistic regression on D useless features
    has scores of sd √(D/(n·rate·(1 − rate)))"""
    g = torch.Generator().manual_seed(n + D)
    m = trained(alone(torch.randn(n, D, generator=g), (torch.rand(n, generator=g) < rate).float()))
    new = torch.randn(4000, D, generator=g)
    with torch.no_grad():
        sd = sum(f(new) for f in m.own.values()).std().item()
    assert sd < 1.1 * (D / (n * rate * (1 - rate))) ** 0.5


def test_a_clear_weight_is_hardly_shrunk():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 30, generator=g)
    y = (torch.rand(5000, generator=g) < torch.sigmoid(x[:, 0] - 1)).float()
    w = trained(alone(x, y), network=0).own['linear'].weight.detach()
    assert abs(w[0] - 1) < 0.15 and w[1:].abs().max() < 0.1


def test_penalties_shrink_with_the_root_of_n():
    w = torch.full((5,), 1e-6)
    a, b = (Prior(n, 0.2).sparse(w, 1.0, 5).item() for n in (100, 400))
    assert np.isclose(a / b, 2, rtol=1e-3)
    net = Network(5, 4, torch.Generator().manual_seed(0))
    net.o.data += 1
    assert np.isclose(net.penalty(Prior(100, 0.2)).item() / net.penalty(Prior(400, 0.2)).item(), 2)


# --- planted data


def planted(seed, n=1500, **knobs):
    w = make_synthetic(n_employees=n, seed=seed, **knobs)
    return w, graph_of(w.survey, seed=seed)


def soft_aupr(w, g, m):
    "AUPR where each person leaves with the probability of the planted law: without the luck of the draw"
    q = w.truth.turnover_given(g.split.train)[g.split.test]
    p = m.predict(g).turnover
    return average_precision_score(np.repeat([1, 0], len(q)), np.tile(p, 2), sample_weight=np.r_[q, 1 - q])


def variances(models, *names):
    return [m.facts()['learned']['variance'][k] for m in models for k in names]


@pytest.fixture(scope='module')
def signal():
    "Worlds with relational signal, each with a fitted model and its soft AUPR"
    worlds = [planted(seed) for seed in (201, 202, 203)]
    models = [fit(g, epochs=300) for _, g in worlds]
    return worlds, models, [soft_aupr(w, g, m) for (w, g), m in zip(worlds, models)]


@pytest.fixture(scope='module')
def no_signal():
    "Worlds without relational signal, each with a fitted model"
    worlds = [planted(seed, context=0.0, contagion=0.0) for seed in (201, 202, 203)]
    return worlds, [fit(g, epochs=300) for _, g in worlds]


def test_it_finds_most_of_what_can_be_found(signal):
    share = []
    for (w, g), found in zip(signal[0], signal[2]):
        best = w.truth.scores(g.split.test, known_labels=g.split.train)['turnover']
        share.append((found - best['base_rate']) / (best['aupr'] - best['base_rate']))
    assert np.mean(share) > 0.86


@pytest.mark.parametrize(
    'off',
    [
        dict(products=False),
        dict(colleague_features=False),
        dict(residual_messages=False),
        dict(likelihood_target='none'),
    ],
    ids=lambda off: next(iter(off)),
)
def test_every_part_earns_its_place(signal, off):
    part = [soft_aupr(w, g, fit(g, epochs=300, **off)) for w, g in signal[0]]
    assert np.mean(signal[2]) > np.mean(part) + 0.01


def test_variances_follow_what_was_planted(signal, no_signal):
    assert np.mean(variances(signal[1], 'employer')) > 0.5
    assert np.mean(variances(no_signal[1], 'employer')) < 0.15
    assert np.mean(variances(signal[1], 'city_tier', 'company_size', 'position')) < 0.1


def test_without_relational_signal_the_graph_costs_little(no_signal):
    gap = []
    for (w, g), m in zip(*no_signal):
        bare = build_graph(replace(g.survey, relations={}), g.split)
        gap.append(soft_aupr(w, g, m) - soft_aupr(w, bare, fit(bare, epochs=300)))
    assert np.mean(gap) > -0.012


def test_a_fit_is_quick():
    _, g = planted(7, 2000)
    start = time.process_time()
    fit(g, epochs=300)
    assert time.process_time() - start < 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_gpu_agrees(fitted):
    g, m = fitted
    assert np.allclose(m.predict(g).turnover, fit(g, device='cuda').predict(g).turnover, atol=1e-3)
