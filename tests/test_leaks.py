"The leak audit passes what is clean and catches each planted leak by the right check"

import json
from dataclasses import dataclass, replace
import numpy as np
import pandas as pd
import pytest
import torch
from turnover_nb.core.tables import ColumnType
from turnover_nb.data.features import FeatureEncoder, model_features, model_relations
from turnover_nb.data.split import make_split
from turnover_nb.graph.audit import Audit, graph_audit, leak_audit
from turnover_nb.graph.rewrite import rewrite
from turnover_nb.graph.graph import Graph, build_graph, reverse
from turnover_nb.graph.phases import phase_people, touched_nodes
from turnover_nb.models.base import Prediction
from turnover_nb.models.registry import make_model
from turnover_nb.synthetic.world import make_synthetic
from worlds import world

TRAIN, VALID = "training does not see held-out people", "validation does not see test people"
LABELS, PROTECTED = "labels are no input", "protected columns are no input"
ANSWERED, COPY = "answers to be predicted are no input", "no feature copies the label"
APART, DESCRIBED = "posts are apart from current positions", "posts are described by their attributes"
SCORES, ALONE = "scores do not depend on the answers", "scores do not depend on other held-out people"


def failed(audit: Audit) -> set[str]:
    return set(audit.failed)


# --- clean graphs pass


@pytest.mark.parametrize('form', ['pairs', 'long', 'interactions'])
@pytest.mark.parametrize('preference', ['cold', 'warm'])
@pytest.mark.parametrize('protocol', ['holdout', 'kfold', 'group', 'time'])
def test_clean(form, preference, protocol):
    w = world(120, form=form, missing=0.1)
    y = w.turnover.copy()
    y[np.flatnonzero(y == 0)[:9]] = np.nan
    w = replace(w, turnover=y)
    kw = dict(kfold=dict(fold=1), group=dict(group='employer')).get(protocol, {})
    split = make_split(w, protocol, preference=preference, n_known=2, **kw)
    audit = graph_audit(build_graph(w, split, colleagues=['employer', 'position']))
    assert not audit.failed and audit.passed and all(c.passed for c in audit.checks)
    assert json.loads(json.dumps(audit.to_dict()))['checks'][0]['name'] == 'control'


LACKING = [
    dict(choices=None, posts=None),
    dict(turnover=None, likelihood=None),
    dict(relations={}),
    dict(protected=None),
    dict(features=pd.DataFrame(index=range(90)), types={}),
]


@pytest.mark.parametrize('lack', LACKING, ids=lambda d: next(iter(d)))
def test_clean_where_a_part_is_lacking(lack):
    w = replace(world(90), **lack)
    audit = graph_audit(build_graph(w, make_split(w, preference='warm')))
    assert audit.passed and audit['control'].passed
    # what is lacking is not checked
    assert any(c.passed is None for c in audit.checks) != ('relations' in lack or 'features' in lack)


# --- planted leaks: each is a graph that is wrong in one way


class Planted(Graph):
    "Employees' features with one more column"

    def employee_x(self):
        return np.column_stack([super().employee_x(), self.column()]).astype('float32')


class AllAnswers(Graph):
    "every answer is an edge, in every phase, and supervised nevertheless"

    def at(self, phase, messages=None):
        return self.answered(phase, np.isin(self.survey.choices.employee, phase_people(self.split, phase)))

    def answered(self, phase, m, only=None):
        d = super().at(phase)
        for t, e in self.answer_edges(phase, m).items():
            if only != 'reverse':
                d[t].edge_index = torch.from_numpy(e.copy())
            d[reverse(t)].edge_index = torch.from_numpy(e[::-1].copy())
        return d


class AnswersOneWay(AllAnswers):
    "… of test people only, and in the reverse direction only"

    def at(self, phase, messages=None):
        theirs = np.isin(self.survey.choices.employee, self.split.test)
        return self.answered(phase, theirs, 'reverse') if phase == 'test' else Graph.at(self, phase, messages)


class SupervisedMessages(Graph):
    "… of training: the message set is supervised too"

    def supervision(self, phase, messages=None):
        return super().supervision(phase, None if phase == 'train' else messages)


