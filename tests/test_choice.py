"Choice models against independent implementations and loops by hand; what they see; bad input; untold attributes"

from dataclasses import replace
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from turnover_nb.data.candidates import candidate_sets
from turnover_nb.choice.panel_logit import fit_panel_logit, hierarchical_tastes, class_tastes, mixed_tastes
from turnover_nb.choice.sets import check_choices
from turnover_nb.choice.estimate import estimate_logit
from turnover_nb.data.posts import outside_option
from turnover_nb.choice.identification import separating
from turnover_nb.choice.panel import Panel, make_panel, rows_of
from turnover_nb.choice.simulated import PanelConfig, fit_panel
from turnover_nb.choice.mixed import TasteModel, normal_draws, panel_loglik, predict_panel
from turnover_nb.data.posts import PostEncoder
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import make_model, members
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.core.tables import CHOICE_COLUMNS, Choices, ColumnType, Survey
from turnover_nb.choice.mixed_estimate import estimate_mixed
from turnover_nb.choice.design import estimate_survey
from turnover_nb.tastes.known import curve_of, known_scores
from turnover_nb.tastes.population import fit_tastes, segments, taste_table
from turnover_nb.choice.estimate import unidentified
from turnover_nb.choice.worth import willingness

QUICK = dict(steps=40, draws=8, factors=2)
GRID = dict(
    mixed_logit=[QUICK], latent_class=[dict(steps=40, classes=2)], hierarchical=[dict(sweeps=30, burn=10, thin=10)]
)
ESTIMATOR = dict(mixed_logit=mixed_tastes, latent_class=class_tastes, hierarchical=hierarchical_tastes)
SETTINGS = dict(  # of models that are fitted in a second
    majority={},
    conditional_logit={},
    mixed_logit=dict(coin=[False], penalty=[1.0], **QUICK),
    latent_class=dict(coin=[False], classes=[2], steps=40),
    hierarchical=dict(coin=[False], sweeps=30, burn=10),
)


def panel_model(name, survey, split, grid, seed=0, constants=False):
    "A panel model with settings out of `grid`: fit, settings, validation loss, and the utility of every row"
    posts = PostEncoder.fit(survey, split)
    X = posts.transform(survey.posts)
    best = fit_panel_logit(ESTIMATOR[name], grid, survey, split, X, posts.names, seed, constants)
    utility = best.fit.utility(split.known, np.unique(survey.choices.employee))
    return SimpleNamespace(fit=best.fit, chosen=best.chosen, valid_score=best.valid_score, utility=utility)


def fit_model(name, survey, split, seed=0):
    "A model of the registry, and its utility of every row that is to be predicted"
    graph = build_graph(survey, split)
    fitted = make_model(name, **SETTINGS[name]).fit(graph, seed)
    utility = np.full(len(survey.choices.table), np.nan)
    for phase in ('train', 'valid', 'test'):
        p = fitted.predict(graph, phase)
        utility[p.rows] = p.utility
    return SimpleNamespace(model=fitted, graph=graph, chosen=fitted.facts()['preference']['chosen'], utility=utility)


def ragged(n=120, seed=0, K=3, spread=0.0, constant=0.0, tasks=(1, 6)):
    """Everybody with another number of tasks, tasks with two to four alternatives, some unavailable, posts of one's
    own; pay, remote, kind"""
    r = np.random.default_rng(seed)
    rows, post = [], 0
    taste = r.normal(size=n) * spread
    s = 0
    z = []
    for e in range(n):
        for t in range(r.integers(*tasks)):
            A = r.integers(2, 5)
            x = np.c_[r.choice([-1.0, 0, 1, 2], A), r.integers(0, 2, A), r.integers(0, 2, A)]
            free = np.ones(A, bool)
            if A > 2:
                free[r.integers(A)] = r.random() < 0.5
            u = x @ [1.0 + taste[e], 0.8, -0.5] + constant * (np.arange(A) == 0) + r.gumbel(size=A)
            pick = np.where(free, u, -np.inf).argmax()
            for a in range(A):
                rows.append((s, e, t, a, post, a == pick, free[a]))
                z.append(x[a])
                post += 1
            s += 1
    t = pd.DataFrame(rows, columns=list(CHOICE_COLUMNS)).astype(CHOICE_COLUMNS)
    z = np.array(z)
    posts = pd.DataFrame(
        dict(pay=z[:, 0], remote=z[:, 1], kind=pd.Categorical(np.where(z[:, 2] > 0, 'state', 'private')))
    )
    types = dict(pay=ColumnType('numeric', unit='percent'), remote=ColumnType('binary'), kind=ColumnType('categorical'))
    return Survey(
        'ragged',
        np.arange(n).astype(str),
        pd.DataFrame({'x': r.normal(size=n)}),
        {'x': ColumnType('numeric')},
        posts=posts,
        post_types=types,
        choices=Choices(t, np.arange(t.task.max() + 1).astype(str), np.array(list('ABCD')), 'long'),
        synthetic=True,
    )


def sets(survey):
    "Available rows: attributes, ptr, chosen, person"
    t = survey.choices.table
    t = t[t.available]
    p = survey.posts
    Z = np.c_[p.pay, p.remote, p.kind == 'state'][t.post] * 1.0
    start = np.flatnonzero(np.diff(t.situation, prepend=-1))
    return Z, np.r_[start, len(t)], t.chosen.to_numpy() * 1.0, t.employee.to_numpy()[start], t.situation.to_numpy()


