"Baselines against independent implementations, and that they see what they may see"

import os
import subprocess
import sys
from dataclasses import replace
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from turnover_nb.graph.audit import leak_audit
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import find, load_model, make_model, members
from turnover_nb.models.tabular import log_loss_of
from turnover_nb.choice.identification import attribute_rank
from turnover_nb.choice.logit import fit_conditional_logit
from turnover_nb.choice.majority import majority_utility, task_log_share
from turnover_nb.choice.sets import ChoiceCounts, choice_counts
from turnover_nb.data.people import PeopleEncoder
from turnover_nb.data.posts import PostEncoder
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.core.tables import CHOICE_COLUMNS, Choices


TABULAR = tuple(m for m in members('baselines') if find(m).cls.startswith('.tabular'))


@pytest.fixture(scope='module')
def world():
    survey = make_synthetic(n_employees=250, seed=1, base_rate=0.3).survey
    split = make_split(survey, seed=0)
    return survey, split, PeopleEncoder.fit(survey, split.train).transform(survey)


@pytest.fixture(scope='module')
def fits(world):
    "Each model, fitted on the graph of the world"
    survey, split, _ = world
    graph = build_graph(survey, split)
    return graph, {name: make_model(name).fit(graph, seed=2) for name in TABULAR}


def test_hyperparameters_are_those_of_the_lowest_validation_loss(world):
    from sklearn.linear_model import LogisticRegression

    survey, split, X = world
    y, X64 = survey.turnover, X.astype('float64')

    def loss(C):
        fit = LogisticRegression(C=C, max_iter=2000).fit(X64[split.train], y[split.train])
        return log_loss_of(y[split.valid], fit.predict_proba(X64[split.valid])[:, 1])

    logistic = make_model('logistic')
    losses = {C: loss(C) for C in logistic.settings.C}
    fit = logistic.fit_table(X, y, split)
    assert fit.chosen['C'] == min(losses, key=losses.get)
    assert fit.valid_loss == pytest.approx(min(losses.values()), abs=1e-6)


@pytest.mark.parametrize('name', TABULAR)
def test_validation_score_is_that_of_the_returned_model(fits, name):
    "… so the kept epoch, tree count and grid entry are the ones that predict"
    graph, models = fits
    survey, split = graph.survey, graph.split
    p = models[name].predict(graph, 'valid')
    assert np.array_equal(p.people, split.valid) and p.utility is None
    # the MLP is in single precision
    assert models[name].fitted.valid_loss == pytest.approx(log_loss_of(survey.turnover[p.people], p.turnover), abs=1e-6)
    assert p.turnover.dtype == np.float64 and (p.turnover > 0).all() and (p.turnover < 1).all()


@pytest.mark.parametrize('name', TABULAR)
def test_a_saved_model_predicts_the_same_bits(fits, name, tmp_path):
    graph, models = fits
    again = load_model(models[name].save(tmp_path))
    assert again.name == name and again.settings == models[name].settings and again.facts() == models[name].facts()
    for phase in ('train', 'valid', 'test'):
        assert np.array_equal(again.predict(graph, phase).turnover, models[name].predict(graph, phase).turnover)
    assert not list(tmp_path.glob('*.pkl'))


def test_a_file_that_names_other_types_is_not_read(fits, tmp_path):
    "skops asks before it makes anything that is not on its list; pickle would have run it"
    from skops.io import dump
    from sklearn.preprocessing import FunctionTransformer

    _, models = fits
    models['logistic'].save(tmp_path)
    dump(FunctionTransformer(os.system), tmp_path / 'estimator.skops')
    with pytest.raises(Exception, match='[Uu]ntrusted'):
        load_model(tmp_path)


@pytest.mark.parametrize('name', TABULAR)
def test_the_audit_proves_it(fits, name):
    graph, models = fits
    assert leak_audit(models[name], graph).passed
    assert models[name].reads(graph) is None


@pytest.mark.parametrize(
    'name, one',
    [
        ('random_forest', dict(min_samples_leaf=[2], max_features=[0.3], n_estimators=20)),
        ('mlp', dict(l2=[1.0], max_epochs=10)),
        ('xgboost', dict(max_depth=[2], min_child_weight=[1], n_estimators=40)),
    ],
)
def test_seed_moves_the_random_models_and_only_it(world, name, one):
    survey, split, X = world
    model = make_model(name, **one)
    go = lambda seed: model.fit_table(X, survey.turnover, split, seed).predict(X)
    assert np.array_equal(go(0), go(0)) and not np.array_equal(go(0), go(1))