class PostsAreIds(Graph):
    "posts are one-hot numbers"

    def post_x(self):
        return np.eye(len(self.survey.posts), dtype='float32')


class PostsArePositions(Graph):
    "current positions and posts on offer share node numbers"

    def at(self, phase, messages=None):
        d = super().at(phase, messages)
        e = d['employee', 'has_position', 'position'].edge_index
        d['employee', 'works_as', 'post'].edge_index = torch.stack([e[0], d['position'].index[e[1]]])
        return d


def everybody(survey):
    return np.arange(survey.n)


class ScaledOnAll(Graph):
    "features are standardised over all rows"

    @classmethod
    def build(cls, survey, split, **kw):
        g = Graph.build(survey, split, **kw)
        enc = FeatureEncoder.fit(model_features(survey), survey.types, everybody(survey))
        return cls(survey, split, g.colleagues, g.max_group, enc, g.post_encoder, g.vocab)


class PostsScaledOnAll(Graph):
    "… posts over all posts, those of test people too"

    @classmethod
    def build(cls, survey, split, **kw):
        g = Graph.build(survey, split, **kw)
        enc = FeatureEncoder.fit(survey.posts, survey.post_types, np.arange(len(survey.posts)))
        return cls(survey, split, g.colleagues, g.max_group, g.encoder, enc, g.vocab)


class VocabularyOfAll(Graph):
    "… the vocabulary of relation nodes over everybody"

    @classmethod
    def build(cls, survey, split, **kw):
        g = Graph.build(survey, split, **kw)
        every = everybody(survey)
        vocab = {k: touched_nodes(r, every, None) for k, r in model_relations(survey).items() if r.labels is not None}
        return cls(survey, split, g.colleagues, g.max_group, g.encoder, g.post_encoder, g.vocab | vocab)


class ValidationScaled(Graph):
    "validation rows are imputed with the mean of everybody"

    def at(self, phase, messages=None):
        d = super().at(phase, messages)
        if phase == 'valid':
            d['employee'].x = d['employee'].x - self.employee_x().mean()
        return d


class LabelAsFeature(Planted):
    def column(self):
        return np.nan_to_num(self.survey.turnover)


class TrainingLabelAsFeature(Planted):
    "the labels of training people only"

    def column(self):
        return np.where(np.isin(everybody(self.survey), self.split.train), np.nan_to_num(self.survey.turnover), 0.2)


class LikelihoodAsFeature(Planted):
    def column(self):
        return self.survey.likelihood


class NoisyLikelihood(Planted):
    def column(self):
        return self.survey.likelihood + np.random.default_rng(0).normal(0, 1, self.survey.n)


class ColleagueRate(Planted):
    "share of leavers among the training people of one's firm, self included"

    def column(self):
        y, (e, k) = np.nan_to_num(self.survey.turnover), self.survey.relations['employer'].edges
        y = np.where(np.isin(everybody(self.survey), self.split.train), y, 0)
        return (np.bincount(k, y[e]) / np.maximum(np.bincount(k), 1))[k]


class ColleagueFeatures(Planted):
    "mean age at one's firm over everybody, held-out people too: transductive"

    def column(self):
        age, r = np.nan_to_num(self.survey.features.age), self.survey.relations['employer']
        (e, k), m = r.edges, r.size(0)
        return (np.bincount(k, age[e], minlength=m) / np.maximum(np.bincount(k, minlength=m), 1))[k]


class Protected(Planted):
    def column(self):
        return (self.survey.protected.sex == 'f').to_numpy()


class AnswerAsFeature(Planted):
    "share of first posts among all answers of a person"

    def column(self):
        t = self.survey.choices.table
        return t[t.alternative == 0].groupby('employee').chosen.mean().reindex(everybody(self.survey)).to_numpy()


class EverybodyInTraining(Graph):
    "held-out people are in the training graph"

    def members(self, phase):
        return super().members('test')


class Blind(Graph):
    "a recipe that ignores the survey it is given"

    def rebuild(self, survey):
        return self