# ------------------------------------------------------------------------------------------- the multinomial logit
def test_multinomial_logit_is_that_of_scipy():
    "Log-likelihood, coefficients and standard errors to 4 digits, ragged sets with availability"
    Z, ptr, chosen, *_ = sets(ragged())
    seen = [(Z[a:b], chosen[a:b].argmax()) for a, b in zip(ptr, ptr[1:])]
    f = lambda b: -sum(log_softmax(z @ b)[j] for z, j in seen)
    slow = minimize(f, np.zeros(3), method='BFGS', options=dict(gtol=1e-8)).x
    est = estimate_logit(Z, ptr, chosen)
    h = 1e-3
    E = np.eye(3) * h
    H = np.array(
        [[(f(slow + a + b) - f(slow + a - b) - f(slow - a + b) + f(slow - a - b)) / (4 * h * h) for b in E] for a in E]
    )
    assert est.beta == pytest.approx(slow, abs=1e-5) and est.loglik == pytest.approx(-f(slow), abs=1e-6)
    assert np.sqrt(np.diag(est.cov)) == pytest.approx(np.sqrt(np.diag(np.linalg.inv(H))), rel=1e-4)
    assert est.null_loglik == pytest.approx(-f(np.zeros(3))) and est.n == len(seen)


def test_multinomial_logit_is_that_of_statsmodels():
    models = pytest.importorskip('statsmodels.discrete.conditional_models')
    Z, ptr, chosen, _, situation = sets(ragged(seed=1))
    est = estimate_logit(Z, ptr, chosen)
    other = models.ConditionalLogit(chosen, Z, groups=situation).fit(disp=0, method='newton', maxiter=100)
    assert est.loglik == pytest.approx(other.llf, abs=1e-4) and est.beta == pytest.approx(
        np.asarray(other.params), abs=1e-4
    )
    assert np.sqrt(np.diag(est.cov)) == pytest.approx(np.asarray(other.bse), abs=1e-4)


def test_multinomial_logit_is_that_of_xlogit():
    xlogit = pytest.importorskip('xlogit')
    r = np.random.default_rng(0)
    N, A = 400, 3
    X = r.normal(size=(N * A, 3))
    free = np.ones((N, A))
    free[r.random(N) < 0.3, 2] = 0
    u = (X @ [1, -0.5, 0.2]).reshape(N, A) + r.gumbel(size=(N, A))
    y = np.where(free > 0, u, -np.inf).argmax(1)
    m = xlogit.MultinomialLogit()
    m.fit(
        X,
        y=np.repeat(y, A),
        varnames=list('abc'),
        alts=np.tile(np.arange(A), N),
        ids=np.repeat(np.arange(N), A),
        avail=free.ravel(),
        verbose=0,
    )
    keep = free.ravel() > 0
    est = estimate_logit(
        X[keep], np.r_[0, np.cumsum(free.sum(1)).astype(int)], (y[:, None] == np.arange(A)).ravel()[keep] * 1.0
    )
    assert est.beta == pytest.approx(m.coeff_, abs=2e-4) and est.loglik == pytest.approx(m.loglikelihood, abs=1e-4)


def test_clustered_standard_errors_know_that_answers_repeat():
    "Everybody's answers five times over: the information grows fivefold, the knowledge does not"
    Z, ptr, chosen, person, _ = sets(ragged())
    one = estimate_logit(Z, ptr, chosen, person=person)
    five = estimate_logit(
        np.tile(Z, (5, 1)), np.r_[0, np.cumsum(np.tile(np.diff(ptr), 5))], np.tile(chosen, 5), person=np.tile(person, 5)
    )
    assert five.cov == pytest.approx(one.cov / 5, rel=1e-4) and five.robust == pytest.approx(one.robust, rel=1e-4)
    p = np.concatenate([softmax(Z[a:b] @ one.beta) for a, b in zip(ptr, ptr[1:])])
    score = pd.DataFrame((chosen - p)[:, None] * Z).groupby(np.repeat(person, np.diff(ptr))).sum().to_numpy()
    assert one.robust == pytest.approx(one.cov @ score.T @ score @ one.cov * len(score) / (len(score) - 1), rel=1e-5)


def test_ratio_of_coefficients_does_not_depend_on_units():
    Z, ptr, chosen, person, _ = sets(ragged())
    a, b = (estimate_logit(Z * s, ptr, chosen, ['pay', 'r', 'k'], person) for s in ([1, 1, 1], [1000, 1, 1]))
    assert b.beta * [1000, 1, 1] == pytest.approx(a.beta, rel=1e-5)
    for k in ('worth', 'se'):
        assert willingness(b, 'pay')[k].to_numpy() == pytest.approx(
            1000 * willingness(a, 'pay')[k].to_numpy(), rel=1e-4
        )


# ------------------------------------------------------------------------------------------- bad input
def with_table(s, **cols):
    return replace(s.choices, table=s.choices.table.assign(**cols).astype(CHOICE_COLUMNS))


def test_none_or_two_chosen_are_refused():
    s = ragged(n=20)
    t = s.choices.table
    other = t.index[(t.situation == 3) & ~t.chosen & t.available][0]
    none, two = t.chosen.where(t.situation != 3, False), t.chosen | (t.index == other)
    for chosen in (none, two):
        with pytest.raises(ValueError, match='1 of .* situations have not exactly one chosen alternative, first: 3'):
            check_choices(with_table(s, chosen=chosen))
        bad = replace(s, choices=with_table(s, chosen=chosen))
        for name in SETTINGS:
            with pytest.raises(ValueError, match='exactly one chosen'):
                fit_model(name, bad, make_split(bad))
        with pytest.raises(ValueError, match='exactly one chosen'):
            estimate_survey(bad)


