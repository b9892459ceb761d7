"""Every switch of the config changes training when it is flipped; one that does nothing fails here."""

import numpy as np, pytest, torch
from turnover_nb.models.checkpoint import predict
from turnover_nb.models.gnn.config import PRESETS, Config, family_settings, make_config
from turnover_nb.graph.graph import build_graph
from turnover_nb.runs.run import model_graph, run_one
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.models.trainer import Trainer, fit

TINY = dict(hidden=16, heads=2, epochs=4, patience=4, stage2_epochs=7, stage2_patience=7)


@pytest.fixture(scope="module")
def survey():
    return make_synthetic(n_employees=90, seed=3).survey


@pytest.fixture(scope="module")
def splits(survey):
    return {p: make_split(survey, seed=0, preference=p, n_known=3) for p in ("cold", "warm")}


@pytest.fixture(scope="module")
def trained(survey, splits):
    "Weights and losses of a config, each trained once"
    done = {}

    def get(preset, protocol="cold", **more):
        key = preset, protocol, tuple(sorted(more.items()))
        if key not in done:
            c = make_config(preset, **{**TINY, **more})
            f = fit(model_graph(survey, splits[protocol], c), c, seed=0)
            done[key] = f, [{k: v for k, v in r.items() if not k.startswith("sampler")} for r in f.history]
        return done[key]

    return get


SWITCHES = dict(
    hard_negatives=dict(hard_ratio=0.0),
    hard_ratio=dict(hard_ratio=1.0),
    cache_size=dict(cache_size=2),
    cache_every=dict(cache_every=1),
    observed=dict(observed_negatives=False),
    more_negatives=dict(n_negatives=3),
    no_further_negatives=dict(n_negatives=0),
    hard_weight=dict(hard_weight=1.0),
    ranking_regulariser=dict(rank_weight=0.0),
    two_stages=dict(two_stages=False),
    freeze=dict(freeze=1),
    freeze_more=dict(freeze=2),
    dot=dict(preference_head="dot"),
    dual=dict(preference_head="dual"),
    utility=dict(preference_head="utility"),
    per_relation=dict(per_relation=True),
    sage=dict(encoder="sage"),
    rgcn=dict(encoder="rgcn"),
    mlp=dict(encoder="mlp"),
    layers=dict(layers=1),
    attention_heads=dict(heads=4),
    dropout=dict(dropout=0.0),
    focal_alpha=dict(focal_alpha=0.5),
    focal_gamma=dict(focal_gamma=0.0),
    bce=dict(turnover_loss="bce"),
    smoothing=dict(smoothing=0.1),
    graphcl=dict(contrast=0.1),
    uncertainty=dict(weighting="uncertainty"),
    alpha=dict(alpha=0.6),
    beta=dict(beta=0.3),
    colleagues=dict(colleagues=True),
    weight_decay=dict(weight_decay=0.1),
    relation_decay=dict(relation_decay=0.5),
    clip=dict(clip=1e-3),
    lr=dict(lr=1e-2),
    stage2_lr=dict(stage2_lr=1e-2),
    **{f"loss_{k}": dict(preference_loss=k) for k in ("choice", "margin", "bpr", "sampled_softmax")},
)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_training(trained, name):
    a, before = trained("v6_twostage")
    b, after = trained("v6_twostage", **SWITCHES[name])
    assert [{k: v for k, v in r.items() if k != "selected"} for r in before] != [
        {k: v for k, v in r.items() if k != "selected"} for r in after
    ]
    losses = lambda h: [[v for k, v in r.items() if k.startswith("valid")] for r in h]
    assert losses(before) != losses(after), "only the record changed, not the model"


@pytest.mark.parametrize(
    "name, off, on",
    [
        ("plateau", dict(plateau=0), dict(plateau=1)),
        ("temperature", dict(contrast=0.5), dict(contrast=0.5, temperature=0.1)),
        ("drop_edge", dict(contrast=0.5), dict(contrast=0.5, drop_edge=0.6)),
        ("mask_feature", dict(contrast=0.5), dict(contrast=0.5, mask_feature=0.7)),
        ("max_group", dict(colleagues=True), dict(colleagues=True, max_group=4)),
    ],
)
def test_a_switch_of_a_switch(trained, name, off, on):
    more = dict(stage2_epochs=30, stage2_patience=30, stage2_lr=1e-2) if name == "plateau" else {}
    assert trained("v6_twostage", **off, **more)[1] != trained("v6_twostage", **on, **more)[1]


