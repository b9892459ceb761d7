"The relational model: sums over others, messages by brute force, no leak, any shape of survey, and what it finds in planted data"

import time
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from sklearn.metrics import average_precision_score
from turnover_nb.graph.audit import leak_audit, rewrite
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.relational.turnover import (
    Colleagues,
    Groups,
    Inputs,
    Network,
    Prior,
    RelationalModel,
    ResidualMessage,
    fit_relational,
    one_cycle,
    phase_groups,
    predict_relational,
    rates,
    relational_inputs,
)
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.core.tables import Relation
from worlds import world

FAST = dict(epochs=25)
same = lambda a, b: all(
    torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
)


@pytest.fixture(scope='module')
def made():
    w = world(120, missing=0.1)
    y = w.turnover.copy()
    y[np.flatnonzero(y == 0)[:9]] = np.nan
    return replace(w, turnover=y)


@pytest.fixture(scope='module')
def fitted(made):
    g = build_graph(made, make_split(made))
    return g, fit_relational(g, **FAST)


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
    groups = phase_groups(g, 'test', ('manager',))
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
    assert same(fit_relational(a, **FAST), fit_relational(b, **FAST))
    train = rewrite(made, split.train[:9], np.random.default_rng(0), labels=True)
    assert not same(
        fit_relational(a, **FAST), fit_relational(build_graph(train, split), **FAST)
    )  # the comparison can fail


@pytest.mark.parametrize('who', ['own', 'others', 'valid'])
@pytest.mark.parametrize('likelihood', ['second', 'soft'])
def test_no_held_out_label_moves_a_score(made, who, likelihood):
    split = make_split(made)
    one = split.test[:1]
    people = dict(own=one, others=split.test[1:], valid=split.valid)[who]
    a = build_graph(made, split)
    m = fit_relational(a, likelihood=likelihood, **FAST)
    b = build_graph(rewrite(made, people, np.random.default_rng(1), labels=True), split)
    for phase in ('valid', 'test'):
        p, q = predict_relational(m, a, phase), predict_relational(m, b, phase)
        assert (p['turnover'] == q['turnover']).all() and (p['people'] == q['people']).all()


def test_a_training_colleagues_label_moves_the_score_of_their_colleagues_only(made):
    split = make_split(made)
    a = build_graph(made, split)
    m = fit_relational(a, relations=('employer',), **FAST)
    firm = dict(zip(*made.relations['employer'].edges))
    j = next(i for i in split.train if made.turnover[i] == 0 and any(firm[k] == firm[i] for k in split.test))
    y = made.turnover.copy()
    y[j] = 1
    p, q = (predict_relational(m, g, 'test') for g in (a, build_graph(replace(made, turnover=y), split)))
    up = q['turnover'] - p['turnover']
    mates = np.array([firm[k] == firm[j] for k in p['people']])
    assert (up[mates] > 1e-4).all() and (up[~mates] == 0).all()


@pytest.mark.parametrize('preference', ['cold', 'warm'])
@pytest.mark.parametrize('settings', [{}, dict(branch='sage')])
def test_leak_audit_passes_with_the_scores(made, preference, settings):
    g = build_graph(made, make_split(made, preference=preference, n_known=2))
    m = fit_relational(g, **settings, **FAST)

    def scores(g):
        p, s = predict_relational(m, g, 'test'), g.supervision('test')
        at = dict(zip(p['people'].tolist(), p['turnover']))
        return torch.tensor([at[i] for i in g.at('test')['employee'].index[s.turnover_index].tolist()]), torch.zeros(
            len(s.rows)
        )

    assert leak_audit(g, scores=scores).passed


# --- inductive


def test_unseen_firms_and_people_without_relations_get_the_prior_mean(made):
    split = make_split(made, 'group', group='employer')
    g = build_graph(made, split)
    m = fit_relational(g, relations=('employer',), **FAST)
    assert (
        np.abs(predict_relational(m, g, 'test')['parts']['messages']).max() < 1e-6
    )  # nobody of the test firms was in training
    bare = {
        k: replace(
            r,
            edges=r.edges[:, ~np.isin(r.edges, split.test).any(0)]
            if r.labels is None
            else r.edges[:, ~np.isin(r.edges[0], split.test)],
        )
        for k, r in made.relations.items()
    }
    g = build_graph(replace(made, relations=bare), split)
    m = fit_relational(g, **FAST)
    p = predict_relational(m, g, 'test')
    assert (p['parts']['messages'] == 0).all() and (p['parts']['colleagues'] == 0).all() and np.ptp(p['turnover']) > 0


@pytest.mark.parametrize('protocol', ['holdout', 'kfold', 'group', 'time'])
def test_every_protocol(made, protocol):
    kw = dict(kfold=dict(fold=1), group=dict(group='employer')).get(protocol, {})
    s = make_split(made, protocol, **kw)
    g = build_graph(made, s)
    p = predict_relational(fit_relational(g, **FAST), g, 'test')
    assert (
        p['people'].tolist() == s.test.tolist()
        and np.isfinite(p['turnover']).all()
        and np.allclose(1 / (1 + np.exp(-sum(p['parts'].values()))), p['turnover'])
    )


