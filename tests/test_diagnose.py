"""A run's diagnosis from its own files: hand-made runs whose verdicts are known, each both ways, and a real one."""

import itertools, json
import numpy as np, pandas as pd, pytest, torch, yaml
from turnover_nb.runs.collect import Runs, read_results
from turnover_nb.models.gnn.config import make_config
from turnover_nb.evaluate.bootstrap import mean_interval
from turnover_nb.evaluate.calibration import platt
from turnover_nb.runs.diagnose import QUESTIONS, best_scalar, diagnose, diagnosis_rows, focal_posterior, random_aupr
from turnover_nb.models.gnn.losses import FocalLoss
from turnover_nb.runs.run import run_one, write_run
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic

est = lambda v, low=None, high=None: dict(value=v, low=low, high=high)


def people(p, y, phase="test"):
    "Turnover predictions of a phase"
    return pd.DataFrame(
        dict(
            task="turnover",
            phase=phase,
            employee=[f"{phase}{i}" for i in range(len(p))],
            score=p,
            probability=p,
            label=np.asarray(y, float),
        )
    )


def choices(u, chosen, phase="test", available=None, tasks=5):
    "Preference predictions: utilities [S, m], chosen alternative [S]; each person has `tasks` situations"
    S, m = u.shape
    s = np.repeat(np.arange(S), m)
    return pd.DataFrame(
        dict(
            task="preference",
            phase=phase,
            employee=[f"{phase}{i // tasks}" for i in s],
            situation=s * 1.0,
            alternative=np.tile(np.arange(m), S).astype(str),
            score=u.ravel(),
            probability=0.5,
            label=(np.tile(np.arange(m), S) == np.repeat(chosen, m)) * 1.0,
            available=np.ones(S * m, bool) if available is None else available.ravel(),
        )
    )


def by_logit(S, scale=1.0, m=2, seed=0):
    "Utilities and choices of a logit model, utilities then multiplied by `scale`"
    rng = np.random.default_rng(seed)
    u = rng.normal(0, 1, (S, m))
    return u * scale, (u + rng.gumbel(size=(S, m))).argmax(1)


def by_risk(n, base=-1.5, seed=0):
    "Risks of leaving and who leaves"
    rng = np.random.default_rng(seed)
    risk = 1 / (1 + np.exp(-rng.normal(base, 1, n)))
    return risk, (rng.random(n) < risk) * 1.0


SOME = [people(np.full(20, 0.2), np.arange(20) < 4, f) for f in ("valid", "test")] + [
    choices(*by_logit(40), f) for f in ("valid", "test")
]


@pytest.fixture
def run(tmp_path):
    "Write a run's folder by hand and diagnose it"

    def make(
        predictions=SOME,
        model="v6_twostage",
        config=(),
        facts=(),
        history=(),
        turnover=(),
        preference=(),
        name="run",
        ask=True,
        **more,
    ):
        d = tmp_path / name
        d.mkdir()
        frame = pd.concat(predictions, ignore_index=True)
        has = lambda t: t in set(frame.task)
        measured = {
            **dict(
                f1_50=est(0.0),
                f1=est(0.4),
                threshold=est(0.3),
                base_rate=est(0.2),
                ece=est(0.1),
                aupr=est(0.5, 0.3, 0.7),
                n=est(20),
                positives=est(4),
            ),
            **dict(turnover),
        }
        results = (
            dict(
                schema_version=1,
                variant=name,
                model=model,
                seed=0,
                split=dict(protocol="holdout", fold=None, n_train=10, n_valid=5, n_test=5),
                data=dict(name="made up", synthetic=True, employees=20, sources={}),
                turnover=measured if has("turnover") else None,
                preference=dict(
                    protocol="cold", n_known=0, metrics={**dict(accuracy=est(0.6, 0.55, 0.65)), **dict(preference)}
                )
                if has("preference")
                else None,
                bayes=None,
                facts=dict(facts),
                audit=dict(passed=True),
            )
            | more
        )
        (d / "results.json").write_text(json.dumps(results))
        frame.to_parquet(d / "predictions.parquet")
        (d / "config.yaml").write_text(
            yaml.safe_dump({**make_config(model if model.startswith("v") else "hgt").model_dump(), **dict(config)})
        )
        for s, h in dict(history).items():
            (d / f"{s}_history.json").write_text(json.dumps([dict(stage=s, epoch=i, **r) for i, r in enumerate(h)]))
        return diagnose(d, n_boot=300) if ask else d

    return make


