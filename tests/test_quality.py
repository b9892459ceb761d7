"""P(genuine): against independent computation, on planted carelessness, by intervention on the outcome, and on the real survey's metadata rule."""

import hashlib, importlib.util, itertools, json, shutil
from dataclasses import replace
from pathlib import Path
import numpy as np, pandas as pd, pytest
from scipy.optimize import minimize
from scipy.stats import chi2
from sklearn.metrics import average_precision_score
from turnover_nb.quality import populations as populations_
from turnover_nb.quality import mixture as qm
from turnover_nb.graph.audit import rewrite
from turnover_nb.models.tabular import fit_turnover
from turnover_nb.cli import main
from turnover_nb.data.codebook import parse_codebook
from turnover_nb.runs.collect import load_runs
from turnover_nb.models.gnn.config import PRESETS, make_config, read_config
from turnover_nb.runs.sweep import Plan, start, sweep
from turnover_nb.data.features import design_matrix
from turnover_nb.quality.populations import judge_answers
from turnover_nb.quality.genuine import (
    CAVEAT,
    CUTS,
    choice_loglik,
    counts,
    even_odd,
    genuine,
    indices,
    irv,
    longstring,
    mahalanobis,
    mean_correlation,
    populations,
    row_correlation,
    synonyms,
    weights,
)
from turnover_nb.quality.mixture import Battery, batteries, choice_batteries, item_batteries, log_odds
from turnover_nb.runs.run import MODELS, Results, load_data, load_quality, run_one
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic, write_synthetic
from turnover_nb.core.tables import Choices, ColumnType, Survey

spec = importlib.util.spec_from_file_location("quality_benchmark", Path(__file__).parent / "benchmarks" / "quality.py")
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


@pytest.fixture(scope="module")
def half():
    w = make_synthetic(n_employees=400, careless=0.5, seed=11)
    bad = w.truth.hidden["careless"]
    return w.survey, bad, genuine(w.survey)


# ---- the signs, against plain loops


def test_signs_are_those_computed_row_by_row():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (40, 12)) / 4
    x[rng.random(x.shape) < 0.1] = np.nan
    codes = np.nan_to_num(4 * x, nan=-1).astype("int8")
    for i, row in enumerate(codes):
        assert longstring(codes)[i] == max(len(list(g)) for k, g in itertools.groupby(row) if k >= 0)
        assert irv(x)[i] == pytest.approx(np.nanstd(x[i], ddof=1))
        ok = np.isfinite(x[i, :6]) & np.isfinite(x[i, 6:])
        r = row_correlation(x[:, :6], x[:, 6:])[i]
        if ok.sum() > 2 and x[i, :6][ok].std() and x[i, 6:][ok].std():
            assert r == pytest.approx(np.corrcoef(x[i, :6][ok], x[i, 6:][ok])[0, 1])
        else:
            assert np.isnan(r)


def test_mahalanobis_is_calibrated_for_normal_data_and_survives_a_singular_covariance():
    x = np.random.default_rng(1).multivariate_normal(np.zeros(6), 0.5 + 0.5 * np.eye(6), 20_000)
    _, p = mahalanobis(x)
    assert abs((p < 0.05).mean() - 0.05) < 0.005
    a, pa = mahalanobis(x)
    b, pb = mahalanobis(np.hstack([x, x[:, :2]]))  # two columns twice: the same space
    assert np.allclose(a, b, rtol=1e-6) and np.allclose(pa, pb)
    assert np.allclose(pa, chi2.sf(a, 6))


def test_even_odd_by_hand_and_reversed_items_do_not_matter():
    s = [
        np.array([[0.1, 0.2, 0.3, 0.4]] * 2 + [[0.9, 0.8, 0.9, 0.7]]),
        np.array([[0.5, 0.4, 0.6, 0.5]] * 2 + [[0.2, 0.3, 0.1, 0.2]]),
        np.array([[0.9, 1.0, 0.8, 0.9]] * 2 + [[0.4, 0.3, 0.5, 0.5]]),
    ]
    r = np.corrcoef([0.3, 0.45, 0.95], [0.2, 0.55, 0.85])[0, 1]
    assert even_odd(s)[0] == pytest.approx(2 * r / (1 + r))
    rng = np.random.default_rng(2)
    f = rng.normal(size=(200, 3))
    s = [np.clip(0.5 + 0.2 * f[:, [k]] + 0.05 * rng.normal(size=(200, 6)), 0, 1) for k in range(3)]
    turned = [s[0], np.where(np.arange(6) == 3, 1 - s[1], s[1]), s[2]]
    assert np.allclose(even_odd(s), even_odd(turned))


def test_synonyms_and_antonyms_need_three_pairs():
    rng = np.random.default_rng(3)
    f = rng.random((300, 4))
    x = np.hstack([f, f + 0.01 * rng.random((300, 4))])
    assert (
        np.nanmean(synonyms(x)) > 0.95
        and synonyms(x, -1) is None
        and np.nanmean(synonyms(np.hstack([f, 1 - f]), -1)) < -0.95
    )
    assert synonyms(x[:, [0, 1, 4, 5]]) is None and synonyms(rng.random((300, 8))) is None