# --- any survey


def fit_on(s, **kw):
    g = build_graph(s, make_split(s))
    return fit_relational(g, **kw, **FAST), g


def without(s, what):
    if what == 'choices':
        return replace(
            s,
            choices=None,
            posts=None,
            post_types=None,
            relations={k: replace(r, posts=None) for k, r in s.relations.items()},
        )
    if what == 'most labels':
        y = s.turnover.copy()
        y[np.flatnonzero(y == 0)[:60]] = np.nan
        return replace(s, turnover=y)
    return replace(
        s, **{what: dict(relations={}, likelihood=None, features=pd.DataFrame(index=s.features.index))[what]}
    )


@pytest.mark.parametrize('what', ['choices', 'relations', 'likelihood', 'most labels', 'features'])
def test_surveys_that_lack_something(made, what):
    s = without(made, what)
    m, g = fit_on(s)
    p = predict_relational(m, g, 'test')
    assert (
        np.isfinite(p['turnover']).all()
        and (m.stated is None) == (what == 'likelihood')
        and (m.messages is None) == (what == 'relations')
    )


def test_no_turnover_label_and_no_labelled_training_person_are_named(made):
    s = replace(made, turnover=None)
    g = build_graph(s, make_split(s))
    with pytest.raises(ValueError, match='no turnover labels'):
        fit_relational(g)
    split = make_split(made)
    y = made.turnover.copy()
    y[split.train] = np.nan
    with pytest.raises(ValueError, match='no training person has a turnover label'):
        fit_relational(build_graph(replace(made, turnover=y), split))


def test_one_group_of_all_does_not_pass_for_a_feature(made):
    "The mean over the others of a single group is one's own feature, turned round: it must stay small"
    one = Relation('firm', 'employer', np.array(['all']), np.stack([np.arange(made.n), np.zeros(made.n, 'int64')]))
    s = replace(made, relations=dict(firm=one))
    g = build_graph(s, make_split(s))
    i = relational_inputs(g, 'train')
    part = Colleagues(i.x, i.groups)
    part.weight.data += 1.0
    unit = [Colleagues(i.x[:, [k]], i.groups) for k in range(i.x.shape[1])]
    for k, u in enumerate(unit):
        u.weight.data += 1.0
        assert u(i.x[:, [k]], i.groups, i.train).std() < 0.5
    assert np.isfinite(predict_relational(fit_relational(g, **FAST), g, 'test')['turnover']).all()


def test_constant_columns_and_a_rare_class(made):
    s = replace(made, features=made.features.assign(age=3.0))
    y = np.zeros(made.n)
    y[[1, 40, 80]] = 1
    for w in (s, replace(s, turnover=y)):
        m, g = fit_on(w)
        assert np.isfinite(predict_relational(m, g, 'test')['turnover']).all() and all(
            torch.isfinite(p).all() for p in m.parameters()
        )


# --- switches


@pytest.mark.parametrize(
    'change',
    [
        dict(linear=False),
        dict(products=False),
        dict(network=0),
        dict(network=8),
        dict(colleagues=False),
        dict(messages=False),
        dict(likelihood='none'),
        dict(likelihood='soft'),
        dict(branch='hgt'),
        dict(branch='sage'),
        dict(strength=3.0),
        dict(relations=('employer',)),
        dict(relations=()),
    ],
)
def test_each_switch_changes_training(fitted, change):
    g, m = fitted
    other = fit_relational(g, **change, **FAST)
    assert not np.array_equal(
        predict_relational(m, g, 'test')['turnover'], predict_relational(other, g, 'test')['turnover']
    )


def test_all_off_is_the_base_rate(made):
    g = build_graph(made, make_split(made))
    m = fit_relational(
        g, linear=False, products=False, network=0, colleagues=False, messages=False, likelihood='none', epochs=100
    )
    y = g.supervision('train').turnover.mean().item()
    assert np.allclose(predict_relational(m, g, 'test')['turnover'], y, atol=0.01)


def test_likelihood_is_used_in_training_only(made):
    split = make_split(made)
    v = made.likelihood.copy()
    v[split.train] = np.roll(v[split.train], 1)
    a, b = (build_graph(s, split) for s in (made, replace(made, likelihood=v)))
    assert same(*(fit_relational(g, likelihood='none', **FAST) for g in (a, b)))
    assert not same(*(fit_relational(g, **FAST) for g in (a, b)))
    m = fit_relational(a, **FAST)
    assert np.array_equal(*(predict_relational(m, g, 'test')['turnover'] for g in (a, b)))


@pytest.mark.parametrize(
    'bad,said',
    [
        (dict(likelihood='hard'), 'likelihood'),
        (dict(branch='gat'), 'branch'),
        (dict(relations=('team',)), 'expected some of'),
    ],
)
def test_bad_settings(fitted, bad, said):
    with pytest.raises(ValueError, match=said):
        fit_relational(fitted[0], **bad)