def stage2(n, best, *fields, **more):
    "History and facts of a run whose last stage has n epochs; each field is (name, function of the epoch)"
    h = [{k: f(i) for k, f in fields} for i in range(n)]
    return dict(
        history=dict(stage1=[dict(margin=1.0)] * 3, stage2=h),
        facts=dict(best_epochs=dict(stage1=1, stage2=best), **more),
    )


# the focal loss
@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.35, 0.5, 0.7])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 2.5, 5.0])
def test_the_focal_loss_reaches_one_half_at_a_risk_of_one_minus_alpha(alpha, gamma):
    "By the training code's own loss, on a grid of scores"
    p = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    loss = FocalLoss(alpha, gamma)
    for risk in np.arange(0.05, 1, 0.1):
        values = torch.stack([loss(torch.logit(q), torch.full_like(q, float(risk))) for q in p.split(1)])
        best = p[values.argmin()].item()
        assert (best >= 0.5) == (risk >= 1 - alpha) or abs(risk - 1 + alpha) < 0.02
        if 0.05 < best < 0.95:
            assert focal_posterior(best, alpha, gamma) == pytest.approx(risk, abs=0.02)


def test_undoing_the_plain_likelihood_changes_nothing():
    p = np.array([0.01, 0.3, 0.5, 0.97])
    assert (
        focal_posterior(p, 0.5, 0.0) == pytest.approx(p)
        and np.isfinite(focal_posterior(np.array([0.0, 1.0]), 0.25, 2.0)).all()
    )


# 1. F1 at .5
def half(run, valid, test, **config):
    return run([people(*valid, "valid"), people(*test)], config=config)["f1_at_half"]


def test_f1_at_half_is_zero_by_the_focal_loss(run):
    p = np.linspace(0.05, 0.44, 60)
    y = np.arange(60) > 48
    f = half(run, (p, y), (p, y), turnover_loss="focal", focal_alpha=0.25, focal_gamma=2.0)
    assert (
        f.evidence["reason"] == "the loss"
        and f.evidence["risk_at_half"] == 0.75
        and f.evidence["largest_risk"] == pytest.approx(0.611, abs=0.001)
    )
    assert (
        f.answer.startswith("Nobody is predicted to leave with p ≥ .5: the largest of 60 test probabilities is 0.440")
        and "1 − α = 0.75" in f.answer
    )
    assert "focal_alpha=.5" in f.remedy and "threshold chosen on the validation people" in f.remedy


def test_f1_at_half_is_zero_by_the_focal_loss_in_part(run):
    p = np.linspace(0.05, 0.3, 60)
    y = np.arange(60) > 48
    f = half(run, (p, y), (p, y), turnover_loss="focal", focal_alpha=0.25, focal_gamma=2.0)
    assert (
        f.evidence["reason"] == "the loss in part"
        and f.evidence["risk_above_half"] == 0
        and "not the whole reason" in f.answer
    )


def test_f1_at_half_is_zero_because_few_leave(run):
    p = np.r_[np.full(80, 0.1), np.full(20, 0.4)]
    y = np.r_[np.arange(80) < 8, np.arange(20) < 8]
    f = half(run, (p, y), (p, y), turnover_loss="bce")
    assert (
        f.evidence["reason"] == "few leavers"
        and "no evidence of a bias" in f.answer
        and "focal" not in f.answer + f.remedy
    )
    same = half(
        lambda *a, **k: run(*a, name="b", **k), (p, y), (p, y), turnover_loss="focal", focal_alpha=0.5
    )  # α = .5 moves no threshold
    assert same.evidence["reason"] == "few leavers" and "focal_alpha=.5," not in same.remedy