def test_choice_likelihood_leaves_the_person_out():
    c = np.array([[0, 1], [0, 1], [0, 0], [1, -1]], "int8")
    got = choice_loglik([Battery("c", c, 2, coin=True)])
    others = lambda i, j: [c[k, j] for k in range(4) if k != i and c[k, j] >= 0]
    for i in range(4):
        assert got[i] == pytest.approx(
            sum(
                np.log(2 * (others(i, j).count(c[i, j]) + 0.5) / (len(others(i, j)) + 1))
                for j in range(2)
                if c[i, j] >= 0
            )
        )
    coin = np.random.default_rng(4).integers(0, 2, (4_000, 7)).astype("int8")
    assert abs(choice_loglik([Battery("c", coin, 2, coin=True)]).mean()) < 0.01  # coins earn nothing


def test_signs_that_cannot_be_had_are_left_out(half):
    s, bad, _ = half
    d = indices(s)
    assert (
        list(d) == ["longstring", "irv", "even_odd", "mahalanobis", "mahalanobis_p", "choice_loglik"] and len(d) == s.n
    )
    assert list(indices(replace(s, features=s.features[["pay_band"]]))) == ["choice_loglik"]
    assert indices(s, np.full(s.n, 94.0)).response_time.unique().tolist() == [2.0]  # 40 items and 7 choices
    with pytest.raises(ValueError, match="2 of 400 times are negative"):
        indices(s, np.r_[-1, -1, np.ones(398)])


# ---- what counts as an item


def made(features, types):
    n = len(features)
    return Survey("made", np.arange(n).astype(str), features, types)


def test_items_are_put_together_by_name_and_labels():
    a, b, low = (
        ColumnType("ordinal", tuple("abcde")),
        ColumnType("ordinal", tuple("vwxyz")),
        ColumnType("ordinal", ("1", "2", "3")),
    )
    types = {
        "q_1": a,
        "q_2": a,
        "q_3": a,
        "r_1": a,
        "r_2": a,
        "r_3": a,
        "s_1": b,
        "s_2": b,
        "pay": low,
        "mood": b,
        "age": ColumnType("numeric"),
    }
    x = pd.DataFrame({c: np.ones(8) for c in types})
    assert [(t.name, t.codes.shape[1], t.k) for t in item_batteries(made(x, types))] == [
        ("q", 3, 5),
        ("r", 3, 5),
        ("s", 3, 5),
    ]
    hidden = replace(
        made(x, types), protected=pd.DataFrame({"q_1": ["x"] * 8})
    )  # protected: no answer; q and its like are too few alone
    assert all(t.name != "q" or t.codes.shape[1] < 3 for t in item_batteries(hidden))
    x.loc[0, "r_1"] = np.nan
    assert item_batteries(made(x, types))[1].codes[0].tolist() == [-1, 0, 0]


def test_choice_tasks_count_only_where_all_see_the_same_posts():
    rows = lambda task, posts: [
        dict(situation=0, employee=e, task=task, alternative=k, post=p[k], chosen=k == e % len(p), available=True)
        for e, p in enumerate(posts)
        for k in range(len(p))
    ]
    t = pd.DataFrame(rows(0, [(0, 1)] * 5) + rows(1, [(2, 3, 4)] * 5) + rows(2, [(0, 1)] * 4 + [(0, 2)]))
    t["situation"] = (t.alternative == 0).cumsum() - 1
    s = replace(
        made(pd.DataFrame(index=range(5)), {}),
        choices=Choices(t.astype({"chosen": bool}), np.array(list("abc")), np.array(list("ABC")), "long"),
    )
    assert [(b.k, b.codes.shape[1], b.coin, b.trait) for b in choice_batteries(s)] == [
        (2, 1, True, False),
        (3, 1, True, False),
    ]
    assert choice_batteries(s)[0].codes[:, 0].tolist() == [0, 1, 0, 1, 0] and choice_batteries(s)[1].codes[
        :, 0
    ].tolist() == [0, 1, 2, 0, 1]
    with pytest.raises(
        ValueError, match="0 ordinal items in batteries of three or more and 2 choice tasks.*expected at least four"
    ):
        batteries(s)


def test_choices_alone_are_enough_and_items_alone_too(half):
    s, bad, _ = half
    only = genuine(replace(s, features=s.features[["pay_band"]]))
    items = genuine(s, choices=False)
    assert only.n_items == 0 and only.n_tasks == 7 and items.n_items == 40 and items.n_tasks == 0
    assert bench.auroc(~bad, items.log_odds) > 0.99


# ---- the mixture


def tiny(seed=5):
    rng = np.random.default_rng(seed)
    data = [
        Battery("p", rng.integers(-1, 3, (9, 2)).astype("int8"), 3),
        Battery("q", rng.integers(-1, 2, (9, 3)).astype("int8"), 2, coin=True),
    ]
    m = qm.start(data, [t.hot() for t in data], rng.dirichlet([1, 1, 1], 9), ("item", "flat"))
    return data, replace(m, rho=(3, 15), a=(np.array([0.7, -1.2]), np.array([0.4, 0.5, -2.0])))


def test_likelihood_is_that_of_an_explicit_sum():
    data, m = tiny()
    e = qm.expectation(m, [t.hot() for t in data])
    for i in range(9):

        def p(t, j, theta, i=i):
            z = np.exp(m.b[t][j] + m.a[t][j] * qm.level_scores(data[t].k) * theta)
            c = data[t].codes[i, j]
            return 1.0 if c < 0 else z[c] / z.sum()

        genuine_ = sum(
            m.general[g]
            * np.prod(
                [
                    sum(
                        qm.KERNEL[m.rho[t]][g, q] * np.prod([p(t, j, theta) for j in range(data[t].codes.shape[1])])
                        for q, theta in enumerate(qm.THETA)
                    )
                    for t in (0, 1)
                ]
            )
            for g in range(len(qm.GENERAL))
        )
        others = [
            np.prod(
                [
                    m.careless[t][c, j, data[t].codes[i, j]]
                    for t in (0, 1)
                    for j in range(data[t].codes.shape[1])
                    if data[t].codes[i, j] >= 0
                ]
            )
            for c in (0, 1)
        ]
        joint = m.share * np.array([genuine_, *others])
        assert np.exp(e.joint[i]) == pytest.approx(joint) and e.r[i] == pytest.approx(joint / joint.sum())
        assert log_odds(m, data)[i] == pytest.approx(np.log(joint[0] / joint[1:].sum()))
    assert (m.careless[1] == 0.5).all()  # careless choices are coins in every class