# A margin acts only where some differences of utilities exceed it: train long enough for that, and from a small margin on.
LONG = dict(stage2_lr=3e-2, stage2_epochs=40, stage2_patience=40, margin=0.2, margin_min=0.1)


@pytest.mark.parametrize(
    "name, change",
    [
        ("adaptive_margin", dict(margin_step=0.0)),
        ("margin_step", dict(margin_step=0.3)),
        ("margin", dict(margin=0.4)),
        ("margin_max", dict(margin_max=0.3)),
        ("margin_min", dict(margin_min=0.2)),
    ],
)
def test_a_switch_of_the_margin(trained, name, change):
    a, b = trained("v6_twostage", **LONG)[1], trained("v6_twostage", **{**LONG, **change})[1]
    assert [r["valid_preference_loss"] for r in a] != [r["valid_preference_loss"] for r in b]


def test_warm_answers_as_edges_change_training(trained):
    assert trained("v6_twostage", "warm")[1] != trained("v6_twostage", "warm", answers=False)[1]


def test_select_and_patience_choose_the_epoch(trained):
    chosen = {
        s: trained("hgt", select=s, epochs=25, patience=25, lr=1e-2)[0].best_epochs["stage1"]
        for s in ("loss", "turnover_loss", "preference_loss", "preference_accuracy")
    }
    assert len(set(chosen.values())) > 1
    assert len(trained("hgt", epochs=40, patience=1, lr=0.1)[1]) < 40


# the statistical family: what a part changes, and only that
BEST = dict(epochs=12, stage2_epochs=12, draws=8)
TURNOVER_PARTS = dict(
    linear=dict(linear=False),
    products=dict(products=False),
    network=dict(network=0),
    width=dict(network=8),
    colleagues=dict(colleague_features=False),
    messages=dict(residual_messages=False),
    sage=dict(branch="sage"),
    hgt=dict(branch="hgt"),
    rgcn=dict(branch="rgcn"),
    soft=dict(likelihood_target="soft"),
    no_likelihood=dict(likelihood_target="none"),
    strength=dict(strength=3.0),
    lr=dict(lr=0.05),
    epochs=dict(epochs=13),
    one_stage=dict(two_stages=False),
    family=dict(family="gnn", hidden=16, heads=2),
)
PREFERENCE_PARTS = dict(
    tastes=dict(tastes=0),
    fewer_tastes=dict(tastes=2),
    coin=dict(coin=False),
    features=dict(taste_features=False),
    turnover=dict(taste_turnover=False),
    draws=dict(draws=10),
    scales=dict(scale_scores=False),
    shared=dict(shared_nodes=False),
    strength=dict(strength=3.0),
    lr=dict(stage2_lr=0.1),
    epochs=dict(stage2_epochs=13),
    one_stage=dict(two_stages=False),
    family=dict(family="gnn", hidden=16, heads=2),
    answers=dict(answers=False),
)


@pytest.mark.parametrize(
    "task, name", [("turnover", n) for n in TURNOVER_PARTS] + [("preference", n) for n in PREFERENCE_PARTS]
)
def test_a_part_of_best_changes_training(survey, splits, task, name):
    def losses(**more):
        c = make_config("best", **{**BEST, **more})
        f = fit(model_graph(survey, splits["warm"], c), c, seed=0)
        return [r[f"valid_{task}_loss"] for r in f.history if f"valid_{task}_loss" in r], f.best_epochs

    (a, kept), (b, other) = losses(), losses(**(TURNOVER_PARTS if task == "turnover" else PREFERENCE_PARTS)[name])
    assert a[-1] != b[-1] and (kept == other or name in ("epochs", "one_stage", "family"))


