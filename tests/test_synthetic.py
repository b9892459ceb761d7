"""The planted truth, and the files of a synthetic survey: what is too slow or too wide for a notebook"""

import subprocess
import sys
from dataclasses import fields, replace
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from turnover_nb.data.survey import read_survey
from turnover_nb.synthetic.people import (
    BATTERIES,
    FACTOR_SD,
    SHIFT,
    attentive_probability,
    cuts,
    draw_facts,
    draw_firms,
    draw_items,
    factor_means,
    skills_of_position,
)
from turnover_nb.synthetic.truth import expected_scores, simulate
from turnover_nb.synthetic.world import make_synthetic, tiny_world, write_synthetic


@pytest.fixture(scope='module')
def careless_world():
    "300 people of whom a fifth answers at random"
    return make_synthetic(n_employees=300, careless=0.2, seed=5)


def same(a, b, where=''):
    "Deep equality of typed tables, with dtypes; says where they differ"
    assert type(a) is type(b), f'{where}: {type(a)} is not {type(b)}'
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_exact=True, obj=where)
    elif isinstance(a, pd.Series):
        assert a.dtype.kind == b.dtype.kind and (a == b).all(), f'{where} differs'  # pandas chooses the unit
    elif isinstance(a, np.ndarray):
        assert a.dtype.kind == b.dtype.kind and np.array_equal(a, b), f'{where} differs'
    elif isinstance(a, dict):
        assert list(a) == list(b), f'{where}: {list(a)} is not {list(b)}'
        for k in a:
            same(a[k], b[k], f'{where}.{k}')
    elif hasattr(a, '__dataclass_fields__') and not isinstance(a, str):
        for f in fields(a):
            same(getattr(a, f.name), getattr(b, f.name), f'{where}.{f.name}')
    else:
        assert a == b, f'{where}: {a} is not {b}'


@pytest.mark.parametrize('format', ['csv', 'parquet'])
def test_reading_the_files_gives_the_identical_survey(careless_world, tmp_path, format):
    s = careless_world.survey
    folder = write_synthetic(careless_world, tmp_path / 'new', format, block=70)
    r = read_survey(folder, folder / 'codebook.yaml')
    assert set(r.sources) == {f'employees.{format}', 'design.csv'}
    for f in fields(s):
        if f.name != 'sources':
            same(getattr(s, f.name), getattr(r, f.name), f.name)


def test_one_seed_one_survey_and_another_seed_another():
    a, b, c = (make_synthetic(n_employees=100, seed=k) for k in (1, 1, 2))
    same(a.survey, b.survey, 'survey')
    assert np.array_equal(a.truth.logit, b.truth.logit)
    assert not np.array_equal(a.survey.features['fit_1'], c.survey.features['fit_1'])


def test_effect_knobs_leave_every_feature_as_it_is():
    a = make_synthetic(n_employees=200).survey
    b = make_synthetic(n_employees=200, own=0.0, context=0.0, contagion=0.0, taste_latent=0.0, base_rate=0.4).survey
    same(a.features, b.features, 'features'), same(a.relations, b.relations, 'relations')


@pytest.mark.parametrize(
    'knobs',
    [
        dict(n_employees=2),
        dict(n_employees=7, firm_size=(1, 1)),
        dict(n_employees=40, firm_size=(40, 40)),
        dict(n_employees=60, base_rate=0.001),
        dict(n_employees=60, base_rate=0.99, contagion=6.0),
        dict(n_employees=50, careless=0.99),
    ],
)
def test_extreme_knobs_give_finite_truths(knobs):
    s = make_synthetic(**knobs)
    t, n = s.truth, s.survey.n
    assert abs(t.turnover.mean() - s.config.base_rate) < 1e-9
    for p in (t.turnover_given(np.ones(n, bool)), t.choice(np.ones(7 * n, bool))):
        assert ((p > 0) & (p < 1)).all()
    assert np.array_equal(s.survey.relations['employer'].edges[1], t.firm)