@pytest.mark.parametrize("k", [2, 4, 7])
def test_newton_finds_the_maximum(k):
    counts = np.random.default_rng(k).gamma(0.5, 20, (2, k, 13))
    b, a = qm.item_newton(np.zeros((2, k)), np.ones(2), counts, steps=30)
    for j in range(2):
        f = lambda x, j=j: (
            -(counts[j] * qm.item_log_probabilities(np.r_[0, x[:-1]][None], x[-1:])[0]).sum()
            + 0.5 * (1e-3 * x[:-1] @ x[:-1] + qm.RIDGE * x[-1] ** 2)
        )
        assert f(np.r_[b[j, 1:], a[j]]) <= minimize(f, np.zeros(k), tol=1e-9).fun + 1e-6
    assert (qm.item_newton(np.zeros((2, k)), np.ones(2), counts, trait=False, steps=9)[1] == 0).all()


def test_an_integrated_likelihood_is_that_of_a_sum_over_shares():
    "Two levels, uniform prior: the integral of p^a (1 − p)^b is a beta function; and a prior that is certain is the multinomial"
    n = np.array([[3.0, 2.0]])
    assert qm.dirichlet_multinomial(n, np.array([0.5, 0.5]), 2.0) == pytest.approx(np.log(1 / 60))
    assert qm.dirichlet_multinomial(n, np.array([0.6, 0.4]), 1e5) == pytest.approx(
        3 * np.log(0.6) + 2 * np.log(0.4), abs=1e-3
    )


def test_a_class_cut_out_of_honest_people_is_refused():
    s, bad = bench.planted(300, 0.0, 4)
    items = [t.codes for t in batteries(s, False)]
    level = sum(c.mean(1) for c in items)
    cut = (level > np.quantile(level, 0.6)) * 1.0
    assert not qm.independent(items, np.c_[1 - cut, cut])
    s, bad = bench.planted(300, 0.3, 4)
    items = [t.codes for t in batteries(s, False)]
    assert qm.independent(items, np.c_[~bad, bad] * 1.0) and not qm.independent(items, np.c_[bad, ~bad] * 1.0)
    assert qm.dependence(items, bad * 1.0) < 0.01 < 0.03 < qm.dependence(items, ~bad * 1.0)


def test_parameters_are_counted():
    data, m = tiny()
    genuine_ = (2 * 2 + 2 + 1) + (3 * 1 + 3 + 1) + 8
    assert (
        m.n_parameters(data) == genuine_ + 2 + 2 * 2
    )  # two shares, and levels of the items of one class; none for coins
    assert replace(m, kinds=("scale", "flat")).n_parameters(data) == genuine_ + 2 + 2


def test_em_climbs_and_seeds_agree(half):
    s, bad, q = half
    data = batteries(s)
    hots = [t.hot() for t in data]
    m, last = qm.start(data, hots, np.tile([0.6, 0.4], (s.n, 1)) * 1.0, ("flat",)), -np.inf
    for _ in range(15):
        e = qm.expectation(m, hots)
        assert e.loglik > last
        last, m = e.loglik, qm.maximisation(m, data, hots, e)
    again, other = genuine(s), genuine(s, seed=9)
    assert again.log_odds.tobytes() == q.log_odds.tobytes() and np.abs(other.p_genuine - q.p_genuine).max() < 0.02


def test_genuine_is_the_class_that_hangs_together_whatever_its_size_and_the_direction_of_the_scale(half):
    s, bad, q = half
    few, rare = bench.planted(600, 0.8, 3)
    assert bench.auroc(~rare, genuine(few).log_odds) > 0.98  # the genuine are the minority
    f = s.features.copy()
    for c, t in s.types.items():
        if t.kind == "ordinal":
            f[c] = len(t.levels) + 1 - f[c]
    assert np.abs(genuine(replace(s, features=f)).p_genuine - q.p_genuine).max() < 0.05


def test_order_of_people_does_not_matter(half):
    s, bad, q = half
    o = np.random.default_rng(6).permutation(s.n)
    t = s.choices.table
    where = np.argsort(o)
    u = t.assign(employee=where[t.employee]).sort_values(["employee", "task", "alternative"], ignore_index=True)
    u["situation"] = (u.alternative == 0).cumsum() - 1
    moved = replace(s, features=s.features.iloc[o].reset_index(drop=True), choices=replace(s.choices, table=u))
    assert np.abs(genuine(moved).p_genuine - q.p_genuine[o]).max() < 0.01


# ---- planted carelessness