class HalfBlind(Graph):
    "… or takes only the labels from it"

    def rebuild(self, survey):
        return super().rebuild(replace(self.survey, turnover=survey.turnover))


PLANTED = [
    (AllAnswers, 'pairs', {ANSWERED, TRAIN, VALID}, {ANSWERED}),
    (AnswersOneWay, 'pairs', {ANSWERED}, {ANSWERED}),
    (SupervisedMessages, 'pairs', {ANSWERED}, {ANSWERED}),
    (AnswerAsFeature, 'pairs', {ANSWERED, VALID, TRAIN}, {ANSWERED}),
    (PostsAreIds, 'pairs', {DESCRIBED}, {DESCRIBED}),
    (PostsArePositions, 'pairs', {APART}, {APART}),
    (ScaledOnAll, 'pairs', {TRAIN, VALID}, {TRAIN, VALID}),
    (PostsScaledOnAll, 'long', {TRAIN, VALID}, {TRAIN, VALID}),
    (ValidationScaled, 'pairs', {VALID}, {VALID}),
    (LabelAsFeature, 'pairs', {LABELS, COPY}, {LABELS, COPY}),
    (TrainingLabelAsFeature, 'pairs', {LABELS}, {LABELS}),
    (LikelihoodAsFeature, 'pairs', {LABELS, COPY}, {LABELS, COPY}),
    (NoisyLikelihood, 'pairs', {LABELS}, {LABELS}),
    (ColleagueRate, 'pairs', {LABELS, TRAIN, VALID}, {LABELS}),
    (ColleagueFeatures, 'pairs', {TRAIN, VALID}, {TRAIN, VALID}),
    (Protected, 'pairs', {PROTECTED}, {PROTECTED}),
    (EverybodyInTraining, 'pairs', {TRAIN, VALID, ANSWERED}, {TRAIN, VALID}),
    (Blind, 'pairs', {'control', DESCRIBED}, {'control'}),
    (HalfBlind, 'pairs', {'control', DESCRIBED}, {'control'}),
]


@pytest.mark.parametrize('leak,form,may,must', PLANTED, ids=[p[0].__name__ for p in PLANTED])
def test_planted_leak_is_caught_by_its_check(leak, form, may, must):
    w = world(90, form=form)
    split = make_split(w, preference='warm', n_known=2)
    found = failed(graph_audit(leak.build(w, split, colleagues=['employer'])))
    assert must <= found <= may


@pytest.mark.parametrize('preference', ['cold', 'warm'])
def test_all_answers_are_caught_under_either_protocol_and_the_tensor_is_named(preference):
    w = world(90)
    audit = graph_audit(AllAnswers.build(w, make_split(w, preference=preference)))
    assert not audit.passed and 'prefer' in audit[ANSWERED].detail and 'elements differ' in audit[ANSWERED].detail


def test_a_label_already_copied_in_the_file_is_found_by_correlation():
    w = world(90)
    types = w.types | dict(exit_code=ColumnType('numeric'))
    w = replace(w, features=w.features.assign(exit_code=3 - 2 * w.turnover), types=types)
    audit = graph_audit(build_graph(w, make_split(w)))
    assert failed(audit) == {COPY} and 'column exit_code: correlation 1.0000 with turnover' in audit[COPY].detail


def test_a_vocabulary_of_firms_that_training_never_saw_is_caught():
    w = world(90)
    split = make_split(w, 'group', group='employer')
    assert failed(graph_audit(VocabularyOfAll.build(w, split))) == {TRAIN, VALID}
    assert graph_audit(build_graph(w, split)).passed


def test_a_graph_of_another_split_is_caught():
    w = world(90)
    audit = graph_audit(replace(build_graph(w, make_split(w, seed=1)), split=make_split(w, seed=2)))
    assert {TRAIN, VALID} <= failed(audit)


# --- models: what they read, and their scores


