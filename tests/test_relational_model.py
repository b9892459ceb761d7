"The relational model through settings, trainer and files: what it finds, no leak, any survey, unseen firms"

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

from test_choice import accept_or_decline, interactions, ragged
from turnover_nb.choice.mixed import normal_draws
from turnover_nb.choice.panel import make_panel
from turnover_nb.choice.panel_logit import PanelFit
from turnover_nb.choice.simulated import PanelConfig, fit_panel
from turnover_nb.data.candidates import candidate_sets
from turnover_nb.data.people import PeopleEncoder
from turnover_nb.data.split import make_split
from turnover_nb.graph.audit import leak_audit
from turnover_nb.graph.rewrite import rewrite
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import find, make_model, make_settings, members
from turnover_nb.models.relational.inputs import careless_probability, person_inputs, preference_rows, scale_scores
from turnover_nb.models.relational.model import Relational
from turnover_nb.models.relational.network import fitted_panel
from turnover_nb.models.relational.preference import FreshAlternatives, train_panel
from turnover_nb.models.relational.recipe import RelationalRecipe, relational_stages
from turnover_nb.models.relational.settings import RelationalSettings
from turnover_nb.models.relational.turnover import relational_inputs
from turnover_nb.models.trainer import Trainer
from turnover_nb.runs.run import explicit_choices
from turnover_nb.synthetic.world import make_synthetic
from worlds import with_items, world

FAST = dict(epochs=15, stage2_epochs=12, draws=8)


def relational(**settings):
    return make_model('relational', **{**FAST, **settings})


def weights(model, stage=-1):
    return [*model.states.values()][stage]


def same(a, b, part=''):
    "Have two models the same weights, of a part or of all?"
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if k.startswith(part))


@pytest.fixture(scope='module')
def made():
    w = with_items(world(150, missing=0.1))
    y = w.turnover.copy()
    y[np.flatnonzero(y == 0)[:9]] = np.nan
    return replace(w, turnover=y)


@pytest.fixture(scope='module')
def graphs(made):
    return {p: build_graph(made, make_split(made, preference=p, n_known=2)) for p in ('cold', 'warm')}


@pytest.fixture(scope='module')
def models(graphs):
    return {p: relational().fit(g) for p, g in graphs.items()}


@pytest.fixture(params=['cold', 'warm'])
def fitted(graphs, models, request):
    return graphs[request.param], models[request.param]


def test_the_survey_of_these_tests_has_what_the_preference_part_reads():
    w = with_items(world(180, missing=0.1))
    p = person_inputs(build_graph(w, make_split(w)))
    scales = {n for n in p.names if n.startswith('scale')}
    assert p.names[p.careless] == 'P(careless)' and scales == {'scale trust', 'scale mood', 'scale calm'}


# --- what it finds


@pytest.fixture(scope='module')
def planted():
    w = make_synthetic(n_employees=1200, seed=31)
    s = make_split(w.survey, seed=31)
    g = build_graph(w.survey, s)
    return w, s, g, make_model('relational').fit(g, seed=31)


def test_it_beats_a_logistic_regression_on_planted_data(planted):
    "By the expected AUPR of the planted law, so without the luck of the draw"
    w, s, g, model = planted
    X = PeopleEncoder.fit(w.survey, s.train).transform(w.survey)
    q = w.truth.turnover_given(s.train)[s.test]
    soft = lambda p: average_precision_score(np.repeat([1, 0], len(q)), np.tile(p, 2), sample_weight=np.r_[q, 1 - q])
    plain = LogisticRegression(C=0.05, max_iter=1000).fit(X[s.train], w.survey.turnover[s.train])
    other, got, top = soft(plain.predict_proba(X[s.test])[:, 1]), soft(model.predict(g).turnover), soft(q)
    assert got > other + 0.05 and (got - q.mean()) / (top - q.mean()) > 0.85


@pytest.mark.parametrize('known,bound', [(0, 0.012), (3, 0.016)])
def test_its_choices_are_near_the_best_attainable(planted, known, bound):
    "Log-loss above Bayes in parts of it; one fit serves every number of known answers"
    w, s, g, model = planted
    told = np.argsort(np.random.default_rng(known).random((w.survey.n, 7)), 1).argsort(1) < known
    told[np.setdiff1d(np.arange(w.survey.n), s.test)] = False
    p = w.truth.second_post(told.ravel(), s.test)
    free = ~told[s.test]
    q = fitted_panel(model.network, g, 'test').probability(told.ravel(), s.test).reshape(-1, 7, 2)[s.test, :, 1]
    loss = lambda q: -(p * np.log(q) + (1 - p) * np.log1p(-q))[free].mean()
    assert loss(p) <= loss(q) < (1 + bound) * loss(p)