def test_an_alternative_never_available_is_named():
    s = ragged(n=20)
    t = s.choices.table
    c = with_table(s, available=t.available & (t.alternative != 3) | t.chosen & (t.alternative == 3))
    keep = ~(t.chosen & (t.alternative == 3)).groupby(t.situation).transform('any')
    t = c.table[keep].copy()
    t['situation'] = pd.factorize(t.situation)[0]
    t = t[t.groupby('situation').available.transform('sum') > 1]
    t['situation'] = pd.factorize(t.situation)[0]
    with pytest.raises(ValueError, match='never available: alternative D'):
        check_choices(replace(c, table=t.astype(CHOICE_COLUMNS)))


def test_an_attribute_that_never_varies_is_named():
    s = ragged()
    s = replace(
        s,
        posts=s.posts.assign(canteen=1.0, kind='state').astype({'kind': 'category'}),
        post_types={**s.post_types, 'canteen': ColumnType('binary')},
    )
    est, _ = estimate_survey(s)
    assert dict(unidentified(est)) == {'canteen': 'never varies within a choice set'} and np.isnan(
        est.table().estimate['canteen']
    )
    assert 'canteen' not in willingness(est, 'pay').index
    assert np.isfinite(panel_model('mixed_logit', s, make_split(s), grid=[QUICK]).valid_score)
    with pytest.raises(ValueError, match='no attribute varies within a choice set: canteen'):
        estimate_survey(replace(s, posts=s.posts[['canteen']]))


def test_perfect_separation_is_named_with_its_attribute():
    s = ragged(n=60)
    t = s.choices.table
    pay = np.where(t.available, s.posts.pay[t.post] + 1e-3 * np.arange(len(t)) % 0.1, -9)  # no ties
    s = replace(s, posts=s.posts.assign(pay=pay))
    best = pd.Series(pay).groupby(t.situation.to_numpy()).transform('max').to_numpy() == pay
    bad = replace(s, choices=with_table(s, chosen=best))
    with pytest.raises(ValueError, match='perfect separation by pay: every choice follows it'):
        estimate_survey(bad)
    split = make_split(bad)  # predictions are penalised: they stay finite
    for fit in (fit_model('conditional_logit', bad, split), panel_model('mixed_logit', bad, split, [QUICK])):
        assert np.isfinite(fit.utility[t.available]).all()
    assert fit.valid_score < 0.9


def test_separation_by_a_mix_of_attributes_is_found_in_many_rows():
    "Three attributes, none separates alone; 6,000 rows, more than the first part of the linear programme"
    r = np.random.default_rng(0)
    Z = r.normal(size=(6000, 2, 3))
    w = np.array([1, -2, 0.5])
    first = (Z[:, 0] - Z[:, 1]) @ w > 0
    chosen = np.c_[first, ~first].ravel() * 1.0
    ptr = np.arange(0, 12001, 2)
    assert separating(Z.reshape(-1, 3), ptr, chosen, list('abc')) == ['a', 'b', 'c']
    with pytest.raises(ValueError, match='perfect separation by a, b, c'):
        estimate_logit(Z.reshape(-1, 3), ptr, chosen, list('abc'))
    chosen[:2] = chosen[1::-1]
    assert separating(Z.reshape(-1, 3), ptr, chosen, list('abc')) == []


def test_an_unseen_level_is_named():
    s = ragged()
    split = make_split(s)
    t = s.choices.table
    kind = s.posts.kind.astype(object)
    theirs = np.setdiff1d(t.post[np.isin(t.employee, split.test)], t.post[~np.isin(t.employee, split.test)])
    kind[theirs[0]] = 'foreign'
    s = replace(s, posts=s.posts.assign(kind=pd.Categorical(kind)))
    with pytest.warns(UserWarning, match='never shown kind=foreign; counted as an average level'):
        posts = PostEncoder.fit(s, split)
    X, names = posts.transform(s.posts), posts.names
    assert (X[theirs[0], [i for i, n in enumerate(names) if n.startswith('kind')]] == 0).all()
    with pytest.raises(ValueError, match='never shown kind=foreign'):
        PostEncoder.fit(s, split, strict=True)
    with pytest.warns(UserWarning, match='kind=foreign'):
        assert np.isfinite(fit_model('conditional_logit', s, split).utility).all()