def test_f1_at_half_is_zero_because_scores_are_too_low(run):
    p = np.linspace(0.01, 0.1, 80)
    y = np.arange(80) % 2
    f = half(run, (p, y), (p, y), turnover_loss="bce")
    assert (
        f.evidence["reason"] == "too low"
        and f.evidence["gap_low"] > 0
        and f.evidence["mean_probability"] == pytest.approx(0.055)
    )
    assert "difference 0.445" in f.answer


def test_f1_at_half_where_some_reach_it(run):
    p = np.r_[np.full(30, 0.1), np.full(10, 0.8)]
    y = p > 0.5
    f = half(run, (p, y), (p, y))
    assert (
        f.evidence["reason"] == "some reach .5"
        and f.answer.startswith("10 of 40 test people have p ≥ .5")
        and f.evidence["share_above_half"] == 0.25
    )


@pytest.mark.parametrize("shrink, word", [(0.3, "lower"), (1.0, "no evidence of a change")])
def test_calibration_by_the_validation_people(run, shrink, word):
    (pv, yv), (pt, yt) = by_risk(1500, seed=1), by_risk(600, seed=2)
    squeeze = lambda p: 1 / (1 + np.exp(-shrink * np.log(p / (1 - p))))
    f = half(run, (squeeze(pv), yv), (squeeze(pt), yt))
    e = f.evidence
    assert f"]: {word})" in f.remedy and e["platt_b"] == pytest.approx(1 / shrink, rel=0.2)
    assert (e["log_loss_platt"] < e["log_loss"] - 0.01 and e["ece_platt"] < e["ece"]) == (shrink < 1)


def test_calibration_needs_both_classes(run):
    f = half(run, (np.full(9, 0.2), np.zeros(9)), (np.linspace(0.1, 0.4, 20), np.arange(20) < 4))
    assert "platt_a" not in f.evidence and "Platt" not in f.remedy
    a, b = platt(np.r_[0, 0, 1, 1.0], np.r_[0.1, 0.2, 0.8, 0.9])  # separable: finite all the same
    assert np.isfinite([a, b]).all() and b > 0


def test_people_without_a_label_are_left_out(run):
    y = np.r_[np.zeros(30), np.ones(6), np.full(4, np.nan)]
    e = half(run, (np.linspace(0.1, 0.3, 40), y), (np.r_[np.linspace(0.1, 0.3, 36), np.full(4, 0.9)], y)).evidence
    assert e["n"] == 36 and e["largest_test"] == pytest.approx(0.3) and e["above_half"] == 0


# 2. hard negatives
def sampler(first, share=0.7):
    "Statistics of a cache that first fills at an epoch, then every fifth"
    at = lambda i: None if i < first else first + (i - first) // 5 * 5
    return (
        ("sampler_refreshed", at),
        ("sampler_fill_rate", lambda i: float(i >= first)),
        ("sampler_overlap", lambda i: 0.8 if i >= first + 5 else None),
        ("sampler_drawn", lambda i: 100),
        ("sampler_share_hard", lambda i: share * (i >= first)),
    )


@pytest.mark.parametrize(
    "first, best, acted, steps, refreshes", [(0, 11, True, 12, 3), (5, 1, False, 2, 0), (5, 9, True, 10, 1)]
)
def test_hard_negatives_acted_or_not(run, first, best, acted, steps, refreshes):
    f = run(**stage2(20, best, *sampler(first)))["hard_negatives"]
    e = f.evidence
    assert (e["acted"], e["steps"], e["refreshes"]) == (acted, steps, refreshes)
    assert (
        e["share_hard"] == pytest.approx(0.7 * max(0, best + 1 - first) / (best + 1))
        and ("They acted" in f.answer) == acted
    )
    if not acted:
        assert "next filled at epoch 5" in f.answer and "Credit nothing" in f.remedy