def test_its_tastes_are_as_good_as_those_of_fit_panel(planted):
    "On the same features: the trainer's steps are those of the estimator of the choice models"
    w, s, g, model = planted
    c = w.survey.choices
    Z, names, _ = preference_rows(g)
    X = person_inputs(g).x
    panel = make_panel(c, Z, X, np.isin(c.employee, s.train))[0]
    m = fit_panel(panel, PanelConfig(coin=True, penalty=2.0), torch.Generator().manual_seed(0))
    known = np.zeros(c.n, bool)
    mine = c.table.chosen.to_numpy() & np.isin(c.table.employee, s.test)
    loss = lambda fit: -np.log(fit.probability(known, s.test)[mine]).mean()
    other = PanelFit([m], [normal_draws(512, 3, 0)], c, Z, X, names, [])
    assert loss(fitted_panel(model.network, g, 'test')) < loss(other) + 0.004


# --- trainer, history, files


def test_stages_are_of_fixed_length_and_use_no_validation_person(made, graphs, models):
    settings = RelationalSettings()
    a, b = relational_stages(settings)
    assert (a.weights, b.weights) == ((1.0, 0.0), (0.0, 1.0)) and (a.epochs, b.epochs) == (300, 200)
    assert [s.name for s in relational_stages(settings, preference=False)] == ['stage1']
    assert [s.name for s in relational_stages(settings, turnover=False)] == ['stage2']
    s = graphs['cold'].split
    held = np.union1d(s.valid, s.test)
    theirs = np.isin(made.choices.employee, held)
    new = rewrite(made, held, np.random.default_rng(0), labels=True, features=True, answers=theirs)
    model, other = models['cold'], relational().fit(build_graph(new, s))
    assert same(model, other) and model.best_epochs == dict(stage1=14, stage2=11)
    assert len(model.history) == FAST['epochs'] + FAST['stage2_epochs']
    a, b = model.history, other.history
    assert a[0]['train_turnover_loss'] == b[0]['train_turnover_loss']
    assert a[14]['valid_turnover_loss'] != b[14]['valid_turnover_loss']


def test_the_last_validation_is_of_what_is_kept(fitted, made):
    g, model = fitted
    assert [r['epoch'] for r in model.history if 'valid_turnover_loss' in r] == [4, 14]
    v = model.predict(g, 'valid')
    loss = log_loss(made.turnover[v.people], v.turnover, labels=[0, 1])
    assert loss == pytest.approx(model.history[14]['valid_turnover_loss'], rel=1e-6)
    chosen = made.choices.table.chosen.to_numpy()[v.rows]
    assert -v.utility[chosen].mean() == pytest.approx(model.history[-1]['valid_preference_loss'], rel=1e-5)


class Killed(Exception):
    pass


@pytest.fixture(scope='module')
def whole(graphs):
    "Models of some settings, trained without a break"
    done = {}

    def get(**change):
        key = tuple(change.items())
        if key not in done:
            done[key] = relational(**change).fit(graphs['cold'], seed=1)
        return done[key]

    return get


CHANGES = {'two stages': {}, 'branch': dict(branch='sage'), 'one stage': dict(two_stages=False, epochs=27)}


@pytest.mark.parametrize('at', [3, 15, 16, 22])
@pytest.mark.parametrize('change', CHANGES)
def test_a_killed_run_goes_on_to_the_same_bits(graphs, whole, tmp_path, at, change):
    seen = []

    def kill(record):
        seen.append(record)
        if len(seen) == at:
            raise Killed

    want, fit = whole(**CHANGES[change]), relational(**CHANGES[change]).fit
    with pytest.raises(Killed):
        fit(graphs['cold'], 1, progress=kill, resume=tmp_path / 'resume.pt')
    again = fit(graphs['cold'], 1, resume=tmp_path / 'resume.pt')
    assert again.history == want.history and same(again, want) and again.states.keys() == want.states.keys()