# ------------------------------------------------------------------------ the panel likelihood and its predictions
def loops(model, panel, eps, known=None):
    "Likelihood of each person and probability of each row, one person, draw, situation at a time"
    b, B, L, g0, g = (x.double().numpy() for x in (model.b, model.B, model.L, model.gamma0, model.gamma))
    z, x, e = panel.z.numpy(), panel.x.numpy(), eps.numpy()
    out, prob = np.zeros(panel.n), np.zeros(len(z))
    for i in range(panel.n):
        pi = softmax(g0 + x[i] @ g)
        total, weight, mean = 0.0, 0.0, {}
        support = [(pi[c] / len(e), b[c] + x[i] @ B + L @ e[s]) for c in range(len(b)) for s in range(len(e))] + (
            [(pi[-1], np.zeros(z.shape[1]))] if model.coin else []
        )
        for w, beta in support:
            like, told = 1.0, 1.0
            for s in np.flatnonzero(panel.person.numpy() == i):
                rows = np.flatnonzero(panel.situation.numpy() == s)
                u = z[rows] @ beta
                free = panel.available.numpy()[rows]
                p = np.exp(u) / np.exp(u[free]).sum()
                like *= (q := p[rows == int(panel.chosen[s])][0])
                if known is not None and known[s]:
                    told *= q
                mean.setdefault(s, []).append((rows, p))
            total += w * like
            weight += w * told
            for v in mean.values():
                prob[v[-1][0]] += w * told * v[-1][1]
        out[i] = total
        for v in mean.values():
            prob[v[-1][0]] /= weight
    return np.log(out), prob


@pytest.mark.parametrize('C, r, coin', [(1, 2, False), (1, 1, True), (3, 0, True), (2, 1, False)])
def test_panel_likelihood_and_prediction_are_those_of_loops(C, r, coin):
    s = ragged(n=12, seed=3)
    c = s.choices
    X = np.random.default_rng(0).normal(size=(12, 2)).astype('float32')
    Z = rows_of(c, True, np.c_[s.posts.pay, s.posts.remote].astype('float32'))
    panel, who = make_panel(c, Z, X, np.ones(c.n, bool))
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g)
    K = Z.shape[1]
    model = TasteModel(draw(C, K), 0.3 * draw(2, K), 0.5 * draw(K, r), draw(C + coin), 0.5 * draw(2, C + coin), coin)
    eps = normal_draws(8, r, 0)
    known = torch.rand(len(panel.person), generator=g) < 0.5
    loglik, prob = loops(model, panel, eps, known.numpy())
    assert list(who) == list(range(12)) and panel_loglik(model, panel, eps).numpy() == pytest.approx(loglik, abs=1e-4)
    for budget in (10, 10**6):
        assert predict_panel([model], panel, known, [eps], budget).numpy() == pytest.approx(prob, rel=1e-5, abs=1e-5)
    two = TasteModel(
        draw(1, K), 0.3 * draw(2, K), 0.5 * draw(K, 1), draw(1), 0.5 * draw(2, 1)
    )  # two models are one larger set of draws
    apart = [
        torch.exp(
            panel_loglik(m, Panel(panel.z, panel.situation, panel.person, panel.chosen, panel.available, panel.x), e)
        )
        for m, e in ((model, eps), (two, normal_draws(8, 1, 0)))
    ]
    mixed = predict_panel([model, two], panel, torch.ones_like(known), [eps, normal_draws(8, 1, 0)])
    each = [
        predict_panel([m], panel, torch.ones_like(known), [e]) for m, e in ((model, eps), (two, normal_draws(8, 1, 0)))
    ]
    w = apart[0] / (apart[0] + apart[1])
    w = w[panel.person[panel.situation]]
    assert mixed.numpy() == pytest.approx((w * each[0] + (1 - w) * each[1]).numpy(), abs=1e-4)


def test_renumbered_people_and_situations_change_nothing():
    s = ragged(n=15, seed=4)
    c = s.choices
    t = c.table.copy()
    r = np.random.default_rng(0)
    n = c.n
    Z, X = np.c_[s.posts.pay, s.posts.remote].astype('float32')[t.post], r.normal(size=(15, 1)).astype('float32')
    panel, _ = make_panel(c, Z, X, np.ones(n, bool))
    model = TasteModel(torch.tensor([[1.0, -1]]), torch.ones(1, 2), torch.ones(2, 1), torch.zeros(1), torch.zeros(1, 1))
    eps = normal_draws(16, 1, 0)
    to = r.permutation(15)
    u = t.assign(employee=to[t.employee]).sort_values(['task', 'employee', 'alternative'], kind='stable')
    u['situation'] = pd.factorize(u.situation)[0]
    X2 = np.empty_like(X)
    X2[to] = X
    Z2 = Z[u.index]
    other, who = make_panel(replace(c, table=u.astype(CHOICE_COLUMNS)), Z2, X2, np.ones(n, bool))
    assert panel_loglik(model, other, eps)[to].numpy() == pytest.approx(
        panel_loglik(model, panel, eps).numpy(), abs=1e-5
    )


def test_without_spread_it_is_the_multinomial_logit():
    s = ragged(n=150, seed=5)
    Z, ptr, chosen, *_ = sets(s)
    est = estimate_logit(Z, ptr, chosen)
    panel, _ = make_panel(
        s.choices,
        np.c_[s.posts.pay, s.posts.remote, s.posts.kind == 'state'].astype('float32')[s.choices.table.post],
        np.zeros((150, 0), 'float32'),
        np.ones(s.choices.n, bool),
    )
    m = fit_panel(panel, PanelConfig(factors=0, draws=1, steps=400), torch.Generator().manual_seed(0))
    assert m.b[0].numpy() == pytest.approx(est.beta, abs=0.02)


def test_minibatches_of_people_find_the_same_tastes():
    s = ragged(n=500, seed=6, spread=1.0)
    panel, _ = make_panel(
        s.choices,
        np.c_[s.posts.pay, s.posts.remote].astype('float32')[s.choices.table.post],
        np.zeros((500, 0), 'float32'),
        np.ones(s.choices.n, bool),
    )
    a, b = (
        fit_panel(panel, PanelConfig(factors=1, steps=150, draws=16), torch.Generator().manual_seed(0), budget)
        for budget in (10**9, 25_000)
    )
    assert (a.b - b.b).abs().max() < 0.15 and (a.L.abs() - b.L.abs()).abs().max() < 0.3