@pytest.mark.parametrize("share, seed", [(0.2, 0), (0.5, 1)])
def test_planted_carelessness_is_found(share, seed):
    s, bad = bench.planted(500, share, seed)
    q = genuine(s)
    assert (
        q.several
        and bench.auroc(~bad, q.log_odds) >= 0.98
        and abs((~q.genuine).mean() - bad.mean()) < 0.03
        and abs(q.share - (~bad).mean()) < 0.03
    )
    assert (
        q.bic["mixture"] < q.bic["one_class"]
        and q.loglik["mixture"] > q.loglik["one_class"]
        and q.correlation["genuine"] > 0.2 > 0.05 > abs(q.correlation["other"])
    )


@pytest.mark.parametrize("n, seed", [(500, 0), (800, 1)])
def test_nobody_is_flagged_where_nobody_is_careless(n, seed):
    s, bad = bench.planted(n, 0.0, seed)
    q = genuine(s)
    assert (
        not bad.any()
        and not q.several
        and (q.p_genuine == 1).all()
        and q.share == 1
        and q.bic["one_class"] < q.bic["mixture"]
    )


@pytest.mark.parametrize("pattern", ["top", "sources"])
def test_other_habits_are_found_too(pattern):
    "Three upper levels, as fabricated records have, or half of them uniform: no habit is built in"
    s, bad = bench.planted(500, 0.3, 0, pattern)
    assert bench.auroc(~bad, genuine(s).log_odds) >= 0.98


def test_straight_lining_is_seen_by_longstring():
    "The mixture does not claim to see it, and its text says so"
    s, bad = bench.planted(300, 0.1, 0, "straight")
    q = genuine(s)
    assert bench.auroc(bad, q.indices.longstring.to_numpy(float)) > 0.99 and (~q.genuine)[~bad].mean() < 0.05
    assert "misses much of straight-lining" in CAVEAT and CAVEAT in q.summary()


def test_missing_answers():
    s, bad = bench.planted(500, 0.5, 2)
    f = s.features.copy()
    rng = np.random.default_rng(7)
    for c, t in s.types.items():
        if t.kind == "ordinal":
            f.loc[rng.random(s.n) < 0.2, c] = np.nan
    f.loc[0, [c for c, t in s.types.items() if t.kind == "ordinal"]] = np.nan
    q = genuine(replace(s, features=f), choices=False)
    assert np.isfinite(q.p_genuine).all() and bench.auroc(~bad, q.log_odds) > 0.97
    assert q.p_genuine[0] == pytest.approx(q.share, abs=1e-9)  # no answer: no news
    assert {"longstring", "irv", "mahalanobis"} <= set(q.indices) and q.indices.mahalanobis[0] == 0


@pytest.mark.filterwarnings("error")
def test_constant_and_empty_items_and_thirty_people():
    s, _ = bench.planted(30, 0.0, 1)
    f = s.features.copy()
    f["fit_1"] = 4.0
    f["use_1"] = np.nan
    q = genuine(replace(s, features=f))
    assert not q.several and np.isfinite(q.indices.mahalanobis).all() and q.summary() and len(q.table()) >= 5


# ---- no outcome, no other people


def test_outcome_changes_no_bit(half):
    s, bad, q = half
    rng = np.random.default_rng(8)
    for other in (
        replace(s, turnover=None, likelihood=None),
        replace(s, turnover=1 - rng.permutation(s.turnover), likelihood=rng.random(s.n)),
    ):
        got = genuine(other)
        assert (
            got.p_genuine.tobytes() == q.p_genuine.tobytes()
            and got.log_odds.tobytes() == q.log_odds.tobytes()
            and got.summary() == q.summary()
        )
        pd.testing.assert_frame_equal(got.indices, q.indices)
        pd.testing.assert_frame_equal(got.criteria, q.criteria)


def test_the_intervention_can_be_seen(half):
    "An answer, unlike an outcome, does change something"
    s, bad, q = half
    f = s.features.copy()
    f["fit_1"] = f["fit_1"].to_numpy()[::-1]
    assert genuine(replace(s, features=f)).log_odds.tobytes() != q.log_odds.tobytes()


def test_facts_protected_columns_and_relations_do_not_matter(half):
    s, bad, q = half
    f = s.features.copy()
    for c in f:
        if not any(c.startswith(p) for p in ("fit_", "use_", "skill_", "loss_")):
            f[c] = f[c].iloc[::-1].to_numpy() if str(f[c].dtype) != "category" else f[c]
    assert (
        genuine(replace(s, features=f, protected=None, relations={}, groups=None)).log_odds.tobytes()
        == q.log_odds.tobytes()
    )


def test_held_out_people_do_not_matter_to_the_fit(half):
    s, bad, _ = half
    rows = np.arange(250)
    f = s.features.copy()
    t = s.choices.table.copy()
    a = genuine(s, rows=rows)
    for c in f:
        if c.startswith(("fit_", "use_", "skill_", "loss_")):
            f.loc[250:, c] = 1.0
    late = t.employee >= 250
    t.loc[late, "chosen"] = t.alternative[late] == 0
    b = genuine(replace(s, features=f, choices=replace(s.choices, table=t)), rows=rows)
    assert a.log_odds[:250].tobytes() == b.log_odds[:250].tobytes() and (a.log_odds[250:] != b.log_odds[250:]).any()
    assert a.n_fitted == 250 and bench.auroc(~bad[250:], a.log_odds[250:]) > 0.98  # people it has not seen
    with pytest.raises(ValueError, match="29 people to fit on"):
        genuine(s, rows=np.arange(29))


# ---- weights and words


