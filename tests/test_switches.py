"""Every switch of the settings changes training when it is flipped; one that does nothing fails here."""

import dataclasses

import numpy as np
import pytest
import torch

from turnover_nb.data.split import make_split
from turnover_nb.graph.audit import leak_audit
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.gnn.model import GraphNetwork
from turnover_nb.models.gnn.recipe import NetworkRecipe
from turnover_nb.models.gnn.settings import NetworkSettings
from turnover_nb.models.registry import make_model, make_settings, members
from turnover_nb.models.relational.settings import RelationalSettings
from turnover_nb.models.trainer import Trainer
from turnover_nb.synthetic.world import make_synthetic

TINY = dict(hidden=16, heads=2, epochs=4, patience=4, stage2_epochs=7, stage2_patience=7)
FAST = dict(epochs=12, stage2_epochs=12, draws=8)  # of the relational model


@pytest.fixture(scope="module")
def survey():
    return make_synthetic(n_employees=60, seed=3).survey


@pytest.fixture(scope="module")
def graphs(survey):
    return {p: build_graph(survey, make_split(survey, seed=0, preference=p, n_known=3)) for p in ("cold", "warm")}


@pytest.fixture(scope="module")
def trained(graphs):
    "A model, each trained once"
    done = {}

    def get(name, protocol="cold", **more):
        key = name, protocol, tuple(sorted(more.items()))
        if key not in done:
            done[key] = make_model(name, **more).fit(graphs[protocol])
        return done[key]

    return get


def network(trained, name, protocol="cold", **more):
    return trained(name, protocol, **{**TINY, **more})


def validated(model):
    return [[v for k, v in r.items() if k.startswith("valid")] for r in model.history]


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
    a, b = network(trained, "v6_twostage"), network(trained, "v6_twostage", **SWITCHES[name])
    assert validated(a) != validated(b)


OF_A_SWITCH = dict(
    plateau=(dict(plateau=0), dict(plateau=1)),
    temperature=(dict(contrast=0.5), dict(contrast=0.5, temperature=0.1)),
    drop_edge=(dict(contrast=0.5), dict(contrast=0.5, drop_edge=0.6)),
    mask_feature=(dict(contrast=0.5), dict(contrast=0.5, mask_feature=0.7)),
    max_group=(dict(colleagues=True), dict(colleagues=True, max_group=4)),
)


@pytest.mark.parametrize("name", OF_A_SWITCH)
def test_a_switch_of_a_switch(trained, name):
    more = dict(stage2_epochs=30, stage2_patience=30, stage2_lr=1e-2) if name == "plateau" else {}
    a, b = (network(trained, "v6_twostage", **change, **more) for change in OF_A_SWITCH[name])
    assert a.history != b.history


# A margin acts only where some differences of utilities exceed it: train long enough for that, from a small margin on.
LONG = dict(stage2_lr=3e-2, stage2_epochs=40, stage2_patience=40, margin=0.2, margin_min=0.1)
MARGIN = dict(
    adaptive_margin=dict(margin_step=0.0),
    margin_step=dict(margin_step=0.3),
    margin=dict(margin=0.4),
    margin_max=dict(margin_max=0.3),
    margin_min=dict(margin_min=0.2),
)


@pytest.mark.parametrize("name", MARGIN)
def test_a_switch_of_the_margin(trained, name):
    a, b = (network(trained, "v6_twostage", **{**LONG, **change}) for change in ({}, MARGIN[name]))
    assert [r["valid_preference_loss"] for r in a.history] != [r["valid_preference_loss"] for r in b.history]


def test_warm_answers_as_edges_change_training(trained):
    a, b = (network(trained, "v6_twostage", "warm", **change) for change in ({}, dict(answers=False)))
    assert a.history != b.history


def test_select_and_patience_choose_the_epoch(trained):
    quantities = ("loss", "turnover_loss", "preference_loss", "preference_accuracy")
    long = dict(epochs=25, patience=25, lr=1e-2)
    chosen = {s: network(trained, "hgt", select=s, **long).best_epochs["stage1"] for s in quantities}
    assert len(set(chosen.values())) > 1
    assert len(network(trained, "hgt", epochs=40, patience=1, lr=0.1).history) < 40


# the relational model: what a part changes, and only that
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
    answers=dict(answers=False),
)