def test_mixed_logit_is_that_of_xlogit():
    """One normal taste, five tasks each.

    What xlogit (0.2) cannot do, and this project therefore has of its own: tastes that are correlated or whose mean is
    linear in a person's features under a penalty, classes (coin-flippers), and predictions that weigh draws by the
    person's known answers"""
    xlogit = pytest.importorskip('xlogit')
    r = np.random.default_rng(0)
    n, T, A = 400, 5, 3
    X = r.normal(size=(n * T * A, 3))
    e = r.normal(size=n)
    u = (
        (X @ [1, -0.5, 0.5]).reshape(n, T, A)
        + 1.5 * e[:, None, None] * X[:, 2].reshape(n, T, A)
        + r.gumbel(size=(n, T, A))
    )
    y = u.argmax(2).ravel()
    m = xlogit.MixedLogit()
    m.fit(
        X,
        y=np.repeat(y, A),
        varnames=list('abc'),
        alts=np.tile(np.arange(A), n * T),
        ids=np.repeat(np.arange(n * T), A),
        panels=np.repeat(np.arange(n), T * A),
        randvars={'c': 'n'},
        n_draws=500,
        verbose=0,
    )
    row = np.arange(n * T) * A + y
    panel = Panel(
        torch.tensor(X, dtype=torch.float32),
        torch.arange(n * T).repeat_interleave(A),
        torch.arange(n).repeat_interleave(T),
        torch.tensor(row),
        torch.ones(len(X), dtype=bool),
        torch.zeros(n, 0),
    )
    est = estimate_mixed(panel, list('abc'), np.array([[0], [0], [1]]), draws=512)
    assert est.loglik == pytest.approx(m.loglikelihood, abs=1.5)  # other draws
    assert np.r_[est.beta, abs(est.loading[2, 0])] == pytest.approx(np.abs(m.coeff_) * np.r_[1, -1, 1, 1], abs=0.03)
    se = np.sqrt(np.diag(est.cov))
    assert se[:2] == pytest.approx(m.stderr[:2], rel=0.15)
    assert 1.5 / np.sqrt(n) < se[2]  # even known tastes would leave 1.5/√n; xlogit's is the optimiser's guess, below it


# ------------------------------------------------------------------------------------------- what the baselines may see
@pytest.fixture(scope='module')
def world():
    survey = make_synthetic(n_employees=120, seed=1, base_rate=0.3).survey
    return survey, make_split(survey, seed=0, preference='warm', n_known=3)


def flipped(survey, situations):
    "The answers of some situations turned round (pairs)"
    t = survey.choices.table.copy()
    hit = np.isin(t.situation, situations)
    t.loc[hit, 'chosen'] = ~t.chosen[hit]
    return replace(survey, choices=replace(survey.choices, table=t))


def quick(name, survey, split):
    return panel_model(name, survey, split, seed=3, grid=GRID[name])


@pytest.mark.parametrize('name', GRID)
def test_only_training_answers_and_ones_own_known_answers_matter(world, name):
    survey, split = world
    c = survey.choices
    t = c.table
    base = quick(name, survey, split).utility
    test = np.isin(c.employee, split.test)
    me = split.test[0]
    rows = lambda people: np.isin(t.employee, people)
    assert np.array_equal(
        quick(name, flipped(survey, np.flatnonzero(test & ~split.known)), split).utility, base
    )  # unknown answers of test people: nobody
    now = quick(
        name, flipped(survey, np.flatnonzero(split.known & (c.employee == me))), split
    ).utility  # my known ones: me alone
    assert not np.allclose(now[rows(me)], base[rows(me)], atol=1e-3) and np.array_equal(now[~rows(me)], base[~rows(me)])
    assert not np.array_equal(
        quick(name, flipped(survey, np.flatnonzero(np.isin(c.employee, split.train[:30]))), split).utility[
            rows(split.test)
        ],
        base[rows(split.test)],
    )
    x = survey.features.copy()
    x.loc[split.test[1:], 'total_years'] = 40.0  # features of other held-out people
    assert np.array_equal(quick(name, replace(survey, features=x), split).utility[rows(me)], base[rows(me)])


@pytest.mark.parametrize('name', GRID)
def test_seed_and_nothing_else_moves_a_fit(world, name):
    survey, split = world
    fit = lambda seed: panel_model(name, survey, split, seed=seed, grid=GRID[name]).utility
    first = fit(0)
    assert np.array_equal(first, fit(0)) and not np.array_equal(first, fit(1))
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        assert np.array_equal(first, fit(0))
    finally:
        torch.set_num_threads(before)


def test_settings_are_those_of_the_lowest_validation_loss(world):
    survey, split = world
    grid = [dict(QUICK, penalty=p) for p in (0.5, 2.0, 50.0)]
    run = lambda g: panel_model('mixed_logit', survey, split, grid=g)
    losses = [run([g]).valid_score for g in grid]
    best = run(grid)
    assert best.valid_score == min(losses) and best.chosen['penalty'] == grid[int(np.argmin(losses))]['penalty']
    p = np.exp(best.utility[survey.choices.table.chosen])
    use = np.isin(survey.choices.employee, split.valid) & ~split.known
    assert best.valid_score == pytest.approx(-np.log(p[use]).mean(), abs=1e-6)


