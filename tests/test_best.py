"The preset `best` through config, trainer, checkpoint and run: what it finds, that it does not leak, any survey, unseen firms and lonely people"

from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from sklearn.metrics import average_precision_score, log_loss
from turnover_nb.graph.audit import leak_audit, rewrite
from turnover_nb.models.tabular import fit_turnover
from turnover_nb.data.candidates import candidate_sets
from turnover_nb.models.checkpoint import checkpoint, embedding_map, false_negatives, load_model, predict
from turnover_nb.models.gnn.config import GROUPS, PRESETS, VARIANTS, make_config
from turnover_nb.runs.sweep import Plan, parse_variant
from turnover_nb.data.features import design_matrix
from turnover_nb.graph.graph import build_graph
from turnover_nb.choice.simulated import PanelConfig, fit_panel
from turnover_nb.choice.panel_logit import PanelFit
from turnover_nb.choice.panel import make_panel
from turnover_nb.choice.mixed import normal_draws
from turnover_nb.models.relational.turnover import fit_relational, predict_relational
from turnover_nb.runs.run import explicit_choices, run_one, write_run
from turnover_nb.data.split import make_split
from turnover_nb.models.relational import inputs as preference_inputs
from turnover_nb.models.relational.inputs import careless_probability, person_inputs, preference_rows, scale_scores
from turnover_nb.models.relational.model import (
    StatisticalModel,
    StatisticalObjective,
    audit_inputs,
    fitted_panel,
    learned,
)
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.models.trainer import EVERY, Trainer, fit, stages
from test_choice import accept_or_decline, interactions, ragged
from worlds import with_items, world

FAST = dict(epochs=15, stage2_epochs=12, draws=8)
best = lambda **kw: make_config('best', **{**FAST, **kw})
same = lambda a, b: all(
    torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
)
scores = lambda f, g, phase='test': predict(f.model, g, phase)


@pytest.fixture(scope='module')
def made():
    w = with_items(world(180, missing=0.1))
    y = w.turnover.copy()
    y[np.flatnonzero(y == 0)[:9]] = np.nan
    return replace(w, turnover=y)


def test_the_survey_of_these_tests_has_what_the_preference_part_reads(made):
    p = person_inputs(build_graph(made, make_split(made)))
    assert p.names[p.careless] == 'P(careless)' and {n for n in p.names if n.startswith('scale')} == {
        'scale trust',
        'scale mood',
        'scale calm',
    }


@pytest.fixture(scope='module', params=['cold', 'warm'])
def fitted(made, request):
    g = build_graph(made, make_split(made, preference=request.param, n_known=2))
    return g, fit(g, best(), 0)


# --- what it finds


@pytest.fixture(scope='module')
def planted():
    w = make_synthetic(n_employees=1200, seed=31)
    s = make_split(w.survey, seed=31)
    g = build_graph(w.survey, s)
    return w, s, g, fit(g, make_config('best'), 31)


def test_it_beats_a_logistic_regression_on_planted_data(planted):
    "By the expected AUPR of the planted law, so without the luck of the draw"
    w, s, g, f = planted
    X = design_matrix(w.survey, s.train)[0]
    q = w.truth.turnover_given(s.train)[s.test]
    soft = lambda p: average_precision_score(np.repeat([1, 0], len(q)), np.tile(p, 2), sample_weight=np.r_[q, 1 - q])
    other = soft(fit_turnover('logistic', X, w.survey.turnover, s, 0).predict(X[s.test]))
    got = soft(scores(f, g)['turnover'])
    top = soft(q)
    assert got > other + 0.05 and (got - q.mean()) / (top - q.mean()) > 0.85