@pytest.mark.parametrize(
    "task, name", [("turnover", n) for n in TURNOVER_PARTS] + [("preference", n) for n in PREFERENCE_PARTS]
)
def test_a_part_of_the_relational_model_changes_training(trained, task, name):
    change = (TURNOVER_PARTS if task == "turnover" else PREFERENCE_PARTS)[name]
    key = f"valid_{task}_loss"
    a, b = (trained("relational", "warm", **{**FAST, **c}) for c in ({}, change))
    last = lambda model: [r[key] for r in model.history if key in r][-1]
    assert last(a) != last(b) and (a.best_epochs == b.best_epochs or name in ("epochs", "one_stage"))


ONE_STAGE = dict(
    alpha=(dict(), dict(alpha=0.2)),
    beta=(dict(), dict(beta=0.9)),
    colleagues=(dict(branch="sage"), dict(branch="sage", colleagues=True)),
    max_group=(dict(branch="sage", colleagues=True), dict(branch="sage", colleagues=True, max_group=4)),
)


@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_switch_of_a_part(trained, name):
    a, b = (trained("relational", **FAST, two_stages=False, **c) for c in ONE_STAGE[name])
    a, b = (list(m.network.turnover_part.parameters()) for m in (a, b))
    assert len(a) == len(b) or name == "colleagues"
    assert any(x.shape != y.shape or not torch.equal(x, y) for x, y in zip(a, b))


def test_every_field_of_the_settings_is_flipped_here():
    keys = lambda *tables: {k for t in tables for s in t.values() for c in np.atleast_1d(s) for k in c}
    parts = keys(TURNOVER_PARTS, PREFERENCE_PARTS, ONE_STAGE)
    assert parts | {"answer_quality"} >= set(RelationalSettings.model_fields)  # careless people: test_relational_model
    flipped = keys(SWITCHES, OF_A_SWITCH, MARGIN) | {"answers", "select", "patience"}
    sizes = {"epochs", "stage2_epochs", "stage2_patience", "hidden", "heads"}  # set in TINY
    assert flipped | sizes >= set(NetworkSettings.model_fields)


@pytest.mark.parametrize("preset", members("presets"))
def test_every_preset_runs_and_passes_the_audit(graphs, preset):
    model = make_model(preset, **(FAST if preset == "relational" else TINY)).fit(graphs["warm"])
    assert leak_audit(model, graphs["warm"]).passed
    assert [*model.facts()["best_epochs"]] == ["stage1", "stage2"][: 1 + model.settings.two_stages]


# the traps of the original work
def test_hard_negatives_act_from_the_first_epoch_of_stage_2(trained):
    "Its cache first filled at epoch 5, after the epoch that was kept"
    first = next(r for r in network(trained, "v6_twostage").history if r["stage"] == "stage2")
    assert first["sampler_refreshed"] == 0 and first["sampler_fill_rate"] > 0 and 0.5 < first["sampler_share_hard"] < 0.9


def test_the_margin_moves_with_the_validation_accuracy(trained):
    h = [r for r in network(trained, "v6_twostage", **LONG).history if r["stage"] == "stage2"]
    for a, b in zip(h, h[1:]):
        acc = a["valid_preference_accuracy"]
        want = a["margin"] + 0.1 * ((acc > 0.6) - (acc < 0.52))
        assert b["margin"] == pytest.approx(min(max(want, 0.1), 3.0))
    assert len({r["margin"] for r in h}) > 1


def test_no_negative_was_chosen_by_the_person_in_training(graphs):
    g = graphs["cold"]
    recipe = NetworkRecipe(g, make_settings("v6_twostage", **TINY), 0)
    sup = g.supervision("train")
    recipe.refresh_cache(g.at("train"), 0)
    chosen = set(zip(sup.employee[sup.chosen].tolist(), sup.post[sup.chosen].tolist()))
    for _ in range(20):
        at, post, _ = recipe.negatives(sup)
        who = sup.employee[sup.ptr[:-1]][at]
        assert not set(zip(who.tolist(), post.tolist())) & chosen


def kept_loss(model, graph, stage):
    "Mean −log P(chosen) of the predictions, and the validation loss of the epoch that was kept"
    p = model.predict(graph, "valid")
    chosen = graph.supervision("valid").chosen.numpy().reshape(-1, 2)
    u = p.utility.reshape(-1, 2)
    kept = [r for r in model.history if r["stage"] == stage][model.best_epochs[stage]]
    return np.log1p(np.exp(u[~chosen] - u[chosen])).mean(), kept["valid_preference_loss"]


