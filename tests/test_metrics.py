"Metrics against independent recomputation: scikit-learn, brute force over thresholds, loops over situations"

import json
import subprocess
import sys
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from turnover_nb.evaluate.bootstrap import bootstrap, draw_weights
from turnover_nb.evaluate.calibration import reliability_curve
from turnover_nb.evaluate.preference import choice_probability, preference_metrics
from turnover_nb.evaluate.turnover import best_threshold, turnover_metrics, weighted_ranking, weighted_threshold


def sample(seed, n=80, digits=2):
    "Labels and probabilities with ties"
    rng = np.random.default_rng(seed)
    p = rng.random(n).round(digits)
    return (rng.random(n) < p) * 1.0, p, rng


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('digits', [1, 6])
def test_values_are_scikit_learns(seed, digits):
    y, p, rng = sample(seed, digits=digits)
    m = {k: v['value'] for k, v in turnover_metrics(y, p, threshold=0.4, n_boot=0, rng=rng).items()}
    hit = p >= 0.4
    want = dict(
        aupr=sk.average_precision_score(y, p),
        auroc=sk.roc_auc_score(y, p),
        f1=sk.f1_score(y, hit),
        precision=sk.precision_score(y, hit),
        recall=sk.recall_score(y, hit),
        f1_50=sk.f1_score(y, p >= 0.5),
        brier=sk.brier_score_loss(y, p),
        log_loss=sk.log_loss(y, p),
        base_rate=y.mean(),
        n=80,
        n_people=80,
        positives=y.sum(),
        threshold=0.4,
    )
    assert {k: m[k] for k in want} == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize('digits', [1, 6])
def test_weighted_forms_are_sample_weight(digits):
    y, p, rng = sample(3, digits=digits)
    w = draw_weights(80, 30, rng)
    roc, ap = weighted_ranking(y, p, w)
    f1, precision, recall = weighted_threshold(y, p, w, 0.5)
    for i, v in enumerate(w):
        kw = dict(sample_weight=v)
        assert [roc[i], ap[i]] == pytest.approx(
            [sk.roc_auc_score(y, p, **kw), sk.average_precision_score(y, p, **kw)], abs=1e-12
        )
        want = [g(y, p >= 0.5, **kw) for g in (sk.f1_score, sk.precision_score, sk.recall_score)]
        assert [f1[i], precision[i], recall[i]] == pytest.approx(want, abs=1e-12)


def test_bootstrap_by_person_is_a_loop_over_resampled_people():
    "The vectorised interval against scikit-learn called on the very rows of each draw"
    rng = np.random.default_rng(0)
    person = rng.integers(0, 25, 90)
    y, p, _ = sample(1, 90)
    fast = turnover_metrics(y, p, threshold=0.5, person=person, n_boot=60, rng=np.random.default_rng(9))
    codes, names = pd.factorize(person)
    w = draw_weights(len(names), 60, np.random.default_rng(9))
    slow = []
    for v in w:
        rows = np.concatenate([np.flatnonzero(codes == i) for i in np.repeat(np.arange(len(names)), v.astype(int))])
        slow.append([sk.average_precision_score(y[rows], p[rows]), sk.log_loss(y[rows], p[rows])])
    for k, col in zip(('aupr', 'log_loss'), np.array(slow).T):
        assert [fast[k]['low'], fast[k]['high']] == pytest.approx(np.quantile(col, [0.025, 0.975]), abs=1e-9)


def test_scores_depend_on_ranks_alone_and_not_on_row_order():
    y, p, rng = sample(2)
    order = rng.permutation(80)
    go = lambda y, p: turnover_metrics(y, p, threshold=0.5, n_boot=0, rng=rng)
    assert go(y, p)['auroc'] == go(y, p**3)['auroc'] and go(y, p)['aupr'] == go(y, p**3)['aupr']
    assert go(y, p)['brier']['value'] == pytest.approx(go(y[order], p[order])['brier']['value'], abs=1e-12)
    assert go(1 - y, 1 - p)['auroc']['value'] == pytest.approx(go(y, p)['auroc']['value'], abs=1e-12)