@pytest.mark.parametrize('known,bound', [(0, 0.012), (3, 0.016)])
def test_its_choices_are_near_the_best_attainable(planted, known, bound):
    "Log-loss above Bayes in parts of it; one fit serves every number of known answers"
    w, s, g, f = planted
    told = np.argsort(np.random.default_rng(known).random((w.survey.n, 7)), 1).argsort(1) < known
    told[np.setdiff1d(np.arange(w.survey.n), s.test)] = False
    p = w.truth.second_post(told.ravel(), s.test)
    free = ~told[s.test]
    q = fitted_panel(f.model, g, 'test').probability(told.ravel(), s.test).reshape(-1, 7, 2)[s.test, :, 1]
    loss = lambda q: -(p * np.log(q) + (1 - p) * np.log1p(-q))[free].mean()
    assert loss(p) <= loss(q) < (1 + bound) * loss(p)


def test_it_is_the_two_models_that_were_measured(planted):
    "Turnover bit for bit that of `fit_relational`; preference as good as `fit_panel` on the same features"
    w, s, g, f = planted
    r = fit_relational(g, 31)
    assert np.allclose(predict_relational(r, g, 'test')['turnover'], scores(f, g)['turnover'], atol=1e-6) and same(
        r, f.model.turnover_part
    )
    c = w.survey.choices
    Z, names, _ = preference_rows(g)
    X = person_inputs(g).x
    m = fit_panel(
        make_panel(c, Z, X, np.isin(c.employee, s.train))[0],
        PanelConfig(coin=True, penalty=2.0),
        torch.Generator().manual_seed(0),
    )
    known = np.zeros(c.n, bool)
    mine = c.table.chosen.to_numpy() & np.isin(c.table.employee, s.test)
    a, b = (
        -np.log(x.probability(known, s.test)[mine]).mean()
        for x in (PanelFit([m], [normal_draws(512, 3, 0)], c, Z, X, names, []), fitted_panel(f.model, g, 'test'))
    )
    assert b < a + 0.004


# --- trainer, history, files


def test_stages_are_of_fixed_length_and_use_no_validation_person(made):
    a, b = stages(make_config('best'))
    assert (a.weights, b.weights) == ((1.0, 0.0), (0.0, 1.0)) and a.select == b.select == 'last'
    assert [s.name for s in stages(make_config('best'), preference=False)] == ['stage1'] and [
        s.name for s in stages(make_config('best'), turnover=False)
    ] == ['stage2']
    s = make_split(made)
    held = np.union1d(s.valid, s.test)
    theirs = np.isin(made.choices.employee, held)
    new = rewrite(made, held, np.random.default_rng(0), labels=True, features=True, answers=theirs)
    f, other = fit(build_graph(made, s), best(), 0), fit(build_graph(new, s), best(), 0)
    assert (
        same(f.model, other.model)
        and len(f.history) == FAST['epochs'] + FAST['stage2_epochs']
        and f.best_epochs == dict(stage1=14, stage2=11)
    )
    assert (
        f.history[0]['train_turnover_loss'] == other.history[0]['train_turnover_loss']
        and f.history[14]['valid_turnover_loss'] != other.history[14]['valid_turnover_loss']
    )


def test_history_validates_now_and_then_and_the_last_validation_is_of_what_is_kept(fitted, made):
    g, f = fitted
    at = [r['epoch'] for r in f.history if 'valid_turnover_loss' in r]
    assert at == [4, 14] and EVERY == 10
    v = scores(f, g, 'valid')
    y = made.turnover[v['people']]
    assert log_loss(y, v['turnover'], labels=[0, 1]) == pytest.approx(f.history[14]['valid_turnover_loss'], rel=1e-6)
    chosen = made.choices.table.chosen.to_numpy()[v['rows']]
    assert -v['utility'][chosen].mean() == pytest.approx(f.history[-1]['valid_preference_loss'], rel=1e-5)


@pytest.mark.parametrize('at', [3, 10, 15, 16, 22])
@pytest.mark.parametrize(
    'change', [{}, dict(branch='sage'), dict(two_stages=False)], ids=['two stages', 'branch', 'one stage']
)
def test_a_killed_run_goes_on_to_the_same_bits(made, tmp_path, at, change):
    class Killed(Exception):
        pass

    g, c = build_graph(made, make_split(made)), best(**change, **(dict(epochs=27) if 'two_stages' in change else {}))
    whole = fit(g, c, 1)

    def kill(r, left=[at]):  # noqa: B006
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.raises(Killed):
        fit(g, c, 1, kill, tmp_path / 'resume.pt')
    again = fit(g, c, 1, None, tmp_path / 'resume.pt')
    assert again.history == whole.history and same(again.model, whole.model) and same_states(again, whole)