@pytest.mark.parametrize("head", ["concat", "dot", "dual", "utility"])
def test_the_evaluated_score_is_the_trained_score(trained, graphs, head):
    "Utilities of the predictions give back the validation loss of the kept epoch, for every head"
    more = {} if head == "concat" else dict(preference_head=head)
    mine, kept = kept_loss(network(trained, "v6_twostage", **more), graphs["cold"], "stage2")
    assert mine == pytest.approx(kept, rel=1e-5)


def test_warm_scores_are_those_that_were_trained_without_answers_as_edges(trained, graphs):
    mine, kept = kept_loss(network(trained, "hgt", "warm", answers=False), graphs["warm"], "stage1")
    assert mine == pytest.approx(kept, rel=1e-5)


def test_f1_at_one_half_needs_a_probability_above_it(trained, graphs):
    "Focal loss with α = .25 keeps all probabilities low: F1 at .5 is 0 although the ranking is not"
    low = network(trained, "v6_twostage", epochs=30, patience=30).predict(graphs["cold"])
    assert low.turnover.max() < 0.5 < np.ptp(low.turnover) * 100


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(graphs, tmp_path):
    settings = make_settings("v6_twostage", **TINY)
    t = Trainer(NetworkRecipe(graphs["cold"], settings, 0))
    for _ in range(3):
        t.run_epoch()
        t.save(tmp_path / "s.pt")
    t.recipe.turnover_loss = lambda logit, y, weight=None: logit.sum() * torch.nan
    with pytest.raises(FloatingPointError, match="stage1, epoch 3, batch 0"):
        t.run_epoch()
    again = Trainer(NetworkRecipe(graphs["cold"], settings, 0))
    again.load(tmp_path / "s.pt")
    assert again.epoch == 3 and all(torch.isfinite(p).all() for p in again.recipe.network.parameters())


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [2, 4, 7, 11])
def test_a_killed_run_goes_on_to_the_same_bits(trained, graphs, tmp_path, at):
    "Within a stage, at its end and at the end of all"
    whole = network(trained, "v6_optimized", weighting="uncertainty")
    seen = []

    def kill(record):
        seen.append(record)
        if len(seen) == at:
            raise Killed

    make = lambda: GraphNetwork(whole.settings)
    with pytest.raises(Killed):
        make().fit(graphs["cold"], progress=kill, resume=tmp_path / "r.pt")
    again = make().fit(graphs["cold"], resume=tmp_path / "r.pt")
    assert again.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(again.network.parameters(), whole.network.parameters()))


def test_a_person_who_chose_every_post_is_named(survey, graphs):
    split = graphs["cold"].split
    t = survey.choices.table.copy()
    first = t[t.employee == split.train[0]].index
    t["post"] %= 7
    t.loc[first, "post"] = np.arange(7).repeat(2)
    s = dataclasses.replace(
        survey,
        posts=survey.posts.iloc[:7],
        relations={k: dataclasses.replace(r, posts=None) for k, r in survey.relations.items()},
        choices=dataclasses.replace(survey.choices, table=t),
    )
    with pytest.raises(ValueError, match="person 0"):
        make_model("v6_twostage", **TINY).fit(build_graph(s, split))


def test_a_stage_without_anything_to_supervise_is_named(survey, graphs):
    split = graphs["cold"].split
    y = survey.turnover.copy()
    y[split.train] = np.nan
    with pytest.raises(ValueError, match="stage1, epoch 0: nothing to train on: 0 turnover labels"):
        make_model("v6_twostage", **TINY).fit(build_graph(dataclasses.replace(survey, turnover=y), split))
    t = survey.choices.table
    t = t[~t.employee.isin(split.train)].reset_index(drop=True)
    t["situation"] = t.situation.rank(method="dense").astype("int64") - 1
    few = dataclasses.replace(survey.choices, table=t)
    split = dataclasses.replace(split, known=np.zeros(few.n, bool))
    with pytest.raises(ValueError, match="no training employee has answered a choice task"):
        build_graph(dataclasses.replace(survey, choices=few), split)


def test_fewer_posts_than_the_cache_still_trains(trained):
    last = network(trained, "v6_twostage", cache_size=50).history[-1]
    assert last["sampler_share_hard"] > 0.5 and 0 < last["sampler_fill_rate"] < 0.5  # 14 posts cannot fill 50 places


def test_facts_say_how_often_a_hard_negative_would_be_false(trained, graphs):
    "With every post cached no better than a uniform draw"
    found = network(trained, "v6_twostage", cache_size=50).facts()["negatives"]
    assert found["cached"] == pytest.approx(found["random"]) and found["people"] == len(graphs["cold"].split.test)