@dataclass
class OnTheGraph:
    "A fixed linear model on the test graph: own features, known answers, and what it should not read"

    peek: float = 0.0  # at labels
    look: float = 0.0  # at answers

    def reads(self, graph):
        return graph

    def inputs(self, graph):
        return {}

    def predict(self, graph, phase="test", known=None):
        d, s = graph.at(phase), graph.supervision(phase)
        e = d["employee", "prefer", "post"].edge_index
        liking = torch.zeros(d["employee"].num_nodes).index_add(0, e[0], d["post"].x[e[1], 0])
        turnover = d["employee"].x.sum(1)[s.turnover_index] + self.peek * s.turnover
        utility = d["post"].x[s.post, 0] * liking[s.employee] + self.look * s.chosen
        people = d["employee"].index[s.turnover_index]
        return Prediction(people.numpy(), turnover.numpy(), s.rows.numpy(), utility.numpy())


@pytest.mark.parametrize("form", ["pairs", "long", "interactions"])
def test_honest_scores_pass_though_they_read_known_answers(form):
    w = world(90, form=form)
    w.turnover[np.flatnonzero(w.turnover == 0)[::3]] = np.nan
    g = build_graph(w, make_split(w, preference="warm", n_known=2))
    model = OnTheGraph()
    assert np.abs(model.predict(g).utility).sum() > 0 and leak_audit(model, g).passed


@pytest.mark.parametrize("kw,said", [(dict(peek=0.01), "turnover scores"), (dict(look=0.01), "utilities")])
def test_scores_that_peek_are_caught(kw, said):
    w = world(90)
    audit = leak_audit(OnTheGraph(**kw), build_graph(w, make_split(w, preference="warm", n_known=2)))
    assert failed(audit) == {SCORES} and said in audit[SCORES].detail


def test_a_model_that_reads_all_answers_moves_when_they_are_swapped():
    w = world(90)
    audit = leak_audit(OnTheGraph(), AllAnswers.build(w, make_split(w)))
    assert {ANSWERED, SCORES} <= failed(audit)


class ReadsALeakyGraph(OnTheGraph):
    "The graph that it is given is clean; the one that it makes of it is not"

    def reads(self, graph):
        return LabelAsFeature.build(graph.survey, graph.split)


def test_the_graph_that_a_model_reads_is_looked_at_and_not_the_one_it_is_given():
    w = world(90)
    g = build_graph(w, make_split(w))
    assert graph_audit(g).passed and {LABELS, COPY} <= failed(leak_audit(ReadsALeakyGraph(), g))


@dataclass
class Table:
    "A model without a graph: a table of what it reads, standardised over some people"

    fitted_on: str = "train"  # whose mean is taken: 'train' or 'all'
    extra: str = ""  # a column that it should not read
    relative: bool = False  # scores relative to those of the other people of the phase

    def reads(self, graph):
        return None

    def inputs(self, graph):
        s, split = graph.survey, graph.split
        age = np.nan_to_num(s.features.age.to_numpy())
        x = age - age[split.train if self.fitted_on == "train" else slice(None)].mean()
        more = dict(label=s.turnover, sex=(s.protected.sex == "f").to_numpy(float), answers=first_answers(s))
        columns = [x, *([more[self.extra]] if self.extra else [])]
        return dict(table=(np.stack(columns, 1), np.arange(s.n)))

    def predict(self, graph, phase="test", known=None):
        people = graph.split.people(phase)
        score = self.inputs(graph)["table"][0][people, 0]
        return Prediction(people, score - score.mean() if self.relative else score, None, None)


def first_answers(survey):
    t = survey.choices.table
    return t[t.alternative == 0].groupby("employee").chosen.mean().reindex(np.arange(survey.n)).to_numpy()


TABLES = [
    (Table(), set()),
    (Table(fitted_on="all"), {TRAIN, VALID, ALONE}),
    (Table(extra="label"), {LABELS, COPY}),
    (Table(extra="sex"), {PROTECTED}),
    (Table(extra="answers"), {ANSWERED}),
    (Table(relative=True), {ALONE}),
]


@pytest.mark.parametrize("model,must", TABLES, ids=lambda m: repr(m) if isinstance(m, Table) else "")
def test_a_model_without_a_graph_is_judged_by_its_inputs_and_scores(model, must):
    w = world(90)
    audit = leak_audit(model, build_graph(w, make_split(w)))
    assert failed(audit) == must
    assert audit[APART].passed is None and "no graph" in audit[APART].detail