@pytest.mark.parametrize('name', SETTINGS)
def test_every_baseline_does_every_kind_of_choice(name):
    "Ragged sets, an outside option, sampled candidates and interactions, through the one entry point"
    for s in (
        ragged(n=60),
        accept_or_decline(n=60),
        interactions(),
        candidate_sets(interactions(), make_split(interactions()), 3, 0),
    ):
        fit = fit_model(name, s, make_split(s))
        free = s.choices.table.available
        assert fit.utility.shape == (len(s.choices.table),) and np.isfinite(fit.utility[free]).all()


def test_the_registry_knows_the_models_that_are_tested_here():
    assert set(members('choice')) | {'majority'} == set(SETTINGS)


@pytest.mark.parametrize('name', SETTINGS)
def test_a_saved_model_predicts_the_same_to_the_bit(world, name, tmp_path):
    "… the phases, other known answers, and another survey's rows"
    survey, split = world
    fit = fit_model(name, survey, split)
    again = type(fit.model).load(fit.model.save(tmp_path))
    assert again.facts() == fit.model.facts() and again.settings == fit.model.settings
    other = fit.graph.rebuild(flipped(survey, np.flatnonzero(np.isin(survey.choices.employee, split.test))))
    for graph in (fit.graph, other):
        for known in (None, np.zeros(survey.choices.n, bool)):
            a, b = (m.predict(graph, 'test', known) for m in (fit.model, again))
            assert np.array_equal(a.rows, b.rows) and np.array_equal(a.utility, b.utility)


@pytest.mark.parametrize('name', GRID)
def test_prediction_refits_nothing(world, name):
    "Training people's answers and features rewritten: the fitted model says the same of test people"
    survey, split = world
    fit = fit_model(name, survey, split)
    features = survey.features.copy()
    features.loc[split.train, 'total_years'] = 40.0
    train = np.flatnonzero(np.isin(survey.choices.employee, split.train))
    other = fit.graph.rebuild(replace(flipped(survey, train), features=features))
    a, b = (fit.model.predict(g, 'test') for g in (fit.graph, other))
    assert np.array_equal(a.rows, b.rows) and np.array_equal(a.utility, b.utility)


# ------------------------------------------------------------------------------------------- kinds of choice
def accept_or_decline(n=300, T=5, seed=0):
    "One post or none: accepted where .8 pay + remote − .7 beats 0"
    r = np.random.default_rng(seed)
    P = n * T
    posts = pd.DataFrame(dict(pay=r.normal(size=P + 1), remote=r.integers(0, 2, P + 1) * 1.0))
    posts.iloc[P] = np.nan
    yes = r.random(P) < expit(0.8 * posts.pay[:P] + posts.remote[:P] - 0.7)
    s = np.repeat(np.arange(P), 2)
    t = pd.DataFrame(
        dict(
            situation=s,
            employee=s // T,
            task=s % T,
            alternative=np.tile([0, 1], P),
            post=np.c_[np.arange(P), np.full(P, P)].ravel(),
            chosen=np.c_[yes, ~yes].ravel(),
            available=True,
        )
    ).astype(CHOICE_COLUMNS)
    return Survey(
        'offers',
        np.arange(n).astype(str),
        pd.DataFrame({'x': r.normal(size=n)}),
        {'x': ColumnType('numeric')},
        posts=posts,
        post_types=dict(pay=ColumnType('numeric'), remote=ColumnType('binary')),
        choices=Choices(t, np.arange(T).astype(str), np.array(['offer', 'decline']), 'long'),
        synthetic=True,
    )


def interactions(n=80, P=8, seed=0):
    r = np.random.default_rng(seed)
    p = np.exp(0.4 * np.arange(P))
    took = np.sort([r.choice(P, 2, replace=False, p=p / p.sum()) for _ in range(n)], 1)
    t = pd.DataFrame(
        dict(
            situation=np.arange(2 * n),
            employee=np.repeat(np.arange(n), 2),
            task=0,
            alternative=0,
            post=took.ravel(),
            chosen=True,
            available=True,
        )
    ).astype(CHOICE_COLUMNS)
    return Survey(
        'seen',
        np.arange(n).astype(str),
        pd.DataFrame({'x': r.normal(size=n)}),
        {'x': ColumnType('numeric')},
        posts=pd.DataFrame({'pay': np.arange(P) * 1.0}),
        post_types={'pay': ColumnType('numeric')},
        choices=Choices(t, np.array(['all posts']), np.array(['chosen']), 'interactions'),
        synthetic=True,
    )


