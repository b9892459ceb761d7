"P(genuine): against independent computation, on planted carelessness, by intervention, on the real survey's metadata"

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2
from turnover_nb.core.tables import Choices, ColumnType, Survey
from turnover_nb.quality.batteries import Battery, batteries, choice_batteries, item_batteries
from turnover_nb.quality.classes import dependence, dirichlet_multinomial, fit_mixture, independent
from turnover_nb.quality.genuine import CAVEAT, flag_counts, genuine, mean_correlation, weights
from turnover_nb.quality.mixture import (
    GENERAL,
    KERNEL,
    RIDGE,
    THETA,
    Sample,
    expectation,
    item_log_probabilities,
    item_newton,
    level_scores,
    log_odds,
    maximisation,
    start,
)
from turnover_nb.quality.signs import (
    SIGNS,
    choice_loglik,
    even_odd,
    indices,
    irv,
    longstring,
    mahalanobis,
    row_correlation,
    synonyms,
)
from turnover_nb.synthetic.world import make_synthetic

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
    m = start(Sample.of(data), rng.dirichlet([1, 1, 1], 9), ("item", "flat"))
    return data, replace(m, rho=(3, 15), a=(np.array([0.7, -1.2]), np.array([0.4, 0.5, -2.0])))


def test_likelihood_is_that_of_an_explicit_sum():
    data, m = tiny()
    e = expectation(m, Sample.of(data))
    for i in range(9):

        def p(t, j, theta, i=i):
            z = np.exp(m.b[t][j] + m.a[t][j] * level_scores(data[t].k) * theta)
            c = data[t].codes[i, j]
            return 1.0 if c < 0 else z[c] / z.sum()

        genuine_ = sum(
            m.general[g]
            * np.prod(
                [
                    sum(
                        KERNEL[m.rho[t]][g, q] * np.prod([p(t, j, theta) for j in range(data[t].codes.shape[1])])
                        for q, theta in enumerate(THETA)
                    )
                    for t in (0, 1)
                ]
            )
            for g in range(len(GENERAL))
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
    b, a = item_newton(np.zeros((2, k)), np.ones(2), counts, steps=30)
    for j in range(2):
        f = lambda x, j=j: (
            -(counts[j] * item_log_probabilities(np.r_[0, x[:-1]][None], x[-1:])[0]).sum()
            + 0.5 * (1e-3 * x[:-1] @ x[:-1] + RIDGE * x[-1] ** 2)
        )
        assert f(np.r_[b[j, 1:], a[j]]) <= minimize(f, np.zeros(k), tol=1e-9).fun + 1e-6
    assert (item_newton(np.zeros((2, k)), np.ones(2), counts, trait=False, steps=9)[1] == 0).all()


def test_an_integrated_likelihood_is_that_of_a_sum_over_shares():
    "Uniform prior, two levels: the integral of p^a (1 − p)^b is a beta function; a certain prior: the multinomial"
    n = np.array([[3.0, 2.0]])
    assert dirichlet_multinomial(n, np.array([0.5, 0.5]), 2.0) == pytest.approx(np.log(1 / 60))
    assert dirichlet_multinomial(n, np.array([0.6, 0.4]), 1e5) == pytest.approx(
        3 * np.log(0.6) + 2 * np.log(0.4), abs=1e-3
    )


def test_a_class_cut_out_of_honest_people_is_refused():
    s, bad = bench.planted(300, 0.0, 4)
    items = [t.codes for t in batteries(s, False)]
    level = sum(c.mean(1) for c in items)
    cut = (level > np.quantile(level, 0.6)) * 1.0
    assert not independent(items, np.c_[1 - cut, cut])
    s, bad = bench.planted(300, 0.3, 4)
    items = [t.codes for t in batteries(s, False)]
    assert independent(items, np.c_[~bad, bad] * 1.0) and not independent(items, np.c_[bad, ~bad] * 1.0)
    assert dependence(items, bad * 1.0) < 0.01 < 0.03 < dependence(items, ~bad * 1.0)


def test_parameters_are_counted():
    data, m = tiny()
    genuine_ = (2 * 2 + 2 + 1) + (3 * 1 + 3 + 1) + 8
    assert (
        m.n_parameters(data) == genuine_ + 2 + 2 * 2
    )  # two shares, and levels of the items of one class; none for coins
    assert replace(m, kinds=("scale", "flat")).n_parameters(data) == genuine_ + 2 + 2


def test_em_climbs_and_seeds_agree(half):
    s, bad, q = half
    sample = Sample.of(batteries(s))
    m, last = start(sample, np.tile([0.6, 0.4], (s.n, 1)) * 1.0, ("flat",)), -np.inf
    for _ in range(15):
        e = expectation(m, sample)
        assert e.loglik > last
        last, m = e.loglik, maximisation(m, sample, e)
    again, other = genuine(s), genuine(s, seed=9)
    assert again.log_odds.tobytes() == q.log_odds.tobytes() and np.abs(other.p_genuine - q.p_genuine).max() < 0.02


def test_genuine_is_the_class_that_hangs_together_whatever_its_size_and_the_direction_of_the_scale(half):
    s, bad, q = half
    few, rare = bench.planted(400, 0.8, 3)
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
        q.best_mixture.bic < q.criteria.bic[0]
        and q.best_mixture.loglik > q.criteria.loglik[0]
        and q.correlation["genuine"] > 0.2 > 0.05 > abs(q.correlation["other"])
    )


@pytest.mark.parametrize("n, seed", [(300, 0), (600, 1)])
def test_nobody_is_flagged_where_nobody_is_careless(n, seed):
    s, bad = bench.planted(n, 0.0, seed)
    q = genuine(s)
    assert (
        not bad.any()
        and not q.several
        and (q.p_genuine == 1).all()
        and q.share == 1
        and q.criteria.bic[0] < q.best_mixture.bic
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
        and f"{q.criteria.bic[0]:,.0f}" in text
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
    for f, g in itertools.product(range(11), repeat=2):  # f flagged of the 10 genuine and g flagged of the 10 others
        shown = flag_counts(np.r_[np.arange(10) < f, np.arange(10) < g], np.arange(20) < 10)
        assert shown[1:] == ([None, None] if 0 < f < 5 or 0 < g < 5 else [[f, 10], [g, 10]])


def test_every_sign_has_a_source(half):
    assert set(half[2].indices) - {"mahalanobis"} <= set(SIGNS) and all(sign.source for sign in SIGNS.values())


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


def test_scale_fits_on_a_sample_and_judges_everybody():
    s, bad = bench.planted(4_000, 0.2, 0)
    data = batteries(s)
    m, tried = fit_mixture(data, np.arange(s.n), max_fit=400)
    odds = log_odds(m, data, block=1_000)
    assert len(tried[0].e.r) == 400 and bench.auroc(~bad, odds) > 0.98 and abs((odds < 0).mean() - 0.2) < 0.04