@pytest.mark.parametrize(
    "name, off, on",
    [
        ("alpha", dict(), dict(alpha=0.2)),
        ("beta", dict(), dict(beta=0.9)),
        ("colleagues", dict(branch="sage"), dict(branch="sage", colleagues=True)),
        ("max_group", dict(branch="sage", colleagues=True), dict(branch="sage", colleagues=True, max_group=4)),
    ],
)
def test_a_switch_of_a_part_of_best(survey, splits, name, off, on):
    def weights(**more):
        c = make_config("best", two_stages=False, **{**BEST, **more})
        return list(fit(model_graph(survey, splits["cold"], c), c, seed=0).model.turnover_part.parameters())

    a, b = weights(**off), weights(**on)
    assert len(a) == len(b) or "colleagues" in name
    assert any(x.shape != y.shape or not torch.equal(x, y) for x, y in zip(a, b))


def test_every_field_of_the_config_is_flipped_here():
    parts = {k for s in (*TURNOVER_PARTS.values(), *PREFERENCE_PARTS.values()) for k in s} | {
        "alpha",
        "beta",
        "colleagues",
        "max_group",
        "answer_quality",
    }  # needs careless people: tests/test_best.py
    assert parts >= family_settings("statistical")
    flipped = (
        {k for s in SWITCHES.values() for k in s}
        | parts
        | {
            "plateau",
            "temperature",
            "drop_edge",
            "mask_feature",
            "max_group",
            "answers",
            "select",
            "patience",
            "contrast",
            "margin",
            "margin_step",
            "margin_max",
            "margin_min",
        }
    )
    others = {"epochs", "stage2_epochs", "stage2_patience", "hidden", "heads"}  # sizes, set in TINY
    assert flipped | others >= set(Config.model_fields)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_and_passes_the_audit(survey, splits, preset):
    r = run_one(survey, splits["warm"], preset, config=make_config(preset, **TINY), n_boot=20)
    assert r.results.audit["passed"] and set(r.results.facts["best_epochs"]) == (
        {"stage1", "stage2"} if make_config(preset).two_stages else {"stage1"}
    )


# the traps of the original work
def test_hard_negatives_act_from_the_first_epoch_of_stage_2(trained):
    "Its cache first filled at epoch 5, after the epoch that was kept"
    f, _ = trained("v6_twostage")
    first = next(r for r in f.history if r["stage"] == "stage2")
    assert (
        first["sampler_refreshed"] == 0 and first["sampler_fill_rate"] > 0 and 0.5 < first["sampler_share_hard"] < 0.9
    )


def test_the_margin_moves_with_the_validation_accuracy(trained):
    f, _ = trained("v6_twostage", **LONG)
    h = [r for r in f.history if r["stage"] == "stage2"]
    for a, b in zip(h, h[1:]):
        acc = a["valid_preference_accuracy"]
        want = a["margin"] + 0.1 * ((acc > 0.6) - (acc < 0.52))
        assert b["margin"] == pytest.approx(min(max(want, 0.1), 3.0))
    assert len({r["margin"] for r in h}) > 1


def test_no_negative_was_chosen_by_the_person_in_training(survey, splits):
    c = make_config("v6_twostage", **TINY)
    g = model_graph(survey, splits["cold"], c)
    t = Trainer(g, c, 0)
    sup, data = g.supervision("train"), g.at("train")
    t.objective.refresh_cache(t.model, data, 0)
    chosen = set(zip(sup.employee[sup.chosen].tolist(), sup.post[sup.chosen].tolist()))
    for _ in range(20):
        at, post, _ = t.objective.negatives(sup)
        who = sup.employee[sup.ptr[:-1]][at]
        assert not set(zip(who.tolist(), post.tolist())) & chosen


@pytest.mark.parametrize("head", ["concat", "dot", "dual", "utility"])
def test_the_evaluated_score_is_the_trained_score(survey, splits, head):
    "Utilities of the predictions give back the validation loss of the kept epoch, for every head"
    c = make_config("v6_twostage", preference_head=head, **TINY)
    g = model_graph(survey, splits["cold"], c)
    f = fit(g, c, 0)
    kept = [r for r in f.history if r["stage"] == "stage2"][f.best_epochs["stage2"]]
    u = predict(f.model, g, "valid")["utility"].reshape(-1, 2)
    chosen = g.supervision("valid").chosen.numpy().reshape(-1, 2)
    d = u[chosen] - u[~chosen]
    assert np.log1p(np.exp(-d)).mean() == pytest.approx(kept["valid_preference_loss"], rel=1e-5)