def test_weights_are_fixed_and_refuse_to_choose_by_the_choices(half):
    s, bad, q = half
    assert (
        (weights(q) == q.p_genuine).all()
        and set(weights(q, "filter")) == {0.0, 1.0}
        and (weights(q, "filter") == q.genuine).all()
    )
    for how in ("weight", "filter"):
        with pytest.raises(ValueError, match="read-only"):
            weights(q, how)[0] = 0.3
        with pytest.raises(ValueError, match="choices=False"):
            weights(q, how, "preference")
    with pytest.raises(ValueError, match="expected 'weight' or 'filter'"):
        weights(q, "best")
    both = populations(q)
    assert list(both) == ["all", "genuine"] and both["all"].all() and (both["genuine"] == (q.p_genuine >= 0.5)).all()


def test_table_and_text(half):
    s, bad, q = half
    t = q.table()
    text = q.summary()
    assert (
        t["sign"].tolist() == ["longstring", "irv", "even odd", "mahalanobis p", "choice loglik"]
        and (t.source.str.len() > 5).all()
    )
    n = int((q.indices.even_odd < 0.3).sum())
    assert t.flagged[2] == f"{n:,}"
    assert (
        f"{int(q.genuine.sum()):,} of 400 people genuine" in text
        and "(synthetic)" in text
        and "no outcome was used" in text
        and f"{q.bic['one_class']:,.0f}" in text
    )
    assert len(repr(q)) < 100 and not any(i in text for i in s.ids[:50])


def test_small_groups_are_not_shown(half):
    s, bad, q = half
    p = np.where(np.arange(400) < 3, 0.01, 0.99)
    small = replace(q, p_genuine=p, share=0.9925)
    t = small.table()
    assert (
        "Fewer than 5 of 400" in small.summary()
        and "fewer than 5 of 400" in repr(small)
        and "397" not in small.summary()
        and "397" not in repr(small)
        and "0.99" not in small.summary()
    )
    assert set(t["of the others"]) == {"–"} and set(t["of the genuine"]) == {"–"} and set(t["median, others"]) == {"–"}
    for f, g in itertools.product(range(0, 20), repeat=2):  # f flagged of the 10 genuine and g flagged of the 10 others
        if f > 10 or g > 10:
            continue
        shown = counts(np.r_[np.arange(10) < f, np.arange(10) < g], np.arange(20) < 10)
        if 0 < f < 5 or 0 < g < 5:
            assert shown[1:] == ["–", "–"]


def test_every_sign_has_a_source(half):
    assert set(half[2].indices) - {"mahalanobis"} <= set(CUTS) and all(c[2] for c in CUTS.values())


def test_weighted_correlation_is_the_plain_one_for_whole_weights():
    x = np.random.default_rng(9).integers(0, 5, (60, 4)).astype("int8")
    w = np.arange(60) < 40
    c = np.corrcoef(x[w].T)[np.triu_indices(4, 1)].mean()
    assert (
        mean_correlation([Battery("b", x, 5)], w * 1.0) == pytest.approx(c)
        and mean_correlation([Battery("b", x, 5)], np.full(60, 0.05)) is None
    )


def test_items_that_do_not_hang_together_are_said_to_tell_nothing():
    rng = np.random.default_rng(10)
    t = ColumnType("ordinal", tuple("abcde"))
    types = {f"q_{j}": t for j in range(12)}
    q = genuine(made(pd.DataFrame({c: rng.integers(1, 6, 300).astype(float) for c in types}), types))
    assert not q.several and "hardly hang together" in q.summary()


def test_real_survey_against_its_metadata(shared_data):
    "Answers only; the rule is used for nothing but this comparison"
    from turnover_nb.data.survey import read_survey

    s, rule = read_survey(shared_data / "survey", "job_choice_survey"), bench.metadata_rule(shared_data / "survey")
    for choices in (True, False):
        q = genuine(s, choices=choices)
        assert (
            bench.auroc(rule, q.log_odds) >= 0.95
            and (q.genuine == rule).mean() >= 0.95
            and q.correlation["genuine"] > 0.3 > 0.05 > q.correlation["other"]
        )
    for seed in (31, 32):  # fits on half of the people, as on the training people of a split
        rows = np.sort(np.random.default_rng(seed).permutation(s.n)[:200])
        q = genuine(s, rows=rows, choices=False)
        assert (q.genuine == rule).mean() >= 0.9
    assert bench.auroc(rule, indices(s).longstring.to_numpy(float)) > 0.5  # longstring alone would flag the genuine


# ---- in a run: populations, weights, filters

SMALL = dict(hidden=8, heads=2, layers=1, epochs=2, stage2_epochs=2, lr=0.01, stage2_lr=0.01)
KINDS = dict(
    hgt={},
    v5={},
    v6_twostage={},
    hgt_bpr=dict(preference_loss="bpr"),
    hgt_softmax=dict(preference_loss="sampled_softmax"),
    hgt_focal=dict(turnover_loss="focal"),
)


@pytest.fixture(scope="module")
def judged():
    "A world half of whose people are careless, a split, and the quality of its answers for each use"
    w = make_synthetic(n_employees=160, careless=0.5, seed=12)
    split = make_split(w.survey, seed=0)
    a = judge_answers(w.survey)
    by = {k: replace(a, use=k, trained=a.trained) for k in ("report", "weight", "filter")}
    return w, split, by


def config_of(name):
    base = name.split("_")[0] if name not in PRESETS else name
    return (
        dict(config=make_config(base, **(SMALL | KINDS[name])))
        if name in KINDS
        else dict(config=make_config("best", epochs=3, stage2_epochs=3, draws=2))
        if name == "best"
        else {}
    )