def test_seed_and_nothing_else_moves_a_fit(graphs, models, whole):
    g, a = graphs['cold'], models['cold']
    n = torch.get_num_threads()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    try:
        torch.set_num_threads(2)
        b = relational().fit(g)
        p = b.predict(g)
    finally:
        torch.set_num_threads(n)
    assert same(a, b) and a.history == b.history and not same(a, whole())
    assert torch.equal(before, torch.random.get_rng_state())
    q = a.predict(g)
    assert np.array_equal(p.turnover, q.turnover) and np.array_equal(p.utility, q.utility)


def test_files_and_facts(graphs, models, made, tmp_path):
    g, model = graphs['warm'], models['warm']
    model.save(tmp_path)
    files = {f'stage{i}_{f}' for i in (1, 2) for f in ('best.pt', 'history.json')}
    assert {p.name for p in tmp_path.iterdir()} == files | {'model.yaml'}
    facts = model.facts()
    assert facts['negatives'] is None and model.tables(g) == {}
    assert set(facts['learned']['variance']) == {*made.relations} and 0 < facts['learned']['coin'] < 1
    one, two = (weights(model, stage) for stage in (0, 1))
    moved = {k.split('.')[0] for k in one if not torch.equal(one[k], two[k])}
    assert moved == {'preference_part'}  # turnover stays in the second stage
    a, b = model.predict(g), Relational.load(tmp_path).predict(g)
    assert np.array_equal(a.turnover, b.turnover) and np.array_equal(a.utility, b.utility)


# --- no leak


def test_leak_audit_passes(fitted):
    g, model = fitted
    assert leak_audit(model, g).passed


class Leaky(Relational):
    "A model whose inputs are statistics of everybody"

    made_of = staticmethod(scale_scores)

    def inputs(self, graph):
        everybody = np.arange(graph.survey.n)
        x = self.made_of(graph.survey, everybody)
        x = x[0] if isinstance(x, tuple) else x[:, None]
        return super().inputs(graph) | {'statistics of everybody': (x, everybody)}


@pytest.mark.parametrize('what', [scale_scores, careless_probability])
def test_statistics_of_everybody_are_caught(what):
    s = with_items(world(180, missing=0.1))
    g = build_graph(s, make_split(s))
    model = type('Leaky', (Leaky,), dict(made_of=staticmethod(what)))(make_settings('relational', **FAST)).fit(g)
    audit = leak_audit(model, g)
    assert not audit.passed
    assert 'statistics of everybody' in audit['training does not see held-out people'].detail


def test_protected_relations_are_not_read(made, graphs):
    r = made.relations['company_type']
    s = replace(made, protected=made.protected.assign(company_type=r.labels[r.edges[1]]))
    assert 'same company_type' in preference_rows(graphs['cold'])[1]
    assert 'same company_type' not in preference_rows(build_graph(s, make_split(s)))[1]


def test_known_answers_move_their_own_person_only(made, graphs):
    g = graphs['warm']
    s = g.split
    model = relational(epochs=60, stage2_epochs=60).fit(g)
    one = s.test[3]
    flip = s.known & (made.choices.employee == one)
    other = build_graph(rewrite(made, made.choices.employee[:0], np.random.default_rng(0), answers=flip), s)
    a, b = model.predict(g), model.predict(other)
    who = made.choices.table.employee.to_numpy()[a.rows]
    assert (a.utility[who == one] != b.utility[who == one]).all() and np.array_equal(a.turnover, b.turnover)
    assert np.array_equal(a.utility[who != one], b.utility[who != one])
    untold = model.predict(g, known=s.known & ~flip)
    untold = dict(zip(untold.rows.tolist(), untold.utility))
    assert any(untold[r] != u for r, u in zip(a.rows[who == one].tolist(), a.utility[who == one]))


@pytest.mark.parametrize('who', ['features', 'labels'])
def test_other_test_people_move_nobody(made, graphs, who):
    "Labels never; features only those of colleagues, and none where relations are off"
    g = graphs['cold']
    s = g.split
    model = relational(colleague_features=False).fit(g)
    new = build_graph(rewrite(made, s.test[1:], np.random.default_rng(0), **{who: True}), s)
    a, b = model.predict(g), model.predict(new)
    other = dict(zip(b.people.tolist(), b.turnover))  # a person without a label may get one
    keep = np.ones(len(a.people), bool) if who == 'labels' else a.people == s.test[0]
    rows = np.isin(made.choices.table.employee.to_numpy()[a.rows], a.people[keep])
    assert np.allclose(a.turnover[keep], [other[p] for p in a.people[keep].tolist()], atol=1e-6)
    assert np.allclose(a.utility[rows], b.utility[rows], atol=1e-5)