def test_same_generator_same_interval_other_generator_other_interval():
    y, p, _ = sample(4)
    go = lambda s: turnover_metrics(y, p, threshold=0.5, n_boot=100, rng=np.random.default_rng(s))
    assert go(1) == go(1) and go(1)['aupr'] != go(2)['aupr'] and go(1)['aupr']['value'] == go(2)['aupr']['value']


@pytest.mark.parametrize(
    'y, p, none',
    [
        ([0] * 9, [0.2] * 9, {'aupr', 'auroc', 'f1', 'f1_50', 'precision', 'precision_50', 'recall', 'recall_50'}),
        ([1] * 9, [0.2] * 9, {'aupr', 'auroc', 'precision', 'precision_50'}),
        ([0] * 8 + [1], [0.7] * 9, set()),
        (
            [],
            [],
            {
                'aupr',
                'auroc',
                'f1',
                'f1_50',
                'precision',
                'precision_50',
                'recall',
                'recall_50',
                'brier',
                'ece',
                'log_loss',
                'base_rate',
            },
        ),
    ],
)
def test_what_does_not_exist_is_null(y, p, none):
    m = turnover_metrics(y, p, threshold=0.3, n_boot=50, rng=np.random.default_rng(0))
    assert {k for k, v in m.items() if v['value'] is None} == none
    assert all(v['low'] is None and v['high'] is None for v in m.values() if v['value'] is None)
    assert json.loads(json.dumps(m, allow_nan=False)) == m


def test_one_positive_has_values_but_no_interval():
    "A third of the draws have no leaver"
    m = turnover_metrics(
        [1] + [0] * 30, np.linspace(0.9, 0.1, 31), threshold=0.5, n_boot=400, rng=np.random.default_rng(0)
    )
    assert m['auroc'] == dict(value=1.0, low=None, high=None) and m['brier']['low'] is not None


def test_one_person_has_no_interval():
    m = turnover_metrics(
        [0, 1, 1], [0.1, 0.5, 0.7], threshold=0.5, person=['a'] * 3, n_boot=50, rng=np.random.default_rng(0)
    )
    assert m['brier']['value'] is not None and m['brier']['low'] is None and m['n_people']['value'] == 1


def test_extreme_probabilities_stay_finite():
    m = turnover_metrics([0, 1, 1, 0], [0.0, 1.0, 0.0, 1.0], threshold=0.5, n_boot=20, rng=np.random.default_rng(0))
    assert m['log_loss']['value'] == pytest.approx(sk.log_loss([0, 1, 1, 0], [0.0, 1.0, 0.0, 1.0])) and np.isfinite(
        m['log_loss']['high']
    )


@pytest.mark.parametrize('seed', range(30))
def test_threshold_against_brute_force(seed):
    y, p, _ = sample(seed, 25, 1)
    if not 0 < y.sum() < 25:
        pytest.skip('one class')
    f1 = {t: sk.f1_score(y, p >= t) for t in np.unique(p)}
    best = max(f1.values())
    lowest_hit = max(t for t in f1 if f1[t] == pytest.approx(best, abs=1e-12))
    t = best_threshold(y, p)
    assert sk.f1_score(y, p >= t) == pytest.approx(best, abs=1e-12) and ((p >= t) == (p >= lowest_hit)).all()


def test_threshold_between_neighbouring_floats():
    a = 0.3
    b = np.nextafter(a, 1)
    assert (np.array([a, b]) >= best_threshold([0, 1], [a, b])).tolist() == [False, True]


def test_calibration_error_by_a_loop():
    y, p, rng = sample(6, 200, 6)
    order = np.argsort(p)
    parts = np.array_split(order, 10)  # 200 distinct values: ten bins of twenty
    want = sum(len(i) / 200 * abs(y[i].mean() - p[i].mean()) for i in parts)
    assert turnover_metrics(y, p, threshold=0.5, n_boot=0, rng=rng)['ece']['value'] == pytest.approx(want, abs=1e-12)
    c = reliability_curve(y, p)
    assert (c.n == 20).all() and (c.n * abs(c.observed - c.predicted)).sum() / 200 == pytest.approx(want, abs=1e-12)