def test_a_filled_cache_that_nothing_was_drawn_from(run):
    f = run(**stage2(20, 3, *sampler(0, share=0.0)))["hard_negatives"]
    assert not f.evidence["acted"] and f.evidence["refreshes"] == 1 and "next filled at epoch 5" in f.answer


def test_hard_negatives_that_acted_for_few_steps(run):
    f = run(**stage2(20, 2, *sampler(0)))["hard_negatives"]
    assert f.evidence["acted"] and "But 3 steps hardly move a model" in f.answer and "hard_ratio=0" in f.remedy


@pytest.mark.parametrize("config", [dict(hard_ratio=0.0), dict(n_negatives=0), dict(preference_loss="choice")])
def test_hard_negatives_not_used(run, config):
    f = run(config=config, **stage2(9, 3, *sampler(0)))["hard_negatives"]
    assert f.answer.startswith("Not used") and f.evidence == dict(used=False)


# 3. false negatives
@pytest.mark.parametrize(
    "cached, random, n, harmful, words",
    [
        (0.7, 0.5, 100, True, ": a cache picks true choices more often"),
        (0.2, 0.5, 100, False, ": a cache picks true choices less often"),
        (0.55, 0.5, 30, False, "no evidence that a cache picks true choices more often"),
    ],
)
def test_false_negatives(run, cached, random, n, harmful, words):
    f = run(**stage2(9, 8, *sampler(0), negatives=dict(people=n, k=5, cached=cached, random=random)))["false_negatives"]
    assert f.evidence["harmful"] == harmful and words in f.answer and ("n_negatives=0" in f.remedy) == harmful
    assert f.evidence["low"] < cached < f.evidence["high"] and f.evidence["random"] == random


def test_false_negatives_of_a_run_without_hard_negatives(run):
    g = dict(people=100, k=5, cached=0.8, random=0.5)
    f = run(config=dict(preference_loss="choice"), **stage2(9, 8, negatives=g))["false_negatives"]
    assert "This run samples no hard negatives" in f.answer and f.remedy.startswith("Do not add")
    assert run(name="b", **stage2(9, 8, negatives=None))["false_negatives"].answer.startswith("Not applicable")