def test_training_rows_alone_train(world):
    "Test rows removed from the matrix altogether: the same model"
    survey, split, X = world
    y = survey.turnover
    a, b = len(split.train), len(split.train) + len(split.valid)
    keep = np.r_[split.train, split.valid, split.test[:1]]
    small = replace(split, train=np.arange(a), valid=np.arange(a, b), test=np.arange(b, b + 1))
    for name in ('logistic', 'mlp'):
        few, all_ = (
            make_model(name).fit_table(X[keep], y[keep], small),
            make_model(name).fit_table(X, y, split),
        )
        assert np.array_equal(few.predict(X), all_.predict(X))


@pytest.mark.slow
def test_number_of_threads_changes_no_bit():
    code = '''
import hashlib
import numpy as np
from turnover_nb.data.split import Split
from turnover_nb.models.registry import make_model

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 60)).astype('float32')
y = (rng.random(300) < 1 / (1 + np.exp(1 - X[:, 0]))) * 1.
parts = np.arange(200), np.arange(200, 250), np.arange(250, 300)
s = Split(*parts, 'holdout', 0, None, 'cold', 0, np.zeros(0, bool))
said = [make_model(n).fit_table(X, y, s).predict(X).tobytes() for n in ('logistic', 'mlp', 'xgboost')]
print(hashlib.sha256(b''.join(said)).hexdigest())'''
    env = lambda k: {**os.environ, 'OMP_NUM_THREADS': str(k), 'OPENBLAS_NUM_THREADS': str(k)}
    command = [sys.executable, '-c', code]
    run = lambda k: subprocess.run(command, capture_output=True, text=True, check=True, env=env(k)).stdout
    assert run(1) == run(2)


def sets(seed, S=60, A=3, D=4):
    "Choice sets of three posts, some unavailable, planted β; the table, attributes of posts and rows"
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(S * A, D))
    free = np.ones((S, A), bool)
    free[rng.random(S) < 0.4, 2] = False
    u = (Z @ np.linspace(-1, 1, D)).reshape(S, A) + rng.gumbel(size=(S, A))
    pick = np.where(free, u, -np.inf).argmax(1)
    person = np.repeat(np.arange(S), A)
    t = pd.DataFrame(
        dict(
            situation=person,
            employee=person,
            task=0,
            alternative=np.tile(np.arange(A), S),
            post=np.arange(S * A),
            chosen=(pick[:, None] == np.arange(A)).ravel(),
            available=free.ravel(),
        )
    ).astype(CHOICE_COLUMNS)
    return Choices(t, np.array(['1']), np.array(list('ABC')), 'long'), Z


@pytest.mark.parametrize('ridge', [0.1, 5.0])
def test_conditional_logit_is_the_brute_force_optimum(ridge):
    choices, Z = sets(0)
    c = choice_counts(choices, np.ones(choices.n, bool), len(Z))
    beta = fit_conditional_logit(Z[c.post], c.ptr, c.count, ridge)
    t = choices.table[choices.table.available]
    seen = [(Z[g.post.to_numpy()], g.chosen.to_numpy().argmax()) for _, g in t.groupby('situation')]
    objective = lambda b: ridge / 2 * b @ b - sum((z @ b)[j] - np.log(np.exp(z @ b).sum()) for z, j in seen)
    slow = minimize(objective, np.zeros(4), method='BFGS', options=dict(gtol=1e-6)).x
    assert beta == pytest.approx(slow, abs=1e-4) and objective(beta) <= objective(slow) + 1e-9


