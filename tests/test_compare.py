"""Comparisons against independent computation, hand-made sweeps whose answers are known, and simulated surveys in which nobody is better."""

import importlib.util
import itertools
import json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from scipy import stats
from sklearn import metrics as sk
from turnover_nb.runs.collect import Runs
from turnover_nb.evaluate.compare import BETTER, SAME, UNKNOWN, WORSE, bootstrap_difference, compare_frames, correlated_bayes, detectable, holm, nadeau_bengio, power, random_order_aupr, verdict, verdict_text
from turnover_nb.evaluate.variance import variance_components, variance_parts
from turnover_nb.runs.pairs import comparable, compare, unit_values, variance_table
from turnover_nb.evaluate.bootstrap import draw_weights
from turnover_nb.runs.run import Results

spec = importlib.util.spec_from_file_location(
    "simulated_comparisons", Path(__file__).parent / "benchmarks" / "compare.py"
)
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)
D = np.array([0.031, 0.054, -0.021, 0.060, 0.018, 0.027])


# ---- tests over splits


@pytest.mark.parametrize("rho", [0, 0.1, 0.2, 0.5])
def test_test_and_posterior_are_least_squares_with_correlated_differences(rho):
    "d ~ N(μ1, σ²Σ), Σ = (1−ρ)I + ρ11ᵀ: the generalised least squares estimate of μ and its standard error, by matrices"
    J, one = len(D), np.ones(len(D))
    S = np.linalg.inv((1 - rho) * np.eye(J) + rho * np.outer(one, one))
    mu = one @ S @ D / (one @ S @ one)
    se = np.sqrt((D - mu) @ S @ (D - mu) / (J - 1) / (one @ S @ one))
    t = mu / se
    r = nadeau_bengio(D, rho)
    q = stats.t.ppf(0.975, J - 1)
    assert [r[k] for k in ("mean", "se", "t", "p", "low", "high", "df")] == pytest.approx(
        [mu, se, t, 2 * stats.t.sf(abs(t), J - 1), mu - q * se, mu + q * se, J - 1], abs=1e-12
    )
    b = correlated_bayes(D, rho, 0.02)
    assert [b["worse"], b["rope"], b["better"]] == pytest.approx(
        np.diff(stats.t.cdf((np.array([-np.inf, -0.02, 0.02, np.inf]) - mu) / se, J - 1)), abs=1e-12
    )


def test_correction_uses_the_ratio_of_test_to_training_people():
    "100 test and 340 training people: variance (1/J + 100/340) s²"
    assert nadeau_bengio(D, 100 / 440)["se"] ** 2 == pytest.approx((1 / 6 + 100 / 340) * D.var(ddof=1), abs=1e-15)


def test_more_of_the_same_splits_cannot_convince():
    p = [nadeau_bengio(np.tile([0.05, -0.03, 0.02, 0.04, -0.01], k), 0.2)["p"] for k in (1, 10, 100, 1000)]
    assert min(p) > 0.1 and stats.ttest_1samp(np.tile([0.05, -0.03, 0.02, 0.04, -0.01], 1000), 0).pvalue < 1e-20


def test_signs_and_units():
    a, b, c = nadeau_bengio(D, 0.2), nadeau_bengio(-D, 0.2), nadeau_bengio(1000 * D, 0.2)
    assert (
        a["p"] == b["p"] == pytest.approx(c["p"], abs=1e-12)
        and b["low"] == -a["high"]
        and c["high"] == pytest.approx(1000 * a["high"])
    )
    x, y = correlated_bayes(D, 0.2, 0.01), correlated_bayes(-D, 0.2, 0.01)
    assert x["better"] == pytest.approx(y["worse"], abs=1e-12) and x["rope"] == pytest.approx(y["rope"], abs=1e-12)