def test_to_decline_is_an_option_without_attributes():
    "Accept or decline is a binary logit whose intercept is minus the constant of declining"
    from sklearn.linear_model import LogisticRegression

    s = accept_or_decline()
    est, d = estimate_survey(s)
    y = s.choices.table.chosen.to_numpy()[::2]
    same = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(s.posts[:-1].to_numpy(), y)
    assert d.names == ['pay', 'remote', 'no post'] and outside_option(s.posts).sum() == 1
    assert est.beta == pytest.approx(np.r_[same.coef_[0], -same.intercept_], abs=1e-4)
    split = make_split(s)
    posts = PostEncoder.fit(s, split)
    X, names = posts.transform(s.posts), posts.names
    assert names == ['pay', 'remote', 'no post'] and X[-1].tolist() == [0, 0, 1] and (X[:-1, 2] == 0).all()
    shown = np.unique(s.choices.table.post[np.isin(s.choices.table.employee, split.train)])[:-1]
    assert X[shown, 0].mean() == pytest.approx(0, abs=1e-5)  # encoded by the posts that have attributes
    mixed = panel_model('mixed_logit', s, split, [dict(factors=1, steps=150, draws=8)])
    for fit in (fit_model('conditional_logit', s, split), mixed):
        u = fit.utility.reshape(-1, 2)
        gap, real = u[:, 0] - u[:, 1], 0.8 * s.posts.pay[:-1] + s.posts.remote[:-1]
        assert np.corrcoef(gap, real)[0, 1] > 0.95
        assert expit(gap).mean() - y.mean() == pytest.approx(0, abs=0.03)


def test_alternatives_have_constants():
    "The first alternative wins because it is first: the constant is estimated, and chosen by validation"
    s = ragged(n=300, constant=1.5)
    est, d = estimate_survey(s, constants=True)
    i = est.names.index('constant B')
    assert est.beta[i:] == pytest.approx([-1.5] * 3, abs=0.5) and d.names[-3:] == [
        'constant B',
        'constant C',
        'constant D',
    ]
    fit = fit_model('conditional_logit', s, make_split(s))
    assert fit.chosen['constants']
    plain, const = (
        panel_model('mixed_logit', s, make_split(s), constants=c, grid=[dict(steps=150, draws=8, factors=1)])
        for c in (False, True)
    )
    assert const.valid_score < plain.valid_score - 0.03 and const.fit.attributes[-1] == 'constant D'


def test_interactions_are_choices_among_all_posts():
    s = interactions()
    P = len(s.posts)
    t = s.choices.table
    e = np.repeat(np.arange(len(t)), P)
    rows = pd.DataFrame(
        dict(
            situation=e,
            employee=t.employee.to_numpy()[e],
            task=0,
            alternative=np.tile(np.arange(P), len(t)),
            post=np.tile(np.arange(P), len(t)),
            chosen=t.post.to_numpy()[e] == np.tile(np.arange(P), len(t)),
            available=True,
        )
    ).astype(CHOICE_COLUMNS)
    long = replace(s, choices=Choices(rows, s.choices.tasks, np.arange(P).astype(str), 'candidates'))
    split = make_split(s)
    a, b = (panel_model('mixed_logit', x, split, grid=[QUICK]) for x in (s, long))
    assert np.array_equal(a.utility, b.utility) and a.valid_score == b.valid_score


def test_fewer_answers_of_a_training_person_are_no_reason_to_leave_them_out():
    s = ragged(n=40, tasks=(1, 2))
    split = make_split(s)
    assert s.choices.n == 40
    assert np.isfinite(panel_model('mixed_logit', s, split, grid=[QUICK]).valid_score)


# ------------------------------------------------------------------------------------------- what is learned
def test_known_answers_help_and_the_curve_says_how_much(world):
    survey, split = world
    cold = replace(split, known=np.zeros_like(split.known), n_known=0, preference='cold')
    fit = panel_model('mixed_logit', survey, cold, grid=[dict(steps=80, draws=16)])
    people = np.r_[split.valid, split.test]
    rng = np.random.default_rng(0)
    scores = known_scores(lambda known: fit.fit.utility(known, people), survey.choices, people, rng, repeats=5)
    curve = curve_of(scores, rng, 50)
    assert (
        list(curve.index) == list(range(7))
        and curve.log_loss[6] < curve.log_loss[0] - 0.02
        and curve.accuracy[6] > curve.accuracy[0]
    )
    rows = np.isin(survey.choices.table.employee, people) & survey.choices.table.chosen.to_numpy()
    assert curve.log_loss[0] == pytest.approx(-fit.utility[rows].mean(), abs=1e-6)


def test_latent_classes_find_two_kinds_of_people():
    r = np.random.default_rng(0)
    n, T = 300, 6
    z = r.normal(size=(n, T, 2, 2))
    kind = r.random(n) < 0.3
    beta = np.where(kind[:, None], [2.0, 0], [0, 2.0])
    pick = ((z * beta[:, None, None]).sum(-1) + r.gumbel(size=(n, T, 2))).argmax(-1).ravel()
    f = lambda a: torch.tensor(a)
    panel = Panel(
        f(z.reshape(-1, 2)).float(),
        torch.arange(n * T).repeat_interleave(2),
        torch.arange(n).repeat_interleave(T),
        f(np.arange(n * T) * 2 + pick),
        torch.ones(n * T * 2, dtype=bool),
        torch.zeros(n, 0),
    )
    m = fit_panel(panel, PanelConfig(classes=2, factors=0, draws=1, steps=300), torch.Generator().manual_seed(0))
    a = int(m.b[:, 0].argmax())
    assert m.b[a].numpy() == pytest.approx([2, 0], abs=0.35) and m.b[1 - a].numpy() == pytest.approx([0, 2], abs=0.35)
    assert torch.softmax(m.gamma0, 0)[a].item() == pytest.approx(kind.mean(), abs=0.06)