def test_a_model_without_a_graph_whose_inputs_ignore_the_survey_fails_the_control():
    class Constant(Table):
        def inputs(self, graph):
            return dict(table=(np.ones((graph.survey.n, 1)), np.arange(graph.survey.n)))

    w = world(90)
    assert failed(leak_audit(Constant(), build_graph(w, make_split(w)))) == {"control"}


@pytest.mark.parametrize("name", ["logistic", "hgt"])
def test_a_trained_model_is_asked_again(name):
    "… and one whose scores follow a test person's own answer or label is caught"
    s = make_synthetic(n_employees=80, seed=0).survey
    g = build_graph(s, make_split(s, seed=0))
    settings = dict(epochs=2, hidden=16) if name == "hgt" else {}
    model = make_model(name, **settings).fit(g)
    assert leak_audit(model, g)[SCORES].passed is True

    class Leaky(type(model)):
        def predict(self, graph, phase="test", known=None):
            p = super().predict(graph, phase, known)
            label = np.nan_to_num(graph.survey.turnover[p.people])
            return replace(p, turnover=p.turnover + 0.1 * label)

    model.__class__ = Leaky
    assert leak_audit(model, g)[SCORES].passed is False


# --- the rewriting itself


@pytest.mark.parametrize('form', ['pairs', 'long', 'interactions'])
def test_rewriting_changes_what_it_names_and_nothing_else(form):
    w = world(90, form=form, missing=0.2)
    s = make_split(w)
    e, rng = w.choices.employee, np.random.default_rng(0)
    o = rewrite(w, s.test, rng, labels=True, features=True, answers=np.isin(e, s.test))
    rest = np.setdiff1d(np.arange(90), s.test)
    assert (
        (o.turnover != w.turnover).nonzero()[0].tolist()
        == s.test.tolist()
        == (o.likelihood != w.likelihood).nonzero()[0].tolist()
    )
    assert o.features.iloc[rest].equals(w.features.iloc[rest])
    assert all(
        (o.features[c].iloc[s.test].astype(object) != w.features[c].iloc[s.test].astype(object)).all()
        for c in w.features
    )
    for k, r in w.relations.items():
        kept = np.isin(r.edges[0], rest)
        got = o.relations[k].edges
        assert set(zip(*r.edges[:, kept].tolist())) == set(zip(*got[:, np.isin(got[0], rest)].tolist()))
    a, b = w.choices.table, o.choices.table
    theirs = a.employee.isin(s.test)
    col = 'post' if form == 'interactions' else 'chosen'
    moved = (a != b).any(axis=1)
    assert not moved[~theirs].any() and moved[theirs].groupby(a.situation[theirs]).any().all()
    assert a.drop(columns=col).equals(b.drop(columns=col))
    assert (b.groupby('situation').chosen.sum() == 1).all() and not (b.chosen & ~b.available).any()


def test_a_situation_with_one_available_post_keeps_its_answer():
    w = world(90)
    t = w.choices.table.assign(available=w.choices.table.chosen)
    w = replace(w, choices=replace(w.choices, table=t))
    o = rewrite(w, np.arange(0), np.random.default_rng(0), answers=np.ones(w.choices.n, bool))
    assert o.choices.table.equals(t)


def test_the_tastes_of_a_run_are_those_of_its_training_people():
    s = make_synthetic(n_employees=120, seed=0).survey
    g = build_graph(s, make_split(s, seed=0))
    model = make_model("conditional_logit").fit(g)
    table = s.choices.table.copy()
    held = ~np.isin(table.employee, g.split.train)
    table.loc[held, "chosen"] = ~table.chosen[held]  # two alternatives: the other one
    other = replace(s, choices=replace(s.choices, table=table))
    a, b = (model.tables(x)["tastes"] for x in (g, g.rebuild(other)))
    assert a.equals(b)
    assert a.query("kind == 'fact' and name == 'people'").value.item() == len(g.split.train)