def test_counting_equal_sets_together_changes_nothing():
    "300 people, five sets in all"
    rng = np.random.default_rng(1)
    S, A = 300, 3
    which = rng.integers(0, 5, S)
    pick = rng.integers(0, A, S)
    person = np.repeat(np.arange(S), A)
    t = pd.DataFrame(
        dict(
            situation=person,
            employee=person,
            task=np.repeat(which, A),
            alternative=np.tile(np.arange(A), S),
            post=(which[:, None] * A + np.arange(A)).ravel(),
            chosen=(pick[:, None] == np.arange(A)).ravel(),
            available=True,
        )
    ).astype(CHOICE_COLUMNS)
    c = choice_counts(Choices(t, np.array(list('12345')), np.array(list('ABC')), 'long'), np.ones(S, bool), 15)
    assert len(c.ptr) == 6 and c.count.sum() == S
    assert np.array_equal(c.count, [((which == p // A) & (pick == p % A)).sum() for p in c.post])
    Z = rng.normal(size=(15, 3))
    long = ChoiceCounts(
        np.arange(0, S * A + 1, A), t.post.to_numpy(), t.alternative.to_numpy(), t.chosen.to_numpy() * 1.0
    )
    fit = lambda c: fit_conditional_logit(Z[c.post], c.ptr, c.count, 1.0)
    assert fit(c) == pytest.approx(fit(long), abs=1e-8)


def test_confounded_attributes_are_counted_and_bridged():
    "k copies of an attribute share its weight: under ridge λ their sum is the weight of one copy under λ/k"
    choices, Z = sets(2, D=1)
    c = choice_counts(choices, np.ones(choices.n, bool), len(Z))
    twin = np.c_[Z, Z]
    assert attribute_rank(twin[c.post], c.ptr) == 1
    one, two = (
        fit_conditional_logit(Z[c.post], c.ptr, c.count, 2.0),
        fit_conditional_logit(twin[c.post], c.ptr, c.count, 4.0),
    )
    assert two[0] == pytest.approx(two[1], abs=1e-8) and two.sum() == pytest.approx(one[0], abs=1e-8)


def test_separated_choices_converge():
    "Always the higher pay: the likelihood has no maximum, the penalised one has"
    Z = np.array([[1.0], [0.0], [3.0], [1.0]])
    b = fit_conditional_logit(Z, np.array([0, 2, 4]), np.array([50.0, 0, 50, 0]), 0.1)
    assert np.isfinite(b).all() and b[0] > 2


def test_majority_predicts_the_training_majority(world):
    survey, split, _ = world
    c = survey.choices
    t = c.table
    u = make_model('majority').fit(build_graph(survey, split)).utility(c)
    rows = t[np.isin(t.employee, split.train) & t.chosen]
    top = rows.groupby('task').alternative.agg(lambda x: x.value_counts().idxmax())
    best = t.assign(u=u).sort_values('u').groupby('situation').last()
    assert (best.alternative.to_numpy() == top[best.task].to_numpy()).all()
    share = rows.groupby('task').alternative.apply(lambda x: (x == 0).mean())
    first = t.alternative == 0
    n = rows.groupby('task').size()
    assert np.exp(u[first]) == pytest.approx(((share * n + 1) / (n + 2))[t.task[first]].to_numpy(), abs=1e-12)


def test_majority_of_an_unseen_task_is_indifferent():
    choices, _ = sets(3, S=10)
    t = choices.table.copy()
    t.loc[t.situation == 9, 'task'] = 1
    two = replace(choices, table=t, tasks=np.array(['1', '2']))
    u = majority_utility(two, task_log_share(two, np.arange(10) < 9))
    assert (u[t.situation == 9] == 0).all() and (u[t.situation < 9] != 0).all()


@pytest.mark.parametrize('name', ['majority', 'conditional_logit'])
def test_test_answers_are_never_seen(world, name):
    survey, split, _ = world
    c = survey.choices
    t = c.table.copy()
    mine = np.isin(t.employee, split.test)
    t.loc[mine, 'chosen'] = ~t.chosen[mine]
    other = replace(survey, choices=replace(c, table=t))
    a, b = (make_model(name).fit(g).predict(g).utility for g in (build_graph(s, split) for s in (survey, other)))
    assert np.array_equal(a, b)


def test_post_encoder_is_fitted_on_posts_shown_in_training():
    survey = make_synthetic(n_employees=60, seed=0).survey
    split = make_split(survey, seed=0)
    c = survey.choices
    t = c.table.copy()
    mine = np.isin(t.employee, split.train)
    only = t[mine & (t.task < 4)]
    left = t[~mine | (t.task < 4)].copy()
    left['situation'] = pd.factorize(left.situation)[0]
    part = replace(survey, choices=replace(c, table=left.astype(CHOICE_COLUMNS)))
    encoder = PostEncoder.fit(part, replace(split, known=np.zeros(part.choices.n, bool)))
    X, names = encoder.transform(part.posts), encoder.names
    shown = np.unique(only.post)
    number = [i for i, n in enumerate(names) if '=' not in n]
    assert len(shown) < len(survey.posts) and X[shown][:, number].mean(0) == pytest.approx(
        np.zeros(len(number)), abs=1e-5
    )