@pytest.mark.parametrize(
    "model", ["majority", "logistic", "random_forest", "mlp", "xgboost", "conditional_logit", *KINDS, "best"]
)
def test_weight_and_filter_change_training_and_nothing_else(judged, model):
    w, split, by = judged
    base = model if model in MODELS else model.split("_")[0]
    uses = ("weight", "filter") if model not in KINDS or model == "hgt" else ("weight",)
    runs = {k: run_one(w.survey, split, base, n_boot=0, answers=by[k], **config_of(model)) for k in ("report", *uses)}
    plain = run_one(w.survey, split, base, n_boot=0, **config_of(model))
    for task in ("turnover", "utility"):
        x = {k: getattr(r.scores, task) for k, r in runs.items()}
        if x["report"] is None:
            continue
        assert np.array_equal(x["report"], getattr(plain.scores, task), equal_nan=True)  # a report changes no score
        held = np.isfinite(x["report"])
        for k in uses:
            assert (np.isfinite(x[k]) == held).all() and not np.allclose(x[k][held], x["report"][held], atol=1e-6), k
    for k, r in runs.items():
        assert (
            r.results.audit["passed"]
            and r.results.quality["use"] == k
            and r.results.split.n_train == len(split.train)
            and r.results.split.n_test == len(split.test)
        )
        assert ("weights of training people" in r.results.audit["checks"][-1]["name"]) == (k != "report")
        assert set(r.predictions.employee) == set(plain.predictions.employee)  # no test person is dropped
    assert runs["weight"].results.quality["counted"] < len(split.train) == runs["weight"].results.quality["people"]


def test_panel_models_take_weights(judged):
    from turnover_nb.choice.panel_logit import fit_panel_preference

    w, split, by = judged
    s = w.survey
    half = np.arange(len(split.train)) % 2 * 1.0
    grid = [dict(coin=False, penalty=2.0, steps=8, draws=4)]
    u = [
        fit_panel_preference("mixed_logit", s.choices, None, replace(split, weight=x), s, grid=grid).utility
        for x in (None, np.ones(len(half)), half)
    ]
    assert np.allclose(u[0], u[1], atol=1e-5) and not np.allclose(u[0], u[2], atol=1e-3)


def test_weights_that_are_whole_are_repetitions(judged):
    "For models whose loss is a plain sum, weight 2 is the person twice, and weight 0 nobody"
    w, split, _ = judged
    s = w.survey
    X, _ = design_matrix(s, split.train)
    half = np.arange(len(split.train)) % 2
    keep = replace(split, train=split.train[half == 1])
    for name in ("majority", "logistic", "xgboost"):
        assert np.allclose(
            fit_turnover(name, X, s.turnover, replace(split, weight=half * 1.0)).predict(X),
            fit_turnover(name, X, s.turnover, keep).predict(X),
        ), name
    with pytest.raises(ValueError, match="0 who leave"):
        fit_turnover("logistic", X, s.turnover, replace(split, weight=np.where(s.turnover[split.train] > 0, 0, 1.0)))
    with pytest.raises(ValueError, match="expected .* finite numbers"):
        replace(split, weight=np.ones(3))


def test_who_counts_in_training_is_decided_by_training_people_s_items_alone(monkeypatch):
    w = make_synthetic(n_employees=120, careless=0.5, seed=12)
    s = w.survey
    split = make_split(s, seed=0)
    p = populations_.training_p(s, split)
    assert (
        populations_.blind_check(s, split, p)["passed"]
        and (p < 0.5).any()
        and ((p < 0.5) == w.truth.hidden["careless"][split.train]).mean() > 0.85
    )
    for leaky in (
        lambda s, split: genuine(s, choices=False).p_genuine[split.train],
        lambda s, split: genuine(s, rows=split.train).p_genuine[split.train],  # held-out people; choices
        lambda s, split: p * np.where(np.nan_to_num(s.turnover[split.train]) > 0, 0.9, 1),
    ):  # the outcome
        monkeypatch.setattr(populations_, "training_p", leaky)
        assert not populations_.blind_check(s, split, leaky(s, split))["passed"]


def test_results_for_the_genuine_are_those_of_their_predictions(judged):
    w, split, by = judged
    s = w.survey
    a = by["report"]
    for model in ("logistic", "conditional_logit"):
        r = run_one(s, split, model, n_boot=50, answers=a)
        d = r.predictions.query("phase == 'test'")
        task = "turnover" if model == "logistic" else "preference"
        assert set(r.results.genuine) == {task} and set(r.results.quality["found"]) == {"turnover", "preference"}
        g = d[d.genuine >= 0.5]
        m = r.results.genuine[task]
        assert m.n == g.employee.nunique() < d.employee.nunique()
        assert dict(zip(d.employee, d.genuine)) == dict(zip(s.ids[split.test], a.p(task)[split.test]))
        if task == "turnover":
            assert (
                m.metrics["aupr"].value == pytest.approx(average_precision_score(g.label, g.score))
                and m.metrics["threshold"] == r.results.turnover["threshold"]
            )
        else:
            assert (
                m.metrics["accuracy"].low < m.metrics["accuracy"].value < m.metrics["accuracy"].high
                and m.metrics["n_situations"].value
                == g.situation.nunique()
                < r.results.preference.metrics["n_situations"].value
            )
        text = r.results.model_dump_json()
        assert not any(i in text for i in s.ids[:40])
        assert Results(**json.loads(text)) == r.results and not set(r.predictions) & set(s.features)