def test_warm_scores_are_those_that_were_trained_without_answers_as_edges(survey, splits):
    c = make_config("hgt", answers=False, **TINY)
    g = model_graph(survey, splits["warm"], c)
    f = fit(g, c, 0)
    u = predict(f.model, g, "valid")["utility"].reshape(-1, 2)
    chosen = g.supervision("valid").chosen.numpy().reshape(-1, 2)
    assert np.log1p(np.exp(u[~chosen] - u[chosen])).mean() == pytest.approx(
        f.history[f.best_epochs["stage1"]]["valid_preference_loss"], rel=1e-5
    )


def test_f1_at_one_half_needs_a_probability_above_it(survey, splits):
    "Focal loss with α = .25 keeps all probabilities low: F1 at .5 is 0 although the ranking is not"
    low = run_one(
        survey,
        splits["cold"],
        "v6_twostage",
        config=make_config("v6_twostage", **{**TINY, "epochs": 30, "patience": 30}),
        n_boot=0,
    )
    p = low.scores.turnover[np.isfinite(low.scores.turnover)]
    assert (p.max() < 0.5) == (low.results.turnover["f1_50"].value in (0, None))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(survey, splits, tmp_path):
    c = make_config("v6_twostage", **TINY)
    g = model_graph(survey, splits["cold"], c)
    seen = []

    def poison(r):
        seen.append(r)
        if len(seen) == 3:
            t.objective.turnover_loss = lambda logit, y, **kw: logit.sum() * torch.nan

    t = Trainer(g, c, 0)
    for _ in range(3):
        poison(t.run_epoch())
        t.save(tmp_path / "s.pt", {})
    with pytest.raises(FloatingPointError, match="stage1, epoch 3, batch 0"):
        t.run_epoch()
    again = Trainer(g, c, 0)
    again.load(tmp_path / "s.pt")
    assert again.epoch == 3 and all(torch.isfinite(p).all() for p in again.model.parameters())


def test_a_person_who_chose_every_post_is_named(survey, splits):
    import dataclasses

    t = survey.choices.table.copy()
    first = t[t.employee == splits["cold"].train[0]].index
    posts = survey.posts.iloc[:7]
    t["post"] %= 7
    s = dataclasses.replace(
        survey,
        posts=posts,
        relations={k: dataclasses.replace(r, posts=None) for k, r in survey.relations.items()},
        choices=dataclasses.replace(survey.choices, table=t),
    )
    s.choices.table.loc[first, "post"] = np.arange(7).repeat(2)
    with pytest.raises(ValueError, match="person 0"):
        Trainer(build_graph(s, splits["cold"]), make_config("v6_twostage", **TINY), 0)


def test_a_stage_without_anything_to_supervise_is_named(survey, splits):
    import dataclasses

    c, train = make_config("v6_twostage", **TINY), splits["cold"].train
    y = survey.turnover.copy()
    y[train] = np.nan
    with pytest.raises(ValueError, match="stage1, epoch 0: nothing to train on: 0 turnover labels"):
        fit(build_graph(dataclasses.replace(survey, turnover=y), splits["cold"]), c, 0)
    t = survey.choices.table
    keep = ~t.employee.isin(train)
    few = dataclasses.replace(
        survey.choices,
        table=t[keep]
        .assign(situation=lambda d: d.situation.rank(method="dense").astype("int64") - 1)
        .reset_index(drop=True),
    )
    split = dataclasses.replace(splits["cold"], known=np.zeros(few.n, bool))
    with pytest.raises(ValueError, match="no training employee has answered a choice task"):
        build_graph(dataclasses.replace(survey, choices=few), split)


def test_fewer_posts_than_the_cache_still_trains(survey, splits):
    f = fit(build_graph(survey, splits["cold"]), make_config("v6_twostage", **{**TINY, "cache_size": 50}), 0)
    last = f.history[-1]
    assert last["sampler_share_hard"] > 0.5 and 0 < last["sampler_fill_rate"] < 0.5  # 14 posts cannot fill 50 places