def same_states(a, b):
    return a.states.keys() == b.states.keys() and all(
        torch.equal(x, y) for s in a.states for x, y in zip(a.states[s].values(), b.states[s].values())
    )


def test_seed_and_nothing_else_moves_a_fit(made):
    g = build_graph(made, make_split(made))
    a = fit(g, best(), 0)
    n = torch.get_num_threads()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    try:
        torch.set_num_threads(2)
        b = fit(g, best(), 0)
        p = scores(b, g)
    finally:
        torch.set_num_threads(n)
    assert (
        same(a.model, b.model)
        and a.history == b.history
        and torch.equal(before, torch.random.get_rng_state())
        and not same(a.model, fit(g, best(), 1).model)
    )
    assert all(np.array_equal(p[k], scores(a, g)[k]) for k in p)


def test_files_of_a_run(made, tmp_path):
    r = run_one(made, make_split(made, preference='warm', n_known=2), 'best', config=best(), n_boot=20)
    write_run(r, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {
        'stage1_best.pt',
        'stage2_best.pt',
        'stage1_history.json',
        'stage2_history.json',
        'results.json',
    } and not (tmp_path / 'embeddings.parquet').exists()
    facts = r.results.facts
    assert (
        facts['negatives'] is None
        and set(facts['learned']['variance']) == {*made.relations}
        and 0 < facts['learned']['coin'] < 1
        and r.results.audit['passed']
    )
    g = build_graph(made, make_split(made, preference='warm', n_known=2))
    one, two = (load_model(tmp_path / f'stage{i}_best.pt', g) for i in (1, 2))
    assert same(one.turnover_part, two.turnover_part) and not same(one.preference_part, two.preference_part)
    p = predict(two, g, 'test')
    assert np.array_equal(p['turnover'], r.scores.turnover[p['people']]) and np.array_equal(
        p['utility'], r.scores.utility[p['rows']]
    )
    assert embedding_map(two, g) is None and false_negatives(two, g) is None


# --- no leak


def test_leak_audit_passes_with_the_scores(fitted):
    g, f = fitted

    def of(g):
        p = scores(f, g)
        return torch.from_numpy(p['turnover']), torch.from_numpy(p['utility'])

    assert leak_audit(g, scores=of).passed


@pytest.mark.parametrize('what', ['scale_scores', 'careless_probability'])
def test_statistics_of_everybody_are_caught(made, monkeypatch, what):
    honest = getattr(preference_inputs, what)
    monkeypatch.setattr(preference_inputs, what, lambda survey, rows: honest(survey, np.arange(survey.n)))
    audit = leak_audit(build_graph(made, make_split(made)), inputs=lambda g: audit_inputs(g, best()))
    assert not audit.passed and 'what is known of people' in audit['training does not see held-out people'].detail


def test_protected_relations_are_not_read(made, monkeypatch):
    s = replace(
        made,
        protected=made.protected.assign(
            company_type=made.relations['company_type'].labels[made.relations['company_type'].edges[1]]
        ),
    )
    g = build_graph(s, make_split(s))
    assert (
        'same company_type' in preference_rows(build_graph(made, make_split(made)))[1]
        and 'same company_type' not in preference_rows(g)[1]
    )
    of = lambda g: audit_inputs(g, best())
    assert leak_audit(g, inputs=of).passed
    monkeypatch.setattr(preference_inputs, 'model_relations', lambda survey: survey.relations)
    found = leak_audit(build_graph(s, make_split(s)), inputs=of)['protected columns are no input']
    assert not found.passed and 'rows of choices' in found.detail


def test_known_answers_move_their_own_person_only(made):
    s = make_split(made, preference='warm', n_known=2)
    g = build_graph(made, s)
    f = fit(g, best(epochs=60, stage2_epochs=60), 0)
    one = s.test[3]
    flip = s.known & (made.choices.employee == one)
    other = build_graph(rewrite(made, made.choices.employee[:0], np.random.default_rng(0), answers=flip), s)
    a, b = scores(f, g), scores(f, other)
    who = made.choices.table.employee.to_numpy()[a['rows']]
    assert (
        (a['utility'][who == one] != b['utility'][who == one]).all()
        and np.array_equal(a['utility'][who != one], b['utility'][who != one])
        and np.array_equal(a['turnover'], b['turnover'])
    )
    cold = predict_without(f, g)
    assert not np.array_equal(cold[who == one], a['utility'][who == one])


def predict_without(f, g):
    m = StatisticalModel(g, f.config.model_copy(update=dict(answers=False)), 0)
    m.load_state_dict(f.model.state_dict())
    return predict(m, g, 'test')['utility']


@pytest.mark.parametrize('who', ['features', 'labels'])
def test_other_test_people_move_nobody(made, who):
    "Labels never; features only those of colleagues, and none where relations are off"
    s = make_split(made)
    f = fit(build_graph(made, s), best(colleague_features=False), 0)
    others = s.test[1:]
    new = build_graph(rewrite(made, others, np.random.default_rng(0), **{who: True}), s)
    a, b = (scores(f, g) for g in (build_graph(made, s), new))
    a['turnover'], b['turnover'] = (pd.Series(x['turnover'], x['people']) for x in (a, b))
    b['turnover'] = b['turnover'][a['people']].to_numpy()  # a person without a label may get one
    keep = np.ones(len(a['people']), bool) if who == 'labels' else a['people'] == s.test[0]
    rows = np.isin(made.choices.table.employee.to_numpy()[a['rows']], a['people'][keep])
    assert np.allclose(a['turnover'][keep], b['turnover'][keep], atol=1e-6) and np.allclose(
        a['utility'][rows], b['utility'][rows], atol=1e-5
    )


# --- inductive


def test_unseen_firms_and_people_without_relations(made):
    s = make_split(made, 'group', group='employer')
    bare = {
        k: replace(
            r,
            edges=r.edges[:, ~np.isin(r.edges, s.test).any(0)]
            if r.labels is None
            else r.edges[:, ~np.isin(r.edges[0], s.test)],
        )
        for k, r in made.relations.items()
    }
    for survey in (made, replace(made, relations=bare)):
        g = build_graph(survey, s)
        f = fit(g, best(), 0)
        p = scores(f, g)
        assert (
            np.isfinite(p['turnover']).all()
            and np.isfinite(p['utility']).all()
            and np.ptp(p['turnover']) > 0.01
            and (0 < p['turnover']).all()
            and (p['turnover'] < 1).all()
        )
    parts = predict_relational(f.model.turnover_part, g, 'test')['parts']
    assert not parts['messages'].any() and not parts['colleagues'].any()


# --- any survey


def without(s, what):
    if what == 'choices':
        return replace(
            s,
            choices=None,
            posts=None,
            post_types=None,
            relations={k: replace(r, posts=None) for k, r in s.relations.items()},
        )
    if what == 'most labels':
        y = s.turnover.copy()
        y[np.flatnonzero(y == 0)[:60]] = np.nan
        return replace(s, turnover=y)
    return replace(
        s,
        **{
            what: dict(relations={}, likelihood=None, turnover=None, features=pd.DataFrame(index=s.features.index))[
                what
            ]
        },
    )


@pytest.mark.parametrize('what', ['choices', 'turnover', 'relations', 'likelihood', 'most labels', 'features'])
@pytest.mark.parametrize('two', [True, False])
def test_surveys_that_lack_something(made, what, two):
    s = without(made, what)
    g = build_graph(s, make_split(s))
    f = fit(g, best(two_stages=two), 0)
    p = scores(f, g)
    assert set(f.best_epochs) == (
        {'stage1'}
        if not two
        else {'stage1'}
        if what == 'choices'
        else {'stage2'}
        if what == 'turnover'
        else {'stage1', 'stage2'}
    )
    assert (
        np.isfinite(p['turnover']).all()
        and np.isfinite(p['utility']).all()
        and len(p['people']) == (0 if what == 'turnover' else len(g.supervision('test').turnover))
    )
    assert not len(p['utility']) if what == 'choices' else len(p['utility']) == len(g.supervision('test').rows)
    assert f.model.scored == (what not in ('choices', 'turnover'))


KINDS = dict(
    ragged=lambda: ragged(n=90), offers=lambda: accept_or_decline(n=90), triples=lambda: world(90, form='long')
)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('preference', ['cold', 'warm'])
def test_every_kind_of_choice(kind, preference):
    "Two to four alternatives, some unavailable; accept or decline; posts of one's own; probabilities of what is available sum to one"
    s = KINDS[kind]()
    split = make_split(s, preference=preference, n_known=1)
    r = run_one(s, split, 'best', config=best(), n_boot=0)
    t = s.choices.table
    u = r.scores.utility
    rows = np.isfinite(u) & t.available.to_numpy()
    total = pd.Series(np.exp(u[rows])).groupby(t.situation.to_numpy()[rows]).sum()
    assert (
        len(total) == len(split.situations(s, 'valid')) + len(split.situations(s, 'test'))
        and np.allclose(total, 1, atol=1e-4)
        and r.results.audit['passed']
    )


def test_interactions_have_fresh_negatives_that_nobody_chose():
    s = interactions(n=80, P=12)
    split = make_split(s)
    c = explicit_choices(s, split)
    g = build_graph(c, split)
    o = StatisticalObjective(g, best(), 0)
    rng = np.random.default_rng(0)
    t = s.choices.table
    took = set(zip(t.employee, t.post))
    people = np.unique(t.employee[np.isin(t.employee, split.train)])
    seen = []
    for _ in range(30):
        p = o.negatives.draw(o.panel, rng)
        post = (p.z[:, 0] - o.negatives.z[:, 0][:, None]).abs().argmin(0)
        who = people[p.person[p.situation]]
        rest = torch.ones(len(post), dtype=torch.bool)
        rest[p.chosen] = False
        assert not took & set(zip(who[rest].tolist(), post[rest].tolist())) and took >= set(
            zip(who[~rest].tolist(), post[~rest].tolist())
        )
        assert all(len(set(x)) == o.negatives.n + 1 for x in post.view(-1, o.negatives.n + 1).tolist())
        seen.append(post[rest])
    some = torch.arange(0, o.panel.n, 3)
    p = o.negatives.draw(o.panel, rng, some)
    q = o.negatives.draw(o.panel, rng)
    mine = torch.isin(q.person, some)  # of some people: theirs, numbered anew
    assert (
        torch.equal(some[p.person], q.person[mine])
        and torch.equal(p.z[p.chosen], q.z[q.chosen[mine]])
        and torch.equal(p.x, q.x[some])
        and p.n == len(some)
    )
    n = torch.bincount(torch.cat(seen), minlength=12).float()
    assert (n > 0).all()  # all of the catalogue, in time
    f = fit(g, best(stage2_epochs=60), 0)
    u = predict(f.model, g, 'test')
    order = pd.Series(u['utility']).groupby(c.choices.table.post.to_numpy()[u['rows']]).mean()
    assert order.corr(pd.Series(order.index, order.index)) > 0.5  # later posts are chosen more
    with pytest.raises(ValueError, match='candidate_sets'):
        fit(build_graph(s, split), best(), 0)


def test_posts_without_attributes_have_their_popularity():
    "Of training people alone, the choice itself left out; held-out choices do not enter"
    s = interactions(n=150, P=12)
    s = replace(s, posts=s.posts[[]], post_types={})
    split = make_split(s)
    c = explicit_choices(s, split)
    g = build_graph(c, split)
    Z, names, posts = preference_rows(g)
    t = s.choices.table
    n = np.bincount(t.post[np.isin(t.employee, split.train)], minlength=12)
    assert names[:1] == ['popularity'] and np.allclose(posts[:, 0], np.log1p(n) / np.log1p(n).std(), atol=1e-5)
    o = StatisticalObjective(g, best(), 0)
    p = o.negatives.draw(o.panel, np.random.default_rng(0))
    assert np.allclose(p.z[p.chosen, 0], (np.log(n) / np.log1p(n).std())[o.negatives.chosen], atol=1e-5)
    r, other = (
        run_one(
            s, split, m, config=best(stage2_epochs=80) if m == 'best' else None, n_boot=0
        ).results.preference.metrics
        for m in ('best', 'majority')
    )
    assert r['log_loss'].value < np.log(7) - 0.1 and r['mrr'].value > other['mrr'].value - 0.03


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_a_gpu(made):
    g = build_graph(made, make_split(made))
    a, b = (scores(fit(g, best(), 0, device=d), g) for d in ('cpu', 'cuda'))
    assert np.allclose(a['turnover'], b['turnover'], atol=1e-3) and np.allclose(a['utility'], b['utility'], atol=1e-2)


def test_every_post_chosen_by_a_person_is_named():
    s = interactions(n=40, P=4)
    split = make_split(s)
    first = split.train[0]
    t = s.choices.table
    c = candidate_sets(s, split, 1, 0)
    g = build_graph(c, split)
    o = StatisticalObjective(g, best(), 0)
    assert o.negatives.n == 1
    t = pd.concat(
        [
            t,
            pd.DataFrame(
                dict(
                    situation=0,
                    employee=first,
                    task=0,
                    alternative=0,
                    post=np.setdiff1d(np.arange(4), t.post[t.employee == first]),
                    chosen=True,
                    available=True,
                )
            ),
        ]
    )
    t = (
        t.sort_values('employee', kind='stable')
        .assign(situation=np.arange(len(t)))
        .astype(s.choices.table.dtypes)
        .reset_index(drop=True)
    )
    greedy = replace(s, choices=replace(s.choices, table=t))
    with pytest.raises(ValueError, match='leaves only 0 of 4 posts|no alternative is left'):
        run_one(greedy, make_split(greedy), 'best', config=best(), n_boot=0)


def test_odd_questionnaires():
    "Items that people were given in two forms, of two hundred levels, that nobody answered or all answered alike"
    s = with_items(world(180))
    split = make_split(s)
    trait = s.features.trust_1 - s.features.trust_5
    f = s.features.copy()
    for c, gone in (('trust_1', 0), ('trust_2', 0), ('trust_4', 1), ('trust_5', 1)):
        f.loc[np.arange(s.n) % 2 == gone, c] = np.nan
    a, b = (scale_scores(replace(s, features=x), split.train)[0][:, 0] for x in (s.features, f))
    assert (
        min(abs(np.corrcoef(a[i::2], b[i::2])[0, 1]) for i in (0, 1)) > 0.8 and abs(np.corrcoef(a, trait)[0, 1]) > 0.8
    )
    fine = {c: replace(s.types[c], levels=tuple(map(str, range(1, 201)))) for c in s.types if c.startswith('mood')}
    f = s.features.assign(**{c: s.features[c] * 33 for c in fine})
    assert np.allclose(
        scale_scores(replace(s, features=f, types=s.types | fine), split.train)[0],
        scale_scores(s, split.train)[0],
        atol=1e-5,
    )
    f = s.features.assign(**{f'calm_{j}': 3.0 for j in range(1, 6)}, **{f'mood_{j}': np.nan for j in range(1, 6)})
    odd = replace(s, features=f)
    assert (
        not scale_scores(odd, split.train)[0][:, 1:].any()
        and np.isfinite(predict(fit(g := build_graph(odd, split), best(), 0).model, g, 'test')['utility']).all()
    )
    assert careless_probability(odd, split.train[:99]) is None and careless_probability(world(180), split.train) is None


def test_careless_people_are_the_coins():
    shares = []
    for careless in (0.0, 0.5):
        s = make_synthetic(n_employees=400, seed=5, careless=careless).survey
        g = build_graph(s, make_split(s, seed=5))
        shares.append(learned(fit(g, make_config('best', epochs=2), 0).model, g)['coin'])
    assert shares[1] > shares[0] + 0.1


# --- switches, names

NAMES = [k for k in GROUPS['parts'] if k != 'best']


@pytest.fixture(scope='module')
def switched():
    s = make_synthetic(n_employees=200, seed=4, careless=0.3).survey
    g = build_graph(s, make_split(s, seed=4, preference='warm', n_known=3))
    return g, fit(g, best(stage2_epochs=40), 0)


@pytest.mark.parametrize('name', NAMES)
def test_each_variant_changes_the_scores(switched, name):
    g, f = switched
    other = fit(g, best(**{'stage2_epochs': 40, **VARIANTS[name][1]}), 0)
    a, b = scores(f, g), scores(other, g)
    task = 'utility' if any(w in name for w in ('coin', 'taste', 'scale', 'shared', 'quality')) else 'turnover'
    assert not np.array_equal(a[task], b[task])
    if task == 'utility':
        assert np.array_equal(a['turnover'], b['turnover'])  # turnover does not know of it


def test_variants_are_named_in_both_languages():
    from turnover_nb.report.words import NAMES as words

    assert (
        all(len(words[k]) == 2 and len({*words[k]}) == 2 for k in NAMES)
        and 'best' in PRESETS
        and len({words[k][0] for k in NAMES}) == len({words[k][1] for k in NAMES}) == len(NAMES)
    )


@pytest.mark.parametrize(
    'name,said',
    [
        ('best+encoder=sage', 'encoder=sage would change nothing in best'),
        ('hgt+coin=false', 'coin=false would change nothing in hgt'),
        ('best+branch=gat', 'branch'),
        ('best+tastes=-1', 'tastes'),
        ('best+coins=false', "did you mean 'coin'"),
        ('best+network=small', 'network'),
    ],
)
def test_settings_that_do_nothing_or_do_not_exist_are_named(name, said):
    with pytest.raises(ValueError, match=said):
        parse_variant(name)
    with pytest.raises(ValueError, match=said):
        Plan(models=(name,), seeds=(0,))


def test_settings_of_all_models_may_be_those_of_another_family():
    assert (
        parse_variant('best', dict(hidden=32))[1] == dict(hidden=32)
        and parse_variant('hgt+family=statistical+coin=false')[0] == 'hgt'
    )


def test_a_loss_that_is_not_finite_is_named(made):
    g = build_graph(made, make_split(made))
    t = Trainer(g, best(), 0)
    with torch.no_grad():
        t.model.turnover_part.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match='stage1, epoch 0'):
        t.run_epoch()


def test_checkpoint_of_another_family_is_no_surprise(made, tmp_path):
    g = build_graph(made, make_split(made))
    f = fit(g, best(), 0)
    torch.save(checkpoint(f, g), tmp_path / 'b.pt')
    with pytest.raises(ValueError, match='another graph'):
        load_model(tmp_path / 'b.pt', build_graph(made, make_split(made, seed=9)))
    with pytest.raises(ValueError, match='another config'):
        fit(g, make_config('hgt'), 0, resume=save_state(g, tmp_path))


def save_state(g, folder):
    t = Trainer(g, best(), 0)
    t.run_epoch()
    t.save(folder / 'r.pt', {})
    return folder / 'r.pt'


def test_weights_of_people_count(made):
    s = make_split(made)
    w = np.ones(len(s.train))
    w[::2] = 0.0
    half = replace(s, weight=w)
    c = best()
    a, b = (fit(build_graph(made, x), c, 0) for x in (s, half))
    assert not same(a.model.turnover_part, b.model.turnover_part) and not same(
        a.model.preference_part, b.model.preference_part
    )
    assert same(a.model, fit(build_graph(made, replace(s, weight=np.full(len(s.train), 3.0))), c, 0).model)