def test_calibration_interval_excludes_zero_for_a_miscalibrated_model():
    rng = np.random.default_rng(0)
    p = rng.random(2000) * 0.5
    y = (rng.random(2000) < p) * 1.0
    go = lambda q: turnover_metrics(y, q, threshold=0.5, n_boot=200, rng=np.random.default_rng(1))['ece']
    assert go(p)['low'] == 0 and go(p + 0.3)['low'] > 0.2


def ragged(seed, S=60):
    "Situations of two to five alternatives, tied utilities, some unavailable"
    rng = np.random.default_rng(seed)
    size = rng.integers(2, 6, S)
    ptr = np.r_[0, size.cumsum()]
    u, chosen, free = rng.integers(0, 4, ptr[-1]) * 1.0, np.zeros(ptr[-1], bool), np.ones(ptr[-1], bool)
    for a, b in zip(ptr[:-1], ptr[1:]):
        c, other = rng.choice(np.arange(a, b), 2, replace=False)
        chosen[c] = True
        free[a:b] = rng.random(b - a) < 0.7
        free[[c, other]] = True
    return u, ptr, chosen, free, rng.integers(0, 20, S), rng


@pytest.mark.parametrize('seed', range(3))
def test_preference_by_a_loop_over_tie_breaking_orders(seed):
    u, ptr, chosen, free, person, rng = ragged(seed)
    got = preference_metrics(u, ptr, chosen, free, person, n_boot=0, rng=rng)
    want = {}
    for a, b in zip(ptr[:-1], ptr[1:]):
        v, c = u[a:b][free[a:b]], int(np.flatnonzero(chosen[a:b][free[a:b]])[0])
        others = np.delete(v, c)
        above, tied = (v > v[c]).sum(), (v == v[c]).sum()
        ranks = np.arange(above + 1, above + tied + 1)
        for k, x in dict(
            accuracy=(ranks == 1).mean(),
            mrr=(1 / ranks).mean(),
            top_2=(ranks <= 2).mean(),
            margin=v[c] - others.max(),
            auc=((others < v[c]) + 0.5 * (others == v[c])).mean(),
            log_loss=-np.log(np.exp(v[c]) / np.exp(v).sum()),
        ).items():
            want.setdefault(k, []).append(x)
    assert {k: got[k]['value'] for k in want} == pytest.approx({k: np.mean(v) for k, v in want.items()}, abs=1e-12)


def test_preference_interval_is_by_person():
    "Answers copied within people add nothing: the interval must not shrink"
    u, ptr, chosen, free, person, _ = ragged(5)
    S = len(person)
    go = lambda k: preference_metrics(
        np.tile(u, k),
        np.r_[0, np.tile(np.diff(ptr), k).cumsum()],
        np.tile(chosen, k),
        np.tile(free, k),
        np.tile(person, k),
        n_boot=200,
        rng=np.random.default_rng(0),
    )
    one, four = go(1), go(4)
    for k in ('accuracy', 'log_loss', 'mrr', 'auc_pooled'):
        assert list(one[k].values()) == pytest.approx(list(four[k].values()), abs=1e-9)
    assert four['n_situations']['value'] == 4 * S and four['n_people'] == one['n_people']


def test_choice_probability_is_a_softmax_and_safe_for_large_utilities():
    p = choice_probability(np.array([1e5, 1e5 + 1, 7.0]), np.array([0, 3]), np.array([True, True, False]))
    assert p == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e), 0])


def test_bootstrap_of_nobody_is_empty():
    assert bootstrap(lambda w: {'x': w.sum(1)}, 1, 10, np.random.default_rng(0)) == {}


def test_import_is_light():
    "No model library is loaded by importing the metrics"
    code = "import sys, turnover_nb.evaluate.metrics; print([m for m in ('torch', 'sklearn', 'xgboost', 'matplotlib') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
    )