@pytest.mark.slow
def test_mixed_logit_comes_near_the_best_that_anybody_could_do():
    "2,000 people: cold within 1.5 % of the Bayes-optimal log-loss, warm within 3 %; see benchmarks/choice.py"
    w = make_synthetic(n_employees=2000, seed=0)
    s = w.survey
    split = make_split(s, seed=0)
    who = split.test
    fit = panel_model('mixed_logit', s, split, grid=[dict(penalty=2.0)])
    for k, most in ((0, 1.5), (3, 3.0), (6, 3.0)):
        told = np.random.default_rng(k).random((s.n, 7)).argsort(1) < k
        told[np.setdiff1d(np.arange(s.n), who)] = False
        p, q, free = (
            w.truth.second_post(told.ravel(), who),
            fit.fit.probability(told.ravel(), who).reshape(-1, 7, 2)[who, :, 1],
            ~told[who],
        )
        loss = lambda q, p=p, free=free: -(p * np.log(q) + (1 - p) * np.log1p(-q))[free].mean()
        assert loss(q) < loss(p) * (1 + most / 100)


# ------------------------------------------------------------------------------------------- economics
def test_delta_method_and_draws_agree_with_a_bootstrap_by_person():
    s = ragged(n=250, seed=8)
    Z, ptr, chosen, person, _ = sets(s)
    est = estimate_logit(Z, ptr, chosen, ['pay', 'remote', 'state'], person)
    w = willingness(est, 'pay')
    r, boot, mine = np.random.default_rng(0), [], [np.flatnonzero(person == e) for e in np.unique(person)]
    for _ in range(120):
        take = np.concatenate([mine[i] for i in r.integers(len(mine), size=len(mine))])
        rows = np.concatenate([np.arange(ptr[g], ptr[g + 1]) for g in take])
        b = estimate_logit(Z[rows], np.r_[0, np.cumsum(np.diff(ptr)[take])], chosen[rows]).beta
        boot.append(b[1:] / b[0])
    assert w.se.to_numpy() == pytest.approx(np.std(boot, 0), rel=0.3) and (
        w.kr_high - w.kr_low
    ).to_numpy() == pytest.approx(3.92 * w.se.to_numpy(), rel=0.25)


def test_a_price_that_is_no_price_is_called_unbounded():
    Z, ptr, chosen, person, _ = sets(ragged(n=40, seed=9))
    r = np.random.default_rng(0)
    Z[:, 0] = r.normal(size=len(Z))  # pay that nobody looked at
    w = willingness(estimate_logit(Z, ptr, chosen, ['pay', 'remote', 'state'], person), 'pay')
    assert (w.note == 'pay cannot be told from 0: unbounded').all() and (w.kr_high - w.kr_low > 3.92 * w.se).any()


def test_what_a_design_does_not_tell_is_not_printed():
    "Nine attributes over seven tasks: rank 7; whole posts of a task can be compared, single attributes cannot"
    s = make_synthetic(n_employees=150, seed=2).survey
    est, d = estimate_survey(s)
    assert (
        est.space.shape[1] == 7
        and len(est.names) > 12
        and est.table().estimate.isna().all()
        and len(unidentified(est)) == len(est.names)
    )
    assert est.identified(np.diff(d.Z, axis=0)[::2]).all() and not est.identified(np.eye(len(est.names))).any()
    V = d.Z @ est.beta
    t = s.choices.table
    share = t.chosen[t.alternative == 1].groupby(t.task).mean()  # what it does tell: the shares of each task
    assert expit(np.diff(V)[::2]) == pytest.approx(share.to_numpy(), abs=1e-6)
    with pytest.raises(ValueError, match="'pay_change' is not identified: confounded with"):
        willingness(est, 'pay_change')
    fit, d = fit_tastes(class_tastes, [dict(classes=2, steps=30)], s, make_split(s))
    assert (
        list(segments(fit.fit, d, make_split(s).train).columns) == ['share', 'people']
        and len(taste_table(fit.fit, d, make_split(s).train)) == 0
    )


def test_two_confounded_attributes_are_named_together():
    s = ragged()
    s = replace(
        s, posts=s.posts.assign(bonus=2 * s.posts.pay), post_types={**s.post_types, 'bonus': ColumnType('numeric')}
    )
    est, _ = estimate_survey(s)
    assert (
        dict(unidentified(est)) == {'pay': 'confounded with bonus', 'bonus': 'confounded with pay'}
        and est.table().estimate.notna().sum() == 2
    )


def test_small_segments_are_put_together():
    s = ragged(n=40)
    split = make_split(s)
    fit, d = fit_tastes(class_tastes, [dict(classes=8, steps=30)], s, split)
    table = segments(fit.fit, d, split.train)
    assert table.share.sum() == pytest.approx(1, abs=1e-6) and table.people.min() >= 5


def test_the_real_surveys_design_identifies_no_single_attribute(shared_data):
    from turnover_nb.data.survey import read_survey

    est, _ = estimate_survey(read_survey(shared_data / 'survey', 'job_choice_survey'))
    assert est.space.shape[1] == 7 and est.table().estimate.isna().all()


def test_a_conjoint_without_any_feature_of_people(shared_data):
    "56 students, ten pairs each: mixed logit from known answers alone; the prices of a design that identifies some"
    from turnover_nb.data.survey import read_survey

    s = read_survey(shared_data / 'mba_job_conjoint', 'mba_job_conjoint')
    split = make_split(s, seed=0, preference='warm', n_known=6)
    assert np.isfinite(panel_model('mixed_logit', s, split, grid=[QUICK]).valid_score)
    est, _ = estimate_survey(s)
    assert est.table().not_identified.ne('').sum() == len(unidentified(est))