def test_repeats_to_the_bit_and_leaves_the_global_generator(fitted):
    g, m = fitted
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    for settings in ({}, dict(branch='sage')):
        assert same(*(fit_relational(g, **settings, **FAST) for _ in range(2)))
    assert (
        torch.equal(before, torch.random.get_rng_state())
        and same(m, fit_relational(g, **FAST))
        and not same(m, fit_relational(g, 1, **FAST))
    )


def test_weights_survive_a_file(fitted, tmp_path):
    g, m = fitted
    torch.save(m.state_dict(), tmp_path / 'm.pt')
    other = RelationalModel(relational_inputs(g, 'train'), g, 5)
    other.load_state_dict(torch.load(tmp_path / 'm.pt', weights_only=True))
    assert np.array_equal(
        predict_relational(m, g, 'test')['turnover'], predict_relational(other.eval(), g, 'test')['turnover']
    )


# --- a prior without a scale


def alone(x, y):
    "Inputs without relations, for the own features alone"
    none = torch.zeros(0, dtype=torch.long)
    every = torch.arange(len(x))
    return Inputs(x, Groups(none, none, none, len(x), 0, ()), every, every, y, torch.full_like(y, torch.nan), None)


def trained(i, steps=250, **settings):
    m = RelationalModel(i, **settings)
    adam, cycle = one_cycle(rates(m), steps)
    for _ in range(steps):
        adam.zero_grad()
        m.loss(i).backward()
        adam.step()
        cycle.step()
    return m


@pytest.mark.parametrize('n,D,rate', [(300, 20, 0.1), (300, 200, 0.3), (6000, 20, 0.05), (6000, 60, 0.5)])
def test_noise_costs_no_more_than_a_free_regression_at_every_size(n, D, rate):
    "In spite of D²/2 products and a network: an unpenalised logistic regression on D useless features has scores of sd √(D/(n·rate·(1 − rate)))"
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
    s = make_split(w.survey, seed=seed)
    return w, s, build_graph(w.survey, s)


def soft_aupr(w, s, p):
    "AUPR where each person leaves with the probability of the planted law: without the luck of the draw"
    q = w.truth.turnover_given(s.train)[s.test]
    return average_precision_score(np.repeat([1, 0], len(q)), np.tile(p, 2), sample_weight=np.r_[q, 1 - q])


@pytest.fixture(scope='module')
def signal():
    return [planted(seed) for seed in (201, 202, 203)]


def test_it_finds_most_of_what_can_be_found(signal):
    share = []
    for w, s, g in signal:
        best = w.truth.scores(s.test, known_labels=s.train)['turnover']
        a = soft_aupr(w, s, predict_relational(fit_relational(g), g, 'test')['turnover'])
        share.append((a - best['base_rate']) / (best['aupr'] - best['base_rate']))
    assert np.mean(share) > 0.86


def test_every_part_earns_its_place(signal):
    whole = np.mean(
        [soft_aupr(w, s, predict_relational(fit_relational(g), g, 'test')['turnover']) for w, s, g in signal]
    )
    for off in (dict(products=False), dict(colleagues=False), dict(messages=False), dict(likelihood='none')):
        part = np.mean(
            [soft_aupr(w, s, predict_relational(fit_relational(g, **off), g, 'test')['turnover']) for w, s, g in signal]
        )
        assert whole > part + 0.01, (off, whole, part)


def test_variances_follow_what_was_planted(signal):
    there = [fit_relational(g) for *_, g in signal]
    gone = [fit_relational(planted(seed, context=0.0, contagion=0.0)[2]) for seed in (201, 202, 203)]
    firm = lambda ms: np.mean([dict(zip(m.relations, m.messages.variance.tolist()))['employer'] for m in ms])
    assert firm(there) > 0.5 and firm(gone) < 0.15
    others = [
        v
        for m in there
        for k, v in zip(m.relations, m.messages.variance.tolist())
        if k in ('city_tier', 'company_size', 'position')
    ]
    assert np.mean(others) < 0.1


def test_without_relational_signal_the_graph_costs_little():
    gap = []
    for seed in (201, 202, 203):
        w, s, g = planted(seed, context=0.0, contagion=0.0)
        gap.append(
            np.subtract(
                *(
                    soft_aupr(w, s, predict_relational(fit_relational(g, **k), g, 'test')['turnover'])
                    for k in ({}, dict(relations=()))
                )
            )
        )
    assert np.mean(gap) > -0.012


def test_a_fit_is_quick():
    _, _, g = planted(7, 2000)
    start = time.process_time()
    fit_relational(g)
    assert time.process_time() - start < 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_gpu_agrees(fitted):
    g, m = fitted
    other = fit_relational(g, device='cuda', **FAST)
    assert np.allclose(
        predict_relational(m, g, 'test')['turnover'], predict_relational(other, g, 'test')['turnover'], atol=1e-3
    )