# --- inductive


def test_unseen_firms_and_people_without_relations(made):
    s = make_split(made, 'group', group='employer')
    bare = {}
    for k, r in made.relations.items():
        gone = np.isin(r.edges, s.test).any(0) if r.labels is None else np.isin(r.edges[0], s.test)
        bare[k] = replace(r, edges=r.edges[:, ~gone])
    for survey in (made, replace(made, relations=bare)):
        g = build_graph(survey, s)
        model = relational().fit(g)
        p = model.predict(g)
        assert np.isfinite(p.utility).all() and np.ptp(p.turnover) > 0.01
        assert (0 < p.turnover).all() and (p.turnover < 1).all()
    parts = model.network.turnover_part.parts(relational_inputs(g, 'test'))
    test = torch.from_numpy(np.isin(g.at('test')['employee'].index.numpy(), s.test))
    assert not parts['messages'][test].any() and not parts['colleagues'][test].any()


# --- any survey


def without(s, what):
    if what == 'choices':
        bare = {k: replace(r, posts=None) for k, r in s.relations.items()}
        return replace(s, choices=None, posts=None, post_types=None, relations=bare)
    if what == 'most labels':
        y = s.turnover.copy()
        y[np.flatnonzero(y == 0)[:60]] = np.nan
        return replace(s, turnover=y)
    nothing = dict(relations={}, likelihood=None, turnover=None, features=pd.DataFrame(index=s.features.index))
    return replace(s, **{what: nothing[what]})


@pytest.mark.parametrize('what', ['choices', 'turnover', 'relations', 'likelihood', 'most labels', 'features'])
@pytest.mark.parametrize('two', [True, False])
def test_surveys_that_lack_something(made, what, two):
    s = without(made, what)
    g = build_graph(s, make_split(s))
    model = relational(two_stages=two).fit(g)
    p, sup = model.predict(g), g.supervision('test')
    stages = dict(choices=['stage1'], turnover=['stage2']).get(what, ['stage1', 'stage2'])
    assert [*model.best_epochs] == (stages if two else ['stage1'])
    if what == 'turnover':
        assert p.turnover is None
    else:
        assert np.isfinite(p.turnover).all() and len(p.people) == len(p.turnover) == len(sup.turnover)
    if what == 'choices':
        assert p.rows is None and p.utility is None
    else:
        assert np.isfinite(p.utility).all() and len(p.utility) == len(sup.rows)
    assert model.network.scored == (what not in ('choices', 'turnover'))


KINDS = dict(
    ragged=lambda: ragged(n=60), offers=lambda: accept_or_decline(n=60), triples=lambda: world(60, form='long')
)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('preference', ['cold', 'warm'])
def test_every_kind_of_choice(kind, preference):
    "Two to four alternatives, some unavailable; accept or decline; posts of one's own: probabilities sum to one"
    s = KINDS[kind]()
    split = make_split(s, preference=preference, n_known=1)
    g = build_graph(s, split)
    model = relational().fit(g)
    t = s.choices.table
    for phase in ('valid', 'test'):
        p = model.predict(g, phase)
        there = t.available.to_numpy()[p.rows]
        total = pd.Series(np.exp(p.utility[there])).groupby(t.situation.to_numpy()[p.rows][there]).sum()
        assert len(total) == len(split.situations(s, phase)) and np.allclose(total, 1, atol=1e-4)
    assert leak_audit(model, g).passed


# --- interactions


def fresh_alternatives(graph):
    settings = make_settings('relational', **FAST)
    panel, people = train_panel(graph, settings)
    return FreshAlternatives(graph, panel, people, settings), panel, people


@pytest.fixture(scope='module')
def liked():
    "Interactions, their split, and the graph of them beside sampled posts"
    s = interactions(n=80, P=12)
    split = make_split(s)
    return s, split, build_graph(explicit_choices(s, split), split)