def test_large_steps_of_taste_stay_finite():
    t = make_synthetic(n_employees=30, taste_latent=9.0, taste_observed=90.0).truth
    p = t.second_post(np.ones(210, bool))
    assert np.isfinite(p).all() and ((p >= 0) & (p <= 1)).all()


def test_context_sees_colleagues_and_never_oneself():
    s = make_synthetic(n_employees=200, own=0.0, interaction=0.0, contagion=0.0, context=1.0, firm_size=(4, 4))
    c, f = s.truth.parts['context'], s.survey.features
    pay, fit = f.pay_band.to_numpy(), f[[f'fit_{j}' for j in range(1, 6)]].mean(axis=1).to_numpy()
    others = lambda v: np.array(
        [v[(s.truth.firm == s.truth.firm[i]) & (np.arange(200) != i)].mean() for i in range(200)]
    )
    z = lambda v: (v - v.mean()) / v.std()
    assert np.allclose(c, z(-0.8 * z(others(fit)) + 0.6 * z(others(pay))))


def test_managers_work_in_the_same_firm_and_form_no_circle():
    s = make_synthetic(n_employees=400)
    e, m = s.survey.relations['manager'].edges
    assert (s.truth.firm[e] == s.truth.firm[m]).all() and len(np.unique(e)) == len(e) and np.bincount(m).max() <= 4
    boss = np.arange(400)
    boss[e] = m
    for _ in range(10):
        boss = boss[boss]
    assert len(np.unique(boss)) == len(np.unique(s.truth.firm))


def test_attentive_probability_against_adaptive_quadrature():
    g = np.random.default_rng(0)
    x = draw_facts(draw_firms(60, (2, 15), g), g)
    x |= draw_items(x, np.arange(60) < 30, g, g)
    match, means = skills_of_position(x), factor_means(x)

    def loglike(f, i, factor):  # of person i's answers to the items of a factor, against uniform ones
        (stems, loading), out = BATTERIES[factor], 0.0
        for stem in stems:
            for j, c in enumerate(cuts(stem)):
                at = loading * f + (SHIFT * match[i, j] if factor == 'work' else 0)
                cells = np.diff(ndtr((np.concatenate([[-np.inf], c, [np.inf]]) - at) / np.sqrt(1 - loading**2)))
                out += np.log(cells[int(x[f'{stem}_{j + 1}'][i]) - 1] * (len(c) + 1))
        return out

    def evidence(i, factor):
        top = max(loglike(f, i, factor) for f in np.linspace(-4, 4, 81))
        prior = lambda f: np.exp(-0.5 * ((f - means[factor][i]) / FACTOR_SD) ** 2) / (FACTOR_SD * np.sqrt(2 * np.pi))
        return top + np.log(quad(lambda f: np.exp(loglike(f, i, factor) - top) * prior(f), -6, 6, limit=200)[0])

    for i in (0, 31, 47):  # careless, attentive, attentive
        odds = sum(evidence(i, factor) for factor in BATTERIES)
        share = 1 / (1 + np.exp(-odds - 0.5))  # a prior that brings the posterior log-odds to -.5
        assert abs(attentive_probability(x, share)[i] - 1 / (1 + np.exp(0.5))) < 1e-6