# 4. the margin
def test_the_margin_moved_before_the_kept_epoch(run):
    f = run(
        **stage2(
            20, 10, ("margin", lambda i: 1.0 + 0.1 * (i // 2)), ("valid_preference_accuracy", lambda i: 0.5 + 0.01 * i)
        )
    )["margin"]
    assert (
        f.evidence == dict(first=1.0, kept=1.5, last=pytest.approx(1.9), moves=5)
        and "5 moves" in f.answer
        and "between 0.500 and 0.590" in f.answer
        and not f.remedy
    )


def test_the_margin_moved_only_after_the_kept_epoch(run):
    f = run(**stage2(20, 3, ("margin", lambda i: 1.0 + 0.1 * (i > 5))))["margin"]
    assert (
        f.evidence["moves"] == 0
        and "0 moves" in f.answer
        and "fixed margin" in f.answer
        and "Credit nothing" in f.remedy
    )


def test_a_falling_margin_points_at_the_accuracy(run):
    f = run(**stage2(9, 6, ("margin", lambda i: 1.0 - 0.1 * min(i, 4)), ("valid_preference_accuracy", lambda i: 0.45)))[
        "margin"
    ]
    assert f.evidence["moves"] == 4 and f.evidence["kept"] == pytest.approx(0.6) and "accuracy was low" in f.remedy


@pytest.mark.parametrize(
    "config, words",
    [
        (dict(margin_step=0.0), "fixed at 1"),
        (dict(preference_loss="margin"), "fixed at 1"),
        (dict(preference_loss="bpr"), "has no margin"),
    ],
)
def test_no_adaptive_margin(run, config, words):
    assert words in run(config=config, **stage2(9, 3, ("margin", lambda i: 1.0)))["margin"].answer


# 5. the kept epoch
def test_the_kept_epoch_is_far_or_near(run):
    near, far = run(**stage2(20, 0))["selected_epoch"], run(name="b", **stage2(40, 17))["selected_epoch"]
    assert (
        near.evidence["few"]
        and "Stage 2 is 1 optimiser step away from stage 1" in near.answer
        and "Credit nothing" in near.remedy
    )
    assert (
        not far.evidence["few"]
        and far.evidence["steps"] == 18
        and "stage 2: epoch 17 of 40 run" in far.answer
        and not far.remedy
    )
    assert far.evidence["stage1_epoch"] == 1 and far.evidence["stage1_epochs"] == 3


@pytest.mark.parametrize("best, few", [(4, True), (5, False)])
def test_few_steps_are_five_at_most(run, best, few):
    assert run(**stage2(20, best))["selected_epoch"].evidence["few"] == few


def test_a_kept_epoch_that_is_the_last_allowed(run):
    f = run(config=dict(stage2_epochs=12), **stage2(12, 11))["selected_epoch"]
    assert f.evidence["unfinished"] and "raise the number of epochs" in f.remedy


def test_one_stage_starts_at_random(run):
    f = run(model="v5", facts=dict(best_epochs=dict(stage1=2)), history=dict(stage1=[dict(margin=1.0)] * 9))[
        "selected_epoch"
    ]
    assert (
        "3 optimiser steps away from its random start" in f.answer and f.evidence["few"] and "stage 2" not in f.remedy
    )


# 6. task conflict
@pytest.mark.parametrize(
    "cosine, word, remedy",
    [
        (lambda i: -0.3 + 0.01 * (i % 3), "conflict", "uncertainty"),
        (lambda i: 0.3 + 0.01 * (i % 3), "agreement", "None needed"),
        (lambda i: 0.2 * (-1) ** i, "mixed", ""),
        (lambda i: 0.3 if i % 3 == 0 else -0.1, "mixed", ""),
    ],
)
def test_task_conflict(run, cosine, word, remedy):
    f = run(**stage2(60, 20, ("gradient_cosine", lambda i: cosine(i // 5) if i % 5 == 0 else None)))["task_conflict"]
    v = [cosine(i) for i in range(12)]
    assert (
        f.evidence["word"] == word
        and f.evidence["epochs"] == 12
        and f.evidence["mean"] == pytest.approx(np.mean(v))
        and f.evidence["mean_kept"] == pytest.approx(np.mean(v[:5]))
    )
    assert (
        f.evidence["share_negative"] == np.mean(np.array(v) < 0)
        and remedy in f.remedy
        and bool(f.remedy) == bool(remedy)
    )


def test_task_conflict_of_few_epochs_or_one_task(run):
    assert (
        run(**stage2(9, 3, ("gradient_cosine", lambda i: -0.5 if i == 0 else None)))["task_conflict"].evidence["word"]
        == "too few"
    )
    assert run(SOME[:2], name="b", **stage2(9, 3))["task_conflict"].answer == "Not applicable: the run has one task."


# 7. scale
def choice_run(run, factor, m=2, name="run", loss="adaptive_margin"):
    return run(
        [choices(*by_logit(1500, factor, m, 3), "valid"), choices(*by_logit(800, factor, m, 4))],
        config=dict(preference_loss=loss),
        name=name,
        **stage2(9, 3),
    )["scale"]


@pytest.mark.parametrize("factor, word", [(6.0, "too large"), (0.1, "too small")])
def test_mis_scaled_utilities(run, factor, word):
    f = choice_run(run, factor)
    e = f.evidence
    assert (
        e["mis_scaled"]
        and e["scalar"] == pytest.approx(1 / factor, rel=0.15)
        and word in f.answer
        and e["log_loss_rescaled"] < e["log_loss"]
    )
    assert (
        "margin loss is no likelihood" in f.answer
        and "preference_loss='choice'" in f.remedy
        and e["gain_high"] < 0
        and e["log_loss_uniform"] == pytest.approx(np.log(2))
    )
    assert "margin loss" not in choice_run(run, factor, name="b", loss="choice").answer


def test_well_scaled_utilities(run):
    f = choice_run(run, 1.0, m=3)
    assert (
        not f.evidence["mis_scaled"]
        and "no evidence that they are mis-scaled" in f.answer
        and not f.remedy
        and f.evidence["log_loss_uniform"] == pytest.approx(np.log(3))
    )


def test_a_better_log_loss_on_few_people_is_no_evidence(run):
    e = run([choices(*by_logit(300, 1.5, seed=1), "valid"), choices(*by_logit(40, 1.5, seed=3))])["scale"].evidence
    assert e["change"] < 0 < e["change_high"] and not e["mis_scaled"]


def test_utilities_that_say_nothing(run):
    rng = np.random.default_rng(0)
    noise = [choices(rng.normal(0, 2, (300, 2)), rng.integers(0, 2, 300), f) for f in ("valid", "test")]
    assert "Rescaled, there is no evidence that they beat the guess" in run(noise)["scale"].answer
    assert (
        run([choices(np.zeros((30, 2)), np.zeros(30, int), f) for f in ("valid", "test")], name="b")["scale"].evidence[
            "scalar"
        ]
        is None
    )
    u, c = by_logit(500)
    turned = [choices(-u, c, f) for f in ("valid", "test")]
    f = run(turned, name="c")["scale"]
    assert f.evidence["scalar"] < 0 and "No scale mends" in f.remedy


def test_what_was_not_available_does_not_count(run):
    u, c = by_logit(400)
    wide = np.c_[u, np.full(400, 50.0)]
    open_ = np.c_[np.ones((400, 2), bool), np.zeros(400, bool)]
    plain, more = (
        run([choices(x, c, f, a) for f in ("valid", "test")], name=n)["scale"].evidence
        for x, a, n in ((u, None, "a"), (wide, open_, "b"))
    )
    assert more == pytest.approx(plain)


def test_the_scalar_against_a_grid():
    u, c = by_logit(300, 2.0)
    chosen = np.arange(2) == c[:, None]
    d = u[chosen] - u[~chosen]
    grid = np.linspace(0.05, 2, 391)
    best = grid[np.argmin([np.log1p(np.exp(-g * d)).mean() for g in grid])]
    assert best_scalar(u.ravel(), np.arange(301) * 2, chosen.ravel(), np.ones(600, bool)) == pytest.approx(
        best, abs=0.006
    )


# 8. longer training
def test_overfit_and_not(run):
    losses = lambda rise: [
        (f"{w}_{t}_loss", lambda i, w=w: 0.7 - 0.01 * i if w == "train" else 0.7 + rise * abs(i - 4))
        for w in ("train", "valid")
        for t in ("turnover", "preference")
    ]
    bad, good = (
        run(**stage2(20, 4, *losses(0.02)))["overfit"],
        run(name="b", config=dict(preference_loss="choice"), **stage2(20, 4, *losses(-0.001)))["overfit"],
    )
    assert (
        bad.evidence["overfits"] == 2
        and "training 0.660 → 0.510, validation 0.700 → 1.000" in bad.answer
        and "only their course compares" in bad.answer
        and "dropout" in bad.remedy
    )
    assert (
        good.evidence["overfits"] == 0 and "Nowhere" in good.answer and not good.remedy and "course" not in good.answer
    )
    assert good.evidence["stage2_turnover_valid_last"] == pytest.approx(0.685)


# 9. standing
@pytest.mark.parametrize(
    "low, high, above, word",
    [
        (0.35, 0.9, True, ": above chance"),
        (0.1, 0.9, False, "no evidence that it is above chance"),
        (0.05, 0.15, False, "below chance"),
        (0.25, 0.9, False, "no evidence that it is above chance"),
        (None, None, None, "no interval"),
    ],
)
def test_standing_of_turnover(run, low, high, above, word):
    f = run(SOME[:2], turnover=dict(aupr=est(0.4, low, high)))["standing"]
    assert f.evidence["turnover_above"] == above and word in f.answer and "a share of leavers of 0.200" in f.answer
    assert (
        f.evidence["turnover_chance"] == pytest.approx(random_aupr(20, 4))
        and 0.3 < random_aupr(20, 4) < 0.32
        and random_aupr(10**5, 2 * 10**4) == pytest.approx(0.2, abs=1e-3)
    )


def test_the_chance_of_aupr_is_that_of_a_random_order():
    "All orders of 6 people of whom 2 leave"
    every = [
        np.mean([(k + 1) / (i + 1) for k, i in enumerate(places)]) for places in itertools.combinations(range(6), 2)
    ]
    assert random_aupr(6, 2) == pytest.approx(np.mean(every))


def test_chance_of_a_choice_is_one_over_what_was_available(run):
    u, c = by_logit(60, m=4)
    d = run([choices(u, c, f) for f in ("valid", "test")], preference=dict(accuracy=est(0.35, 0.3, 0.4)))["standing"]
    assert d.evidence["preference_chance"] == 0.25 and d.evidence["preference_above"]
    assert not run(SOME, preference=dict(accuracy=est(0.52, 0.48, 0.56)), name="b")["standing"].evidence[
        "preference_above"
    ]


def test_a_failed_audit_and_the_planted_truth_are_told(run):
    d = run(audit=dict(passed=False), bayes=dict(turnover=dict(aupr=0.812), preference=dict(accuracy=0.7)))["standing"]
    assert "believe none of it" in d.answer and "the planted truth reaches 0.812" in d.answer


# whole diagnoses
def test_a_baseline_is_asked_about_its_scores_only(run):
    assert [f.key for f in run(SOME[:2], model="logistic").findings] == ["f1_at_half", "standing"]
    assert [f.key for f in run(SOME[2:], model="conditional_logit", name="b").findings] == ["scale", "standing"]
    assert "focal" not in str(run(SOME, model="majority", name="c", config=dict(turnover_loss="focal")))


def test_an_older_run_says_what_it_did_not_record(run):
    d = run(history=dict(stage1=[{}] * 3, stage2=[{}] * 9))
    said = {f.key for f in d.findings if "Not recorded" in f.answer}
    assert said == {"hard_negatives", "false_negatives", "margin", "selected_epoch", "task_conflict", "overfit"} and [
        f.key for f in d.findings
    ] == list(QUESTIONS)
    nothing = run(name="b")  # a graph model whose histories are gone
    assert {f.key for f in nothing.findings if "Not recorded" in f.answer} == said


@pytest.mark.parametrize(
    "file, text",
    [
        *((f, None) for f in ("results.json", "config.yaml", "predictions.parquet")),
        *(("results.json", t) for t in ("{", "[]", '{"schema_version": 99}', '{"schema_version": 1}')),
        ("config.yaml", "a: [1"),
        ("config.yaml", "- 1"),
        ("predictions.parquet", "x"),
        ("stage2_history.json", "[1]"),
        ("stage1_history.json", ""),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused_by_file(run, file, text):
    "Gone (None), or spoilt"
    d = run(ask=False, **stage2(5, 2))
    (d / file).unlink() if text is None else (d / file).write_text(text)
    with pytest.raises(ValueError, match=file.replace(".", r"\.") + (": missing" if text is None else "")):
        diagnose(d)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(ValueError, match="results.json"):
        diagnose(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="results.json"):
        diagnose(tmp_path / "file")


def test_intervals_count_people_not_rows():
    rng = np.random.default_rng(0)
    v = rng.normal(0, 1, 40)
    one, copies = mean_interval(v, np.arange(40)), mean_interval(np.repeat(v, 25), np.repeat(np.arange(40), 25))
    assert (
        copies["high"] - copies["low"] == pytest.approx(one["high"] - one["low"], rel=1e-6)
        and mean_interval(v, np.arange(40), 0)["low"] is None
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    "Two seeds of a tiny two-stage run, and a baseline"
    folder = tmp_path_factory.mktemp("sweep")
    s = make_synthetic(n_employees=90, seed=3).survey
    tiny = make_config(
        "v6_twostage",
        hidden=16,
        heads=2,
        epochs=12,
        patience=6,
        stage2_epochs=12,
        stage2_patience=12,
        stage2_lr=5e-3,
        lr=1e-2,
    )
    made = [
        run_one(s, make_split(s, seed=i), m, seed=i, config=tiny if m == "v6_twostage" else None, n_boot=50)
        for m, i in (("v6_twostage", 0), ("v6_twostage", 1), ("logistic", 0))
    ]
    paths = [write_run(r, folder / f"{r.results.variant}_{r.results.seed}") for r in made]
    return made, Runs(folder, {}, [read_results(p) for p in paths], paths)


def test_a_real_run(real):
    made, runs = real
    d, r = diagnose(runs.paths[0]), made[0]
    e = d.evidence
    last = [h for h in r.scores.history if h["stage"] == "stage2"]
    assert (
        [f.key for f in d.findings] == list(QUESTIONS)
        and str(d) == str(diagnose(runs.paths[0]))
        and len(d.frame()) == 9
    )
    assert (
        e["f1_at_half.largest_test"] == r.predictions.query("task == 'turnover' and phase == 'test'").probability.max()
        and e["f1_at_half.f1_50"] == r.results.turnover["f1_50"].value
    )
    assert e["f1_at_half.log_loss"] == pytest.approx(r.results.turnover["log_loss"].value) and e[
        "scale.log_loss"
    ] == pytest.approx(r.results.preference.metrics["log_loss"].value)
    best = r.results.facts["best_epochs"]["stage2"]
    assert (
        e["selected_epoch.steps"] == best + 1
        and e["margin.kept"] == last[best]["margin"]
        and e["hard_negatives.acted"]
        and 0.5 < e["hard_negatives.share_hard"] < 0.9
    )
    assert (
        e["standing.preference_chance"] == 0.5
        and e["overfit.stage2_preference_valid_kept"] == last[best]["valid_preference_loss"]
    )
    json.dumps(e)


def test_what_the_trainer_records_is_read(real):
    "Where the run has them: the cosine of the gradients and the false negatives"
    made, runs = real
    e = diagnose(runs.paths[0], 0).evidence
    v = [h["gradient_cosine"] for h in made[0].scores.history if h.get("gradient_cosine") is not None]
    if v:
        assert e["task_conflict.mean"] == pytest.approx(np.mean(v))
    if made[0].results.facts.get("negatives"):
        assert e["false_negatives.cached"] == made[0].results.facts["negatives"]["cached"]


def test_rows_of_a_sweep(real):
    _, runs = real
    rows = diagnosis_rows(runs)
    found = [diagnose(p, 0).evidence for p in runs.paths[:2]]
    assert (
        rows.model.tolist() == ["v6 two-stage"]
        and rows["largest p"][0] == f'{np.mean([e["f1_at_half.largest_test"] for e in found]):.3f}'
    )
    assert rows["steps of last stage kept"][0] == f'{np.mean([e["selected_epoch.steps"] for e in found]):.1f}'
    assert rows["log-loss rescaled"][0] == f'{np.mean([e["scale.log_loss_rescaled"] for e in found]):.3f}'
    assert len(diagnosis_rows(runs, ["logistic"])) == 0
    with pytest.raises(ValueError, match="no variant 'v7'"):
        diagnosis_rows(runs, ["v7"])


def test_rows_have_a_dash_where_nothing_applies(run):
    d = run(SOME[:2], ask=False, config=dict(preference_loss="choice"), **stage2(9, 3))
    r = diagnosis_rows(Runs(d.parent, {}, [read_results(d)], [d])).iloc[0]
    assert (
        (r["hard share"], r["margin kept"], r["false negatives: cached / random"], r["log-loss"]) == ("–",) * 4
        and r["share p ≥ .5"] == "0.000"
        and r["steps of last stage kept"] == "4.0"
    )