def test_fresh_alternatives_are_what_nobody_chose(liked):
    s, split, g = liked
    fresh, panel, people = fresh_alternatives(g)
    rng = np.random.default_rng(0)
    took = set(zip(s.choices.table.employee, s.choices.table.post))
    seen = []
    for _ in range(30):
        p = fresh.draw(panel, rng)
        post = (p.z[:, 0] - fresh.z[:, 0][:, None]).abs().argmin(0)
        who = people[p.person[p.situation]]
        rest = torch.ones(len(post), dtype=torch.bool)
        rest[p.chosen] = False
        assert not took & set(zip(who[rest].tolist(), post[rest].tolist()))
        assert took >= set(zip(who[~rest].tolist(), post[~rest].tolist()))
        assert all(len(set(x)) == fresh.n + 1 for x in post.view(-1, fresh.n + 1).tolist())
        seen.append(post[rest])
    assert (torch.bincount(torch.cat(seen), minlength=12) > 0).all()  # all of the catalogue, in time


def test_fresh_alternatives_of_some_people_are_theirs(liked):
    fresh, panel, _ = fresh_alternatives(liked[2])
    rng = np.random.default_rng(0)
    some = torch.arange(0, panel.n, 3)
    p, q = fresh.draw(panel, rng, some), fresh.draw(panel, rng)
    mine = torch.isin(q.person, some)  # numbered anew
    assert torch.equal(some[p.person], q.person[mine]) and torch.equal(p.z[p.chosen], q.z[q.chosen[mine]])
    assert torch.equal(p.x, q.x[some]) and p.n == len(some)


def test_interactions_are_learned_from(liked):
    s, split, g = liked
    p = relational(stage2_epochs=60).fit(g).predict(g)
    order = pd.Series(p.utility).groupby(g.survey.choices.table.post.to_numpy()[p.rows]).mean()
    assert order.corr(pd.Series(order.index, order.index)) > 0.5  # later posts are chosen more
    with pytest.raises(ValueError, match='candidate_sets'):
        relational().fit(build_graph(s, split))


def test_posts_without_attributes_have_their_popularity():
    "Of training people alone, the choice itself left out; held-out choices do not enter"
    s = interactions(n=150, P=12)
    s = replace(s, posts=s.posts[[]], post_types={})
    split = make_split(s)
    g = build_graph(explicit_choices(s, split), split)
    Z, names, posts = preference_rows(g)
    t = s.choices.table
    n = np.bincount(t.post[np.isin(t.employee, split.train)], minlength=12)
    assert names[:1] == ['popularity'] and np.allclose(posts[:, 0], np.log1p(n) / np.log1p(n).std(), atol=1e-5)
    fresh, panel, _ = fresh_alternatives(g)
    p = fresh.draw(panel, np.random.default_rng(0))
    assert np.allclose(p.z[p.chosen, 0], (np.log(n) / np.log1p(n).std())[fresh.chosen], atol=1e-5)
    q = relational(stage2_epochs=80).fit(g).predict(g)
    chosen = g.survey.choices.table.chosen.to_numpy()[q.rows]
    assert -q.utility[chosen].mean() < np.log(7) - 0.1


def test_every_post_chosen_by_a_person_is_named():
    s = interactions(n=40, P=4)
    split = make_split(s)
    g = build_graph(candidate_sets(s, split, 1, 0), split)
    assert fresh_alternatives(g)[0].n == 1
    t = s.choices.table
    first = split.train[0]
    rest = np.setdiff1d(np.arange(4), t.post[t.employee == first])
    more = dict(situation=0, employee=first, task=0, alternative=0, post=rest, chosen=True, available=True)
    t = pd.concat([t, pd.DataFrame(more)]).sort_values('employee', kind='stable')
    t = t.assign(situation=np.arange(len(t))).astype(s.choices.table.dtypes).reset_index(drop=True)
    greedy = replace(s, choices=replace(s.choices, table=t))
    split = make_split(greedy)
    with pytest.raises(ValueError, match='leaves only 0 of 4 posts|no alternative is left'):
        relational().fit(build_graph(explicit_choices(greedy, split), split))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_a_gpu(graphs, models):
    g = graphs['cold']
    a, b = models['cold'].predict(g), relational().fit(g, device='cuda').predict(g)
    assert np.allclose(a.turnover, b.turnover, atol=1e-3) and np.allclose(a.utility, b.utility, atol=1e-2)


# --- questionnaires