@pytest.mark.parametrize("d", [[0.3], [0.3] * 10, [0.0] * 10, [0.1 + 0.2] + [0.3] * 9])
def test_nothing_to_test_is_none_and_never_nan(d):
    r, b = nadeau_bengio(d, 0.2), correlated_bayes(d, 0.2, 0.01)
    assert r["p"] is r["low"] is r["t"] is None and set(b.values()) == {None} and json.dumps([r, b], allow_nan=False)


@pytest.mark.parametrize(
    "f, says",
    [
        (lambda: nadeau_bengio([], 0.2), "0 differences"),
        (lambda: nadeau_bengio([0.1, None], 0.2), "1 of them undefined"),
        (lambda: nadeau_bengio(D, 1), "0 ≤ rho < 1"),
        (lambda: nadeau_bengio(D, -0.1), "rho = -0.1"),
        (lambda: correlated_bayes(D, 0.2, -0.01), "rope = -0.01"),
    ],
)
def test_bad_numbers_are_refused(f, says):
    with pytest.raises(ValueError, match=says):
        f()


def test_power_is_what_repeated_tests_find():
    "Differences drawn with the very correlation that the test assumes"
    J, rho, n = 8, 0.2, 4000
    rng = np.random.default_rng(0)
    e = 0.05 * (np.sqrt(1 - rho) * rng.normal(size=(n, J)) + np.sqrt(rho) * rng.normal(size=(n, 1)))
    for effect in (0, 0.04, 0.08):
        found = np.mean([nadeau_bengio(d, rho)["p"] < 0.05 for d in effect + e])
        assert found == pytest.approx(power(effect, 0.05 * np.sqrt(1 - rho), J, rho), abs=0.025), effect
    r = nadeau_bengio(D, rho)
    assert (
        power(detectable(r["se"], 5), r["sd"], 6, rho) == pytest.approx(0.8, abs=0.02) and detectable(None, 0) is None
    )


# ---- many comparisons


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04]) and holm([0.03, 0.01, 0.02]) == pytest.approx(
        [0.04, 0.03, 0.04]
    )
    assert (
        holm([0.02, None, 0.5]) == [0.04, None, 0.5]
        and holm([None]) == [None]
        and holm([0.9, 0.8]) == [1.0, 1.0]
        and holm([0.04]) == [0.04]
    )