def test_preference_is_judged_without_the_choices(judged):
    "Other choices change P(genuine) for turnover, and no bit of that for preference"
    w, split, by = judged
    s, a = w.survey, by["report"]
    b = judge_answers(rewrite(s, np.arange(0), np.random.default_rng(2), answers=np.ones(s.choices.n, bool)))
    assert (
        a.p("preference").tobytes() == b.p("preference").tobytes()
        and a.p("turnover").tobytes() != b.p("turnover").tobytes()
    )


def test_small_populations_are_suppressed(judged):
    w, split, by = judged
    s = w.survey
    p = np.ones(s.n)
    p[split.test[:3]] = 0
    q = by["report"].of["turnover"]
    r = run_one(
        s, split, "logistic", n_boot=0, answers=replace(by["report"], of=dict(turnover=replace(q, p_genuine=p)), why={})
    )
    assert (
        r.results.genuine["turnover"].n is None
        and r.results.genuine["turnover"].metrics is None
        and r.results.quality["found"]["turnover"]["genuine"] is None
    )
    nobody = run_one(
        s,
        split,
        "logistic",
        n_boot=0,
        answers=replace(by["report"], of=dict(turnover=replace(q, p_genuine=np.zeros(s.n))), why={}),
    ).results.genuine["turnover"]
    assert nobody.n == 0 and nobody.metrics is None


def test_too_few_genuine_people_to_learn_from(judged):
    w, split, by = judged
    a = replace(by["filter"], trained={})
    key = hashlib.sha256(np.ascontiguousarray(split.train)).hexdigest()
    a.trained[key] = np.r_[np.ones(4), np.zeros(len(split.train) - 4)], {}
    with pytest.raises(
        ValueError, match=f"quality = 'filter': 4 of {len(split.train)} training people count as genuine; at least 10"
    ):
        populations_.weigh(a, w.survey, split)


# ---- command line, sweep, report


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "A careless world as files, with response times"
    folder = tmp_path_factory.mktemp("careless")
    world = make_synthetic(n_employees=200, careless=0.5, seed=12)
    write_synthetic(world, folder)
    f = folder / "employees.csv"
    d = pd.read_csv(f, dtype=str, keep_default_na=False)
    d["took"] = np.where(world.truth.hidden["careless"], "1.2", "6")
    d.to_csv(f, index=False)
    book = folder / "codebook.yaml"
    book.write_text(book.read_text("utf-8") + "response_time: {column: took, unit: minutes}\n", "utf-8")
    return folder, world