def test_odd_questionnaires():
    "Items that people were given in two forms, of two hundred levels, that nobody answered or all answered alike"
    s = with_items(world(180))
    split = make_split(s)
    trait = s.features.trust_1 - s.features.trust_5
    f = s.features.copy()
    for c, gone in (('trust_1', 0), ('trust_2', 0), ('trust_4', 1), ('trust_5', 1)):
        f.loc[np.arange(s.n) % 2 == gone, c] = np.nan
    a, b = (scale_scores(replace(s, features=x), split.train)[0][:, 0] for x in (s.features, f))
    assert min(abs(np.corrcoef(a[i::2], b[i::2])[0, 1]) for i in (0, 1)) > 0.8
    assert abs(np.corrcoef(a, trait)[0, 1]) > 0.8
    fine = {c: replace(s.types[c], levels=tuple(map(str, range(1, 201)))) for c in s.types if c.startswith('mood')}
    f = s.features.assign(**{c: s.features[c] * 33 for c in fine})
    finer = scale_scores(replace(s, features=f, types=s.types | fine), split.train)[0]
    assert np.allclose(finer, scale_scores(s, split.train)[0], atol=1e-5)
    f = s.features.assign(**{f'calm_{j}': 3.0 for j in range(1, 6)}, **{f'mood_{j}': np.nan for j in range(1, 6)})
    odd = replace(s, features=f)
    g = build_graph(odd, split)
    assert not scale_scores(odd, split.train)[0][:, 1:].any()
    assert np.isfinite(relational().fit(g).predict(g).utility).all()
    assert careless_probability(odd, split.train[:99]) is None and careless_probability(world(180), split.train) is None


def test_careless_people_are_the_coins():
    shares = []
    for careless in (0.0, 0.5):
        s = make_synthetic(n_employees=400, seed=5, careless=careless).survey
        model = make_model('relational', epochs=2).fit(build_graph(s, make_split(s, seed=5)))
        shares.append(model.facts()['learned']['coin'])
    assert shares[1] > shares[0] + 0.1


# --- switches


@pytest.fixture(scope='module')
def switched():
    s = make_synthetic(n_employees=200, seed=4, careless=0.3).survey
    g = build_graph(s, make_split(s, seed=4, preference='warm', n_known=3))
    return g, relational().fit(g).predict(g)


@pytest.mark.parametrize('name', [k for k in members('parts') if find(k).parent])
def test_each_variant_changes_the_scores(switched, name):
    g, a = switched
    b = make_model(name, **FAST).fit(g).predict(g)
    task = 'utility' if any(w in name for w in ('coin', 'taste', 'scale', 'shared', 'quality')) else 'turnover'
    assert not np.array_equal(getattr(a, task), getattr(b, task))
    if task == 'utility':
        assert np.array_equal(a.turnover, b.turnover)  # turnover does not know of it


@pytest.mark.parametrize(
    'change,said',
    [
        (dict(branch='gat'), 'branch'),
        (dict(tastes=-1), 'tastes'),
        (dict(coins=False), "did you mean 'coin'"),
        (dict(network='small'), 'network'),
        (dict(encoder='sage'), "unknown key 'encoder'"),
    ],
)
def test_settings_that_do_not_exist_are_named(change, said):
    with pytest.raises(ValueError, match=said):
        make_settings('relational', **change)


def test_a_loss_that_is_not_finite_is_named(graphs):
    t = Trainer(RelationalRecipe(graphs['cold'], make_settings('relational', **FAST), 0))
    with torch.no_grad():
        t.recipe.network.turnover_part.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match='stage1, epoch 0'):
        t.run_epoch()


def test_a_state_of_another_family_is_refused(graphs, tmp_path):
    t = Trainer(RelationalRecipe(graphs['cold'], make_settings('relational', **FAST), 0))
    t.run_epoch()
    t.save(tmp_path / 'r.pt')
    with pytest.raises(ValueError, match='other settings or another seed'):
        make_model('hgt', hidden=16).fit(graphs['cold'], resume=tmp_path / 'r.pt')


def test_weights_of_people_count(made, graphs, models):
    s = graphs['cold'].split
    w = np.ones(len(s.train))
    w[::2] = 0.0
    a = models['cold']
    b, c = (relational().fit(build_graph(made, replace(s, weight=x))) for x in (w, np.full(len(w), 3.0)))
    assert not same(a, b, 'turnover_part') and not same(a, b, 'preference_part') and same(a, c)