def test_holm_is_the_closed_test_by_bonferroni():
    "p_adj(i) ≤ α exactly if every subset that holds i has a member below α over its size (closure principle): brute force over subsets"
    for seed in range(20):
        p = np.random.default_rng(seed).random(5) ** 3
        got = holm(list(p))
        sets = [s for k in range(1, 6) for s in itertools.combinations(range(5), k)]
        assert got == pytest.approx(
            [max(min(1, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(5)], abs=1e-12
        )


def test_holm_agrees_with_statsmodels():
    m = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(30) ** 4
    assert holm(list(p)) == pytest.approx(m.multipletests(p, method="holm")[1], abs=1e-12)


# ---- people


def test_tied_people_in_random_order_by_all_orders():
    y, p = np.array([1.0, 0, 1, 0, 0, 1]), np.array([0.5, 0.5, 0.5, 0.2, 0.2, 0.2])
    orders = [sk.average_precision_score(y, p - 1e-3 * np.array(o)) for o in itertools.permutations(range(6))]
    assert random_order_aupr(y, p, np.ones((1, 6)))[0] == pytest.approx(np.mean(orders), abs=1e-12)
    assert np.isnan(random_order_aupr(y, p, np.array([1 - y, y]))).all()  # one class only


def predictions(n, seed, signal=1.5, prefix="e", noise=1.0):
    "Turnover predictions of n people"
    rng = np.random.default_rng(seed)
    y = np.zeros(n)
    y[: n // 5] = 1
    p = 1 / (1 + np.exp(-(signal * y - 1.5 + noise * rng.normal(size=n))))
    return pd.DataFrame(
        dict(employee=[f"{prefix}{i}" for i in range(n)], label=y, score=p, probability=p, flag=(p > 0.3) * 1.0)
    )


def choices(people, seed, skill, tasks=3, prefix="e"):
    "Preference predictions: pairs, the chosen one first or second at random"
    rng = np.random.default_rng(seed)
    S = people * tasks
    chosen = np.random.default_rng(1).random(S) < 0.5
    u = np.where(chosen, skill, -skill) + rng.normal(size=S)
    two = lambda a, b: np.stack([a, b], 1).ravel()
    return pd.DataFrame(
        dict(
            employee=np.repeat([f"{prefix}{i // tasks}" for i in range(S)], 2),
            situation=np.repeat(np.arange(S), 2),
            score=two(u, 0 * u),
            label=two(chosen, ~chosen) * 1.0,
            available=True,
        )
    )


@pytest.mark.parametrize(
    "metric, f",
    [
        ("auroc", lambda d: sk.roc_auc_score(d.label, d.probability)),
        ("brier", lambda d: sk.brier_score_loss(d.label, d.probability)),
        ("log_loss", lambda d: sk.log_loss(d.label, d.probability)),
        ("f1", lambda d: sk.f1_score(d.label, d.flag)),
        ("aupr", lambda d: random_order_aupr(d.label.to_numpy(), d.probability.to_numpy(), np.ones((1, len(d))))[0]),
    ],
)
def test_paired_bootstrap_is_a_loop_over_drawn_people(metric, f):
    "Splits with different and overlapping people: one weight for a person in every split and in both models"
    part = [np.random.default_rng(s).permutation(60)[:40] for s in range(3)]
    a, b = ([predictions(60, 10 * m + s).iloc[part[s]] for s in range(3)] for m in (1, 2))
    got = bootstrap_difference(a, b, metric, n_boot=40, rng=np.random.default_rng(7))
    ids = np.unique(np.concatenate([d.employee for d in a]))
    slow = []
    for w in draw_weights(len(ids), 40, np.random.default_rng(7)).astype(int):
        drawn = lambda d: d.iloc[np.repeat(np.arange(len(d)), w[np.searchsorted(ids, d.employee)])]  # noqa: B023
        slow.append(np.mean([f(drawn(x)) - f(drawn(z)) for x, z in zip(a, b)]))
    assert [got["low"], got["high"]] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=1e-9) and got[
        "n_people"
    ] == len(ids)
    assert got["value"] == pytest.approx(np.mean([f(x) - f(z) for x, z in zip(a, b)]), abs=1e-12)


def test_preference_bootstrap_is_a_loop_over_drawn_people():
    a, b = choices(25, 3, 1.0), choices(25, 4, 0.3)
    got = bootstrap_difference([a], [b], "accuracy", 50, np.random.default_rng(7), "preference")
    hit = lambda d: (d.score.to_numpy().reshape(-1, 2).argmax(1) == d.label.to_numpy().reshape(-1, 2).argmax(1)) * 1.0
    d, ids = hit(a) - hit(b), np.unique(a.employee)
    who = np.searchsorted(ids, a.employee[::2])
    slow = [np.average(d, weights=w[who]) for w in draw_weights(25, 50, np.random.default_rng(7))]
    assert got["value"] == pytest.approx(d.mean()) and [got["low"], got["high"]] == pytest.approx(
        np.quantile(slow, [0.025, 0.975]), abs=1e-12
    )


def test_a_split_counted_twice_is_no_more_certain():
    a, b = predictions(80, 1), predictions(80, 2)
    go = lambda k: bootstrap_difference([a] * k, [b] * k, n_boot=100)
    assert go(1) == pytest.approx(go(5), abs=1e-12)


def test_pairs_must_be_pairs():
    a = predictions(40, 1)
    say = pytest.raises
    with say(ValueError, match="same people in split 0"):
        bootstrap_difference([a], [predictions(40, 1, prefix="x")])
    with say(ValueError, match="same people in split 0"):
        bootstrap_difference([a], [a.assign(label=a.label.to_numpy()[::-1])])
    with say(ValueError, match="same situations in split 0"):
        bootstrap_difference([choices(9, 1, 1)], [choices(9, 1, 1).iloc[2:]], "accuracy", task="preference")
    with say(ValueError, match="a has 1 splits, b has 2"):
        bootstrap_difference([a], [a, a])
    with say(ValueError, match="unknown metric 'margin'"):
        bootstrap_difference([a], [a], "margin")
    assert bootstrap_difference([a], [a.iloc[::-1]], n_boot=20)["value"] == pytest.approx(
        0, abs=1e-12
    )  # another order is no other people


# ---- verdicts


@pytest.mark.parametrize(
    "args, word",
    [
        ((0.1, 0.01, 0.02, 0.2, 0.1), BETTER),
        ((-0.1, 0.01, -0.2, -0.02, 0.1), WORSE),
        ((0.1, 0.05, 0.02, 0.2, 0.1), UNKNOWN),
        ((0.1, 0.01, -0.02, 0.2, 0.1), UNKNOWN),
        ((0.1, 0.01, -0.2, -0.02, 0.1), UNKNOWN),
        ((0.1, 0.01, None, None, 0.1), UNKNOWN),
        ((0.1, None, 0.02, 0.2, None), UNKNOWN),
        ((0.001, 0.3, -0.002, 0.004, 0.95), SAME),
        ((0.001, 0.001, 0.0005, 0.002, 0.99), SAME),
        ((None, None, None, None, None), UNKNOWN),
        ((0.1, 0.01, 0.02, 0.2, 0.9499), BETTER),
    ],
)
def test_verdicts(args, word):
    assert verdict(*args) == word


def surveys(J=10, n=300, **signals):
    "Frames of J overlapping hold-outs for models of given signal"
    part = [np.sort(np.random.default_rng(j).permutation(n)[: n // 3]) for j in range(J)]
    return {v: [predictions(n, 100 * i, s).iloc[k] for k in part] for i, (v, s) in enumerate(signals.items())}


@pytest.mark.parametrize("metric", ["aupr", "auroc", "f1", "brier", "ece", "log_loss"])
def test_better_means_better_whichever_way_the_metric_goes(metric):
    t, r = (
        compare_frames(surveys(weak=0.0, strong=5.0), reference, 0.3, metric=metric, n_boot=200, rope=0.0).iloc[0]
        for reference in ("weak", "strong")
    )
    if metric != "ece":
        assert (t.verdict, r.verdict) == (BETTER, WORSE)
    assert (
        r.difference == pytest.approx(-t.difference)
        and (t.p_better > 0.5) == (r.p_worse > 0.5)
        and t.superiority == pytest.approx(1 - r.superiority)
    )
    assert (t.difference > 0) == ((metric not in ("brier", "ece", "log_loss")) == (t.p_better > 0.5))


def test_holm_is_over_the_tables_comparisons():
    t = compare_frames(surveys(reference=1.0, a=1.2, b=1.6, c=2.0), "reference", 0.3, n_boot=50)
    assert (
        t.p_holm.tolist() == pytest.approx(holm(t.p.tolist()))
        and (t.p_holm >= t.p).all()
        and t.variant.tolist() == ["a", "b", "c"]
    )


def test_one_split_run_many_times_is_one_split():
    f = surveys(a=0.0, b=6.0)
    one = {v: [d[0]] * 8 for v, d in f.items()}
    t = compare_frames(one, "a", 0.3, splits=["s"] * 8, n_boot=200).iloc[0]
    assert (
        (t.splits, t.p, t.p_holm, t.verdict, t.note) == (1, None, None, UNKNOWN, "no test with a single split")
        and t.person_low > 0
        and t.superiority == 1
    )
    t = compare_frames(one, "a", 0.3, n_boot=200).iloc[0]  # even if nobody says that they coincide
    assert (t.p, t.verdict, t.note) == (None, UNKNOWN, "the same difference in every split: no test")
    mixed = {v: d[:3] + [d[2]] * 5 for v, d in f.items()}
    t = compare_frames(mixed, "a", 0.3, splits=[0, 1, 2] + [2] * 5, n_boot=50).iloc[0]
    u = compare_frames({v: d[:3] for v, d in f.items()}, "a", 0.3, n_boot=50).iloc[0]
    same = ["difference", "p", "person_low", "value", "reference_value"]
    assert t.splits == 3 and t[same].tolist() == pytest.approx(u[same].tolist(), abs=1e-12)


def test_no_nan_is_ever_in_a_table_or_a_sentence():
    f = surveys(a=0.0, b=1.0)
    f["twin"] = f["a"]
    f["silent"] = [d.assign(flag=0.0) for d in f["b"]]
    for kw in (dict(), dict(metric="precision"), dict(n_boot=0), dict(splits=[0] * 10)):
        t = compare_frames(f, "a", 0.3, **({"n_boot": 50} | kw))
        rows = t.to_dict("records")
        assert json.loads(json.dumps(rows, allow_nan=False, default=lambda x: x.item())) and not any(
            "nan" in verdict_text(r).lower() for _, r in t.iterrows()
        )
    assert (
        verdict_text(compare_frames(f, "a", 0.3, metric="precision", n_boot=50).iloc[2])
        == "silent and a: no evidence of a difference in precision (undefined in 10 of 10 splits)"
    )
    t = compare_frames(f, "a", 0.3, n_boot=0)
    assert (
        t.note[0] == "no interval by person"
        and t.person_low[0] is None
        and t.p[1] is None
        and t.difference.dtype == float
    )
    assert (
        "nan" not in verdict_text(pd.DataFrame(t.to_dict("list")).astype(dict(p_holm=float)).iloc[1]).lower()
    )  # as read back from a CSV file


def test_sentences_say_what_the_row_says():
    row = dict(
        variant="b",
        reference="a",
        metric="aupr",
        difference=-0.05,
        low=-0.08,
        high=-0.02,
        person_low=-0.09,
        person_high=-0.01,
        p_holm=0.003,
        p_rope=0.01,
        rope=0.01,
        splits=10,
        verdict=WORSE,
        note="",
        detectable=0.04,
    )
    assert (
        verdict_text(row, "v6 two-stage", "logistic (L2)", "AUPR")
        == "v6 two-stage is worse than logistic (L2) in AUPR by 0.050 [0.020, 0.080] (10 splits, Holm p .003; by person [0.010, 0.090])"
    )
    assert (
        verdict_text(row | dict(metric="log_loss", verdict=BETTER, p_holm=1e-9))
        == "b is better than a in log_loss by 0.050 [0.020, 0.080] (10 splits, Holm p < .001; by person [0.010, 0.090])"
    )
    assert verdict_text(row | dict(verdict=UNKNOWN, p_holm=0.4, low=-0.11, high=0.01)) == (
        "b and a: no evidence of a difference in aupr, -0.050 [-0.110, 0.010] (10 splits, Holm p .400; "
        "a true difference of 0.040 would have been found with about 80 % probability)"
    )
    alike = row | dict(verdict=SAME, p_rope=0.97, difference=0.001, low=-0.002, high=0.004)
    assert (
        verdict_text(alike)
        == "b and a are practically equivalent in aupr: P = 0.970 that they differ by less than 0.01; difference 0.001 [-0.002, 0.004] (10 splits, Holm p .003)"
    )
    assert "(1 split; no test with a single split)" in verdict_text(
        row
        | dict(
            verdict=UNKNOWN,
            splits=1,
            low=None,
            high=None,
            p_holm=None,
            detectable=None,
            note="no test with a single split",
        )
    )


# ---- sweeps


def estimate(v):
    return dict(value=v, low=None, high=None)


@pytest.fixture
def sweep(tmp_path):
    "Runs from a list of (variant, model, seed, fold, preference protocol, turnover frame, preference frame)"

    def make(*runs, n_train=340, n_test=100):
        results, paths = [], []
        for variant, model, seed, fold, protocol, turnover, choice in runs:
            p = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            p.mkdir()
            d = [
                x.assign(task=t, phase="test")
                for t, x in (("turnover", turnover), ("preference", choice))
                if x is not None
            ]
            pd.concat(d, ignore_index=True).to_parquet(p / "predictions.parquet")
            paths.append(p)
            results.append(
                Results(
                    variant=variant,
                    model=model,
                    seed=seed,
                    split=dict(
                        protocol="holdout" if fold is None else "kfold",
                        fold=fold,
                        n_train=n_train,
                        n_valid=60,
                        n_test=n_test,
                    ),
                    data=dict(name="made up", synthetic=True, employees=500, sources={}),
                    turnover=None if turnover is None else dict(threshold=estimate(0.3)),
                    preference=None if choice is None else dict(protocol=protocol, n_known=0, metrics={}),
                    bayes=None,
                    facts={},
                    audit={},
                )
            )
        return Runs(tmp_path, {}, results, paths)

    return make


def some(seed, signal, prefix=None):
    return predictions(100, seed, signal, prefix=prefix or f"{seed}_").drop(columns="flag")


def test_a_sweep_is_paired_by_seed_and_fold(sweep):
    "Whatever the order of the runs; an unlabelled person takes no part; the test is that of the shares of people"
    frames = {
        (v, s, f): some(10 * i + s + 2 * f, 1.0 + i, f"{s}_{f}_")
        for i, v in enumerate(("a", "b"))
        for s in range(2)
        for f in range(3)
    }
    extra = pd.DataFrame(dict(employee=["unknown"], label=[np.nan], score=[0.9], probability=[0.9]))
    runs = sweep(
        *[
            (v, "v5", s, f, "cold", pd.concat([d, extra]), None)
            for (v, s, f), d in sorted(
                frames.items(), key=lambda x: (x[0][0], x[0][1:] if x[0][0] == "a" else (-x[0][1], -x[0][2]))
            )
        ]
    )
    aupr = lambda *at: sk.average_precision_score(frames[at].label, frames[at].probability)
    t = compare(runs, "a", n_boot=60).iloc[0]
    d = np.array([aupr("b", s, f) - aupr("a", s, f) for s in range(2) for f in range(3)])
    r = nadeau_bengio(d, 100 / 440)
    assert [t.difference, t.p, t.low, t.high, t.d_z] == pytest.approx(
        [r["mean"], r["p"], r["low"], r["high"], r["mean"] / r["sd"]], abs=1e-12
    )
    f1 = compare(runs, "a", metric="f1", n_boot=0).iloc[0]
    assert f1.value == pytest.approx(
        np.mean([sk.f1_score(x.label, x.score >= 0.3) for (v, _, _), x in frames.items() if v == "b"])
    )


def test_what_cannot_be_paired_is_refused_by_name(sweep):
    runs = sweep(
        ("a", "v5", 0, None, "cold", some(0, 1.0), None),
        ("a", "v5", 1, None, "cold", some(1, 1.0), None),
        ("b", "v5", 0, None, "cold", some(0, 2.0), None),
    )
    with pytest.raises(ValueError, match="1 runs have no partner to be compared with, missing: b seed 1"):
        compare(runs, "a")
    with pytest.raises(ValueError, match="reference 'c' has no turnover results; there are a, b"):
        compare(runs, "c")
    with pytest.raises(ValueError, match=r"reference 'a' has no preference results \(warm\); there are none"):
        compare(runs, "a", "preference", protocol="warm")
    two = lambda other: sweep(
        ("a", "v5", 0, None, "cold", some(0, 1.0), None), ("b", "v5", 0, None, "cold", some(other, 2.0), None)
    )
    with pytest.raises(ValueError, match="unknown metric 'auprc'; expected one of aupr"):
        compare(two(0), "a", metric="auprc")
    with pytest.raises(ValueError, match="b and a were not tested on the same people in split 0"):
        compare(two(1), "a")
    with pytest.raises(ValueError, match="a: two runs of seed 0 fold 2"):
        compare(sweep(*[("a", "v5", 0, 2, "cold", some(0, 1.0), None)] * 2), "a")


def test_cold_and_warm_runs(sweep):
    runs = sweep(
        *[
            (v + w, v, s, None, "warm" if w else "cold", some(s, 1.0 + k), choices(40, 10 * s + k + len(w), k))
            for k, v in enumerate(("majority", "v5"))
            for w in ("", "_warm")
            for s in range(3)
        ]
    )
    assert comparable(runs, "turnover") == ["majority", "v5"] and comparable(runs, "preference", "warm") == [
        "majority_warm",
        "v5_warm",
    ]
    assert compare(runs, "majority", n_boot=50).variant.tolist() == ["v5"]
    t = compare(runs, "majority", "preference", protocol="warm", n_boot=50).iloc[0]
    assert (t.variant, t.reference, t.metric, t.verdict) == ("v5_warm", "majority_warm", "accuracy", UNKNOWN)
    d = [unit_values(runs, v, "preference").value.to_numpy() for v in ("v5_warm", "majority_warm")]
    assert t.difference == pytest.approx((d[0] - d[1]).mean()) and t.note == "no test with a single split"


def test_a_time_split_with_many_seeds_is_one_split(sweep):
    runs = sweep(
        *[
            (v, v, s, None, "cold", predictions(100, s + 7 * k, 3.0 * k).drop(columns="flag"), None)
            for k, v in enumerate(("v5", "hgt"))
            for s in range(6)
        ]
    )
    t = compare(runs, "v5", n_boot=100).iloc[0]
    assert (t.splits, t.p, t.verdict) == (1, None, UNKNOWN) and t.person_low > 0


# ---- variance


def test_components_are_restricted_maximum_likelihood():
    "In a balanced table the ANOVA estimates, where positive, maximise the residual likelihood: by numerical search"
    from scipy.optimize import minimize

    rng = np.random.default_rng(5)
    x = rng.normal(0, 2, (6, 1)) + rng.normal(0, 1, (6, 4))
    v = variance_components(x)

    def minus(log):
        s, e = np.exp(log)
        between, within = 4 * ((x.mean(1) - x.mean()) ** 2).sum(), ((x - x.mean(1, keepdims=True)) ** 2).sum()
        return 5 * np.log(4 * s + e) + between / (4 * s + e) + 18 * np.log(e) + within / e

    assert [v["split_sd"] ** 2, v["seed_sd"] ** 2] == pytest.approx(
        np.exp(minimize(minus, [0, 0], method="Nelder-Mead", options=dict(xatol=1e-9, fatol=1e-12, maxiter=4000)).x),
        rel=1e-4,
    )


def test_the_interval_of_the_share_holds_it():
    rng = np.random.default_rng(1)
    hit = []
    for sd in (0.0, 0.5, 2.0):
        for _ in range(400):
            v = variance_components(rng.normal(0, sd, (6, 1)) + rng.normal(0, 1, (6, 3)))
            hit.append(v["low"] <= sd**2 / (sd**2 + 1) <= v["high"])
    assert stats.binomtest(sum(hit), 1200, 0.95).pvalue > 0.001 or np.mean(hit) > 0.95


def test_what_the_design_does_not_tell_has_words_and_no_number(sweep):
    values = lambda **k: pd.DataFrame(dict(dict(fold=None), **k))
    x = np.random.default_rng(0).normal(size=12)
    own = variance_parts(values(seed=range(12), split=range(12), value=x))
    assert own.source.tolist() == ["split and model seed together", "split", "model seed"]
    assert (
        own.sd[0] == pytest.approx(x.std(ddof=1))
        and own.sd.tolist()[1:] == [None, None]
        and "several model seeds on each split" in own.said[1]
    )
    sure = variance_parts(values(seed=range(12), split=range(12), value=x), random=False)
    assert sure.sd.tolist() == [pytest.approx(x.std(ddof=1)), 0.0] and "no randomness" in sure.said[1]
    crossed = variance_parts(values(seed=np.tile(range(4), 3), split=np.repeat(range(3), 4), value=x))
    v = variance_components(x.reshape(3, 4))
    assert crossed.sd.tolist() == [v["split_sd"], v["seed_sd"]]
    single = variance_parts(values(seed=range(12), split=0, value=x))
    assert single.sd.tolist() == [None, pytest.approx(x.std(ddof=1))]
    folds = variance_parts(
        pd.DataFrame(dict(seed=np.repeat(range(3), 4), fold=np.tile(range(4), 3), split=range(12), value=x))
    )
    assert folds.source.tolist() == ["repeat", "fold"] and folds.sd.tolist() == crossed.sd.tolist()
    once = variance_parts(pd.DataFrame(dict(seed=0, fold=range(12), split=range(12), value=x)))
    assert once.sd.tolist()[1:] == [None, None] and "each fold" in once.said[1]
    lone = variance_parts(values(seed=[0], split=[0], value=[0.5]))
    assert lone.sd.tolist() == [None, None]
    with pytest.raises(ValueError, match="1 of 2 values are undefined"):
        variance_parts(values(seed=[0, 1], split=[0, 1], value=[0.5, np.nan]))
    with pytest.raises(ValueError, match="3 × 1"):
        variance_components([[1], [2], [3]])
    runs = sweep(*[(v, v, s, None, "cold", some(s, 1.0), None) for v in ("logistic", "v5") for s in range(4)])
    t = variance_table(runs)
    assert t.variant.tolist() == ["logistic"] * 2 + ["v5"] * 3 and t.sd[1] == 0 and t.sd[3] is t.sd[4] is None


# ---- does it hold?


def at_most(k, n, rate):
    return stats.binomtest(int(k), n, rate, alternative="greater").pvalue > 0.01


NULL = [
    dict(splits=5),
    dict(splits=20),
    dict(design="kfold", splits=10),
    dict(splits=10, metric="log_loss"),
    dict(splits=10, task="preference", metric="accuracy", people=100),
]


@pytest.mark.slow
def test_where_nobody_is_better_at_most_five_percent_are_claimed():
    "In either direction together: with 95 % confidence over five designs, and in none of them more; the plain t-test claims several times as many where splits overlap"
    n = 120
    made = [bench.simulate(n, **{**dict(people=250, boot=100, first=1000 * i), **kw}) for i, kw in enumerate(NULL)]
    claimed, plain = ([int(d[k].sum()) for d in made] for k in ("claimed", "plain"))
    assert stats.binomtest(sum(claimed), n * len(NULL)).proportion_ci(0.9).high <= 0.05, claimed
    assert all(at_most(k, n, 0.05) for k in claimed), claimed
    assert not at_most(plain[1], n, 0.2) and not at_most(sum(plain), n * len(NULL), 0.1), plain


@pytest.mark.slow
def test_a_model_without_signal_is_not_better_than_a_constant():
    d = bench.simulate(150, people=250, splits=10, noise=(None, np.inf), boot=100)
    assert at_most(d.better.sum(), 150, 0.05) and abs(d.difference.mean()) < 4 * d.difference.std() / np.sqrt(150)


@pytest.mark.slow
def test_a_table_of_equals_claims_no_more_than_one_comparison():
    d = (
        bench.simulate(100, people=250, splits=10, noise=(1.0,) * 6, boot=100)
        .groupby("world")[["claimed", "corrected"]]
        .any()
    )
    assert at_most(d.claimed.sum(), 100, 0.05) and d.corrected.sum() > d.claimed.sum()


def test_a_large_difference_is_found():
    d = bench.simulate(40, people=500, design="kfold", splits=25, noise=(5.0, 1.0), boot=100)
    assert d.difference.mean() > 0.1 and d.better.mean() > 0.7 and not d.worse.any()