@pytest.fixture(scope="module")
def swept(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    folder, _ = files
    assert (
        main(
            [
                "run",
                "--data",
                str(folder),
                "--codebook",
                str(folder / "codebook.yaml"),
                "--models",
                "majority,logistic,conditional_logit",
                "--seeds",
                "1,",
                "--preference",
                "cold",
                "--jobs",
                "1",
                "--quality",
                "filter",
                "--out",
                str(out),
                "--lang",
                "zh",
            ]
        )
        == 0
    )
    return next((out / "main").iterdir())


def test_the_use_is_recorded(swept):
    m = json.loads((swept / "manifest.json").read_text())
    assert m["plan"]["quality"] == "filter"
    for p in load_runs(swept).paths:
        assert (p / "config.yaml").read_text().startswith("# quality of answers: filter\n") and read_config(
            (p / "config.yaml").read_text()
        ) == make_config()
    r = json.loads((swept / "logistic" / "seed_1" / "results.json").read_text())
    assert r["quality"]["use"] == "filter" and r["audit"]["passed"] and r["audit"]["checks"][-1]["passed"]


def test_a_run_by_itself_gives_the_bits_of_the_sweep(swept, files):
    folder, _ = files
    key = str(folder), str(folder / "codebook.yaml"), 500
    s, _ = load_data(*key)
    r = run_one(s, make_split(s, seed=1), "logistic", seed=1, answers=load_quality(s, "filter", *key))
    want = json.loads((swept / "logistic" / "seed_1" / "results.json").read_text())
    got = json.loads(r.results.model_dump_json())
    assert {k: got[k] for k in ("turnover", "genuine", "quality", "audit")} == {
        k: want[k] for k in ("turnover", "genuine", "quality", "audit")
    }


def test_the_report_has_both_populations(swept):
    tables = swept / "report" / "tables"
    t = pd.read_csv(tables / "populations_turnover.csv").set_index(["variant", "population", "metric"]).value
    want = [
        json.loads((swept / "logistic" / f"seed_{k}" / "results.json").read_text())["genuine"]["turnover"]["metrics"][
            "aupr"
        ]["value"]
        for k in (1,)
    ]
    assert t[("logistic", "genuine", "aupr")] == pytest.approx(np.mean(want)) and t[
        ("logistic", "all", "aupr")
    ] == pytest.approx(
        pd.read_csv(tables / "turnover.csv").set_index(["variant", "metric"]).value[("logistic", "aupr")]
    )
    assert (
        set(t.index.get_level_values("variant")) == {"majority", "logistic"}
        and (tables / "populations_preference_cold.csv").exists()
    )
    text = (swept / "report" / "report.html").read_text("utf-8")
    assert "作答质量" in text and "保留" in text and "每题秒数" in text and "Traceback" not in text
    signs = pd.read_csv(tables / "quality_signs.csv").set_index("sign")
    assert signs.flagged["response_time"] > 80


def test_the_command_prints_counts_and_writes_only_where_told(files, tmp_path, capsys, monkeypatch):
    folder, world = files
    monkeypatch.chdir(tmp_path)
    argv = ["quality", "--data", str(folder), "--codebook", str(folder / "codebook.yaml")]
    assert main(argv) == 0 and not list(tmp_path.iterdir())
    said = capsys.readouterr().out
    assert (
        "of 200 people genuine" in said
        and "response time" in said
        and "from the 40 items alone" in said
        and CAVEAT in said
        and not any(i in said for i in world.survey.ids)
    )
    assert main([*argv, "--out", "q"]) == 0
    assert "personal data" in capsys.readouterr().out
    assert {f.name for f in (tmp_path / "q").iterdir()} == {"signs.csv", "mixtures.csv", "summary.txt", "people.csv"}
    people = pd.read_csv(tmp_path / "q" / "people.csv")
    assert len(people) == 200 and not set(people) & set(world.survey.features) and people.p_genuine.between(0, 1).all()


def edited(folder, tmp_path, change, book=lambda t: t):
    "A copy of the files with another employee table or codebook"
    new = Path(shutil.copytree(folder, tmp_path / "edited"))
    f = new / "employees.csv"
    d = pd.read_csv(f, dtype=str, keep_default_na=False)
    change(d)
    d.to_csv(f, index=False)
    (new / "codebook.yaml").write_text(book((new / "codebook.yaml").read_text("utf-8")), "utf-8")
    return ["--data", str(new), "--codebook", str(new / "codebook.yaml")]


@pytest.mark.parametrize(
    "value, says", [("-3600", "1 of 200 response times are negative"), ("soon", "is not a number")]
)
def test_a_bad_response_time_names_file_column_and_row(files, tmp_path, capsys, value, says):
    argv = edited(files[0], tmp_path, lambda d: d.__setitem__("took", [value, *d.took[1:]]))
    assert main(["quality", *argv]) == 2
    err = capsys.readouterr().err
    assert says in err and "employees.csv" in err and "took" in err and err.count("\n") == 1


def test_a_response_time_that_is_not_there_and_its_unit(files, tmp_path, capsys):
    argv = edited(files[0], tmp_path, lambda d: d.drop(columns="took", inplace=True))
    assert main(["quality", *argv]) == 2
    assert "took" in capsys.readouterr().err
    s, _ = load_data(str(files[0]), str(files[0] / "codebook.yaml"))
    assert set(s.seconds) == {72.0, 360.0} and "took" not in s.features
    with pytest.raises(ValueError, match="response_time.unit"):
        parse_codebook(
            "{name: x, table: {file: x.csv}, turnover: {column: y, positive: 1}, response_time: {column: t, unit: hours}}"
        )


@pytest.mark.parametrize("use", ["weight", "filter"])
def test_data_without_enough_items_stop_before_anything_is_written(use, tmp_path, capsys):
    d = pd.DataFrame(
        dict(id=range(60), a=np.tile([1, 2], 30), b=np.tile([3, 1, 2], 20), left=np.tile(["no", "no", "yes"], 20))
    )
    d.to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "c.yaml").write_text(
        "{name: few, table: x.csv, id: id, features: {a: numeric, b: numeric}, turnover: {column: left, positive: yes}}"
    )
    argv = ["--data", str(tmp_path), "--codebook", str(tmp_path / "c.yaml")]
    assert (
        main(["run", *argv, "--models", "majority", "--seeds", "1", "--quality", use, "--out", str(tmp_path / "o")])
        == 2
    )
    err = capsys.readouterr().err
    assert (
        f"quality = '{use}': few: 0 ordinal items" in err
        and "expected at least four" in err
        and not (tmp_path / "o").exists()
        and err.count("\n") == 1
    )
    assert main(["quality", *argv]) == 2 and "expected at least four items or four tasks" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--quality", "drop"], "quality = 'drop': expected one of report, weight, filter, none"),
        (["--quality", "weight", "--models", "logistic,hierarchical"], "model 'hierarchical' takes no weights"),
        (["--quality", "filter", "--models", "logistic"], "41 training people; at least 100 are needed"),
    ],
)
def test_bad_uses_stop_before_anything_is_written(argv, says, tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "o"), "--employees", "60", *argv]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "o").exists()


def test_none_computes_nothing_and_an_older_plan_can_be_gone_on_with(tmp_path, monkeypatch):
    plan = Plan(models=("majority",), seeds=(0,), employees=60, preference=("cold",), quality="none")
    monkeypatch.setattr(populations_, "genuine", lambda *a, **k: 1 / 0)
    folder = start(plan, tmp_path)
    assert all(o.ok for o in sweep(plan, folder, 1))
    r = load_runs(folder).results[0]
    assert r.quality == dict(use="none") and r.genuine is None
    m = json.loads((folder / "manifest.json").read_text())
    del m["plan"]["quality"]
    (folder / "manifest.json").write_text(json.dumps(m))
    assert start(replace(plan, quality="report"), tmp_path, resume=folder) == folder
    with pytest.raises(ValueError, match="quality: 'report' there, 'filter' now"):
        start(replace(plan, quality="filter"), tmp_path, resume=folder)


def test_scale_fits_on_a_sample_and_judges_everybody():
    s, bad = bench.planted(4_000, 0.2, 0)
    data = batteries(s)
    m, tried = qm.fit_mixture(data, np.arange(s.n), max_fit=400)
    odds = log_odds(m, data, block=1_000)
    assert len(tried[0].e.r) == 400 and bench.auroc(~bad, odds) > 0.98 and abs((odds < 0).mean() - 0.2) < 0.04