def test_careless_people_flip_coins_and_the_truth_knows_them():
    t = make_synthetic(n_employees=4_000, careless=0.3).truth
    who = t.hidden['careless']
    assert abs(t.chosen[who].mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(who.sum())
    assert roc_auc_score(~who, t.attentive) > 0.98
    assert abs(np.sum(~who - t.attentive) / np.sqrt(np.sum(t.attentive * (1 - t.attentive)))) < 3.5


def gap_and_se(got, want):
    "Mean difference of simulated and computed scores, and its standard error"
    d = np.subtract(got, want)
    return d.mean(0), d.std(0) / np.sqrt(len(d))


def test_turnover_scores_agree_with_brute_force_to_three_digits():
    # no label known: the ranking is the same in all worlds, so one sort serves many
    # benchmarks/truth.py does it with known labels
    t = make_synthetic(n_employees=200_000, seed=3).truth
    t = replace(t, advantage=np.zeros((t.n, 0)), taste=np.zeros((0, 2)))  # no choices to draw
    order = np.argsort(-t.turnover)
    p, rank, got = t.turnover[order], np.arange(1, t.n + 1), []
    for w in simulate(t, 100, np.random.default_rng(1)):
        y = w.label[order]
        hits, pos = np.cumsum(y), y.sum()
        got.append(
            [
                (hits / rank * y).sum() / pos,
                1 - ((rank - hits) * y).sum() / (pos * (t.n - pos)),
                np.mean((p > 0.5) == y),
                -np.where(y > 0, np.log(p), np.log1p(-p)).mean(),
            ]
        )
    s = expected_scores(t.turnover)
    gap, se = gap_and_se(got, [s[k] for k in ('aupr', 'auroc', 'accuracy', 'log_loss')])
    assert (se < 0.0003).all() and (abs(gap) < 0.0008).all(), (gap, se)


def test_scores_given_known_labels_agree_with_brute_force():
    t, got, want = make_synthetic(n_employees=10_000, seed=3).truth, [], []
    known = np.arange(t.n) % 5 > 0
    for w in simulate(t, 20, np.random.default_rng(1)):
        p, y = w.turnover_given(known)[~known], w.label[~known]
        got.append([average_precision_score(y, p), roc_auc_score(y, p), log_loss(y, p)])
        s = expected_scores(p)
        want.append([s[k] for k in ('aupr', 'auroc', 'log_loss')])
    assert w.scores(~known, known)['turnover'] == s
    gap, se = gap_and_se(got, want)
    assert (se < [0.007, 0.003, 0.005]).all() and (abs(gap) < 4 * se).all(), (gap, se)


@pytest.mark.parametrize('careless', [0.0, 0.4])
def test_preference_scores_agree_with_brute_force(careless):
    t = make_synthetic(n_employees=2_000, seed=4, careless=careless).truth
    known, cold, got, want = np.tile(np.arange(7) < 3, t.n), t.second_post(), [], []
    for w in simulate(t, 8, np.random.default_rng(2)):
        p, c = w.second_post(known)[:, 3:].ravel(), w.chosen[:, 3:].ravel()
        s, d = expected_scores(p), expected_scores(cold.ravel())
        got.append(
            [
                np.mean((p > 0.5) == c),
                log_loss(c, p),
                np.mean((cold > 0.5) == w.chosen),
                log_loss(w.chosen.ravel(), cold.ravel()),
            ]
        )
        want.append([s['accuracy'], s['log_loss'], d['accuracy'], d['log_loss']])
    gap, se = gap_and_se(got, want)
    assert (se < 0.004).all() and (abs(gap) < 4 * se + 0.0005).all(), (gap, se)


def test_a_model_with_the_true_probabilities_reaches_the_scores_and_no_distortion_exceeds_them():
    s = make_synthetic(n_employees=60_000, seed=6)
    t, test, known = s.truth, np.arange(60_000) % 5 == 0, np.arange(60_000) % 5 > 0
    best, p, y = t.scores(test, known)['turnover'], t.turnover_given(known)[test], s.survey.turnover[test]
    assert abs(average_precision_score(y, p) - best['aupr']) < 0.02 and abs(roc_auc_score(y, p) - best['auroc']) < 0.01
    assert abs(log_loss(y, p) - best['log_loss']) < 0.01
    for worse in (
        t.turnover[test],
        t.parts['own'][test],
        t.logit[test] - t.parts['context'][test],
    ):  # less knowledge, lower score
        assert average_precision_score(y, worse) < average_precision_score(y, p)


def test_no_import_of_torch():
    code = 'import sys, turnover_nb.synthetic.world as _; assert not {"torch", "sklearn"} & set(sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr == ''


def test_tiny_worlds_have_both_classes():
    assert all(3 <= tiny_world(k).survey.turnover.sum() <= 20 for k in range(20))
