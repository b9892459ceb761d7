"Posts that do not exist yet: planted shares come back within their intervals, what cannot be told is refused, bad tables are named; tastes as tables, in runs and in the report"

from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from turnover_nb.cli import main
from turnover_nb.core.errors import DataError
from turnover_nb.tastes.offers import LEAST, group_masks, read_posts
from turnover_nb.synthetic.conjoint import conjoint_world
from turnover_nb.tastes.resampled import belief, fit_what_if, resample, share_interval, shares
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.core.tables import CHOICE_COLUMNS, Choices
from turnover_nb.tastes.tables import (
    coefficient_table,
    person_tastes,
    population_table,
    run_curve,
    run_tastes,
    tastes,
    utility_weights,
)
from turnover_nb.tastes.known import curve_of
from turnover_nb.choice.design import level_name, pay_attribute
from turnover_nb.tastes.what_if import DECLINE, what_if

QUICK = dict(n_boot=20, folds=2, grid=[dict(coin=False, penalty=0.5, steps=60, draws=12)])
POSTS = pd.DataFrame(
    dict(post=['now', 'remote', 'rich'], pay=[0, 5, 20], remote=['none', 'full', 'none'], kind='private')
)


@pytest.fixture(scope='module')
def world():
    return conjoint_world(n=300, seed=3)


@pytest.fixture(scope='module')
def model(world):
    return fit_what_if(
        world[0], 'commute', n_boot=24, folds=2, grid=[dict(coin=False, penalty=0.5, steps=100, draws=24)]
    )


def real_shares(beta, Z):
    "Planted probability of each post and of declining, by person"
    p = np.exp(np.c_[beta @ Z.T, np.zeros(len(beta))])
    return p / p.sum(1, keepdims=True)


def plain(survey):
    "The same survey without the option to decline: the third alternative and what was chosen there are gone"
    t = survey.choices.table
    keep = (t.alternative < 2) & ~t.chosen.where(t.alternative == 2, False).groupby(t.situation).transform('any')
    t = t[keep].copy()
    t['situation'] = pd.factorize(t.situation)[0]
    return replace(
        survey,
        posts=survey.posts[:-1],
        choices=Choices(
            t.astype(CHOICE_COLUMNS).reset_index(drop=True),
            survey.choices.tasks,
            survey.choices.alternatives[:2],
            'long',
        ),
    )


def shown_pair(s):
    return pd.DataFrame({a: [level_name(s.post_types[a], v) for v in s.posts[a][:2]] for a in s.posts}).assign(
        post=['A', 'B']
    )


# ------------------------------------------------------------------------------------------- shares
def test_planted_shares_lie_in_their_intervals(world, model):
    "Of everybody and of each group, against the planted tastes of these very people; and the intervals are no wider than useful"
    s, beta = world
    r = what_if(model, POSTS, 'commute', moves=False)
    Z = np.c_[[0, 5, 20], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    p = real_shares(beta, Z)
    far = s.features.commute == 'long'
    real = {
        g: dict(zip(['now', 'remote', 'rich', DECLINE], p[m].mean(0)))
        for g, m in dict(everybody=np.ones(s.n, bool), long=far, short=~far).items()
    }
    hit = [q.low <= real[q.group][q.post] <= q.high for q in r.shares.itertuples()]
    assert len(hit) == 12 and sum(hit) >= 11 and (r.shares.high - r.shares.low).max() < 0.25, r.shares
    assert np.abs(r.shares.groupby('group').share.sum() - 1).max() < 1e-5
    assert dict(zip(r.shares.group, r.shares.people)) == dict(everybody=300, long=far.sum(), short=(~far).sum())


def test_intervals_cover_over_worlds():
    "The share of remote work over small worlds: the errors are as large as the intervals say"
    z = []
    for seed in range(4):
        s, beta = conjoint_world(n=100, seed=seed)
        r = what_if(s, POSTS, moves=False, seed=seed, **QUICK).shares
        q = r[r.post == 'remote'].iloc[0]
        z.append(
            (q.share - real_shares(beta, np.c_[[0, 5, 20], [0, 0, 0], [0, 1, 0], [0, 0, 0]])[:, 1].mean())
            / ((q.high - q.low) / 3.92)
        )
    assert np.abs(z).max() < 3 and 0.2 < np.std(z) < 2, z


def test_more_pay_moves_more_people(model):
    pay = [-10, 0, 10, 20, 30]
    table = pd.DataFrame(dict(post=[f'p{x}' for x in pay], pay=pay, remote='none', kind='private', offer=pay))
    r = what_if(model, table, moves=False).shares
    assert (np.diff(r[r.post != DECLINE].share) > 0).all()
    m = what_if(model, POSTS, 'commute', reference='now').moves
    up = m[(m.attribute == 'pay') & m.change.str.startswith('+')]
    assert (up.low > 0).all() and np.allclose(up.per_unit, up.difference / 10) and set(m.against) == {f'now, {DECLINE}'}


def test_a_single_change_is_what_asking_for_it_says(model):
    "The share after a change is the share of a table with that change"
    m = what_if(model, POSTS[:2], 'commute').moves
    row = m[(m.post == 'now') & (m.attribute == 'remote') & (m.change == 'none → full') & (m.group == 'long')].iloc[0]
    changed = what_if(model, POSTS[:2].assign(remote='full'), 'commute', moves=False).shares
    q = changed[(changed.post == 'now') & (changed.group == 'long')].iloc[0]
    assert row.share == pytest.approx(q.share, abs=1e-5)


def test_the_smallest_change_reaches_the_target(model):
    r = what_if(model, POSTS[:2], 'commute', target=0.5, reference='remote')
    t = r.targets
    pay = t[(t.attribute == 'pay') & (t.group == 'short')].iloc[0]
    assert pay.low < pay.amount and (np.isnan(pay.high) or pay.amount < pay.high) and t.now.max() < 0.5
    at = what_if(model, POSTS[:2].assign(pay=[pay.amount, 5]), 'commute', reference='remote', moves=False).shares
    assert at[(at.post == 'now') & (at.group == 'short')].share.iloc[0] == pytest.approx(0.5, abs=0.005)
    assert t.note.str.contains('not reached').any() and 'Smallest single change that lifts the share to 0.5' in r.text()
    easy = what_if(model, POSTS[:2], target=0.05).targets
    assert (easy.change == 'none needed').all() and len(easy) == 2


def test_with_no_option_to_decline_shares_are_among_the_posts(world):
    s = plain(world[0])
    r = what_if(s, POSTS, moves=False, **QUICK)
    assert DECLINE not in set(r.shares.post) and r.shares.share.sum() == pytest.approx(1, abs=1e-5)
    two = what_if(s, POSTS, moves=False, reference='now', **QUICK).shares
    assert list(two.post) == ['remote', 'now', 'rich', 'now'] and (two.share[two.post != 'now'] > 0.5).all()
    with pytest.raises(
        ValueError,
        match="post 'now' is offered alone, and the tasks had no option to decline: add a post, or name a reference",
    ):
        what_if(s, POSTS[:1], **QUICK)


def test_seed_and_nothing_else_moves_the_answer(world):
    ask = lambda seed: what_if(world[0], POSTS, 'commute', seed=seed, target=0.6, **QUICK)
    first = ask(0)
    n = torch.get_num_threads()
    torch.set_num_threads(2 if n == 1 else 1)
    try:
        again = ask(0)
    finally:
        torch.set_num_threads(n)
    for k in ('shares', 'moves', 'targets'):
        pd.testing.assert_frame_equal(getattr(first, k), getattr(again, k), check_exact=True)
    assert first.notes == again.notes and not np.array_equal(first.shares.low, ask(1).shares.low)


def test_resampled_people_are_whole_people(world):
    from turnover_nb.choice.panel import make_panel

    s = plain(world[0])
    panel, _ = make_panel(
        s.choices,
        np.arange(len(s.posts), dtype='float32')[s.choices.table.post.to_numpy()][:, None],
        np.zeros((s.n, 1), 'float32'),
        np.isin(s.choices.employee, [2, 5]),
    )
    r = resample(panel, torch.tensor([0, 1, 1]))
    k = torch.bincount(panel.person).tolist()
    assert torch.bincount(r.person).tolist() == [k[0], k[1], k[1]]
    assert torch.equal(r.z[r.chosen], torch.cat([panel.z[panel.chosen], panel.z[panel.chosen[panel.person == 1]]]))


# ------------------------------------------------------------------------------------------- groups
def test_small_groups_and_the_next_smallest_are_hidden(world):
    s, _ = world
    r = what_if(s, POSTS, 'employer', moves=False, **QUICK)
    n = np.bincount(s.relations['employer'].edges[1])
    assert n[-1] == 12
    few = replace(
        s,
        protected=pd.DataFrame(
            dict(
                office=np.r_[
                    np.repeat('big', 280), np.repeat('middle', 12), np.repeat('small', 5), np.repeat('tiny', 3)
                ]
            )
        ),
    )
    hidden = what_if(few, POSTS, 'office', moves=False, **QUICK)
    assert (
        set(hidden.shares.group) == {'everybody', 'big', 'middle'}
        and 'tiny' in hidden.notes[-1]
        and 'small' in hidden.notes[-1]
    )
    assert hidden.shares.people.min() >= LEAST and set(r.shares.group) == {
        'everybody',
        *s.relations['employer'].labels[:25],
    }


def test_groups_are_features_relations_and_protected_columns():
    s = make_synthetic(n_employees=60, seed=0).survey
    who = np.arange(s.n)
    got = lambda c: [g for g in group_masks(s, c, who)[0] if g]
    assert (
        got('gender')
        and got('company_size')
        and got('commute_minutes')[0].startswith(('10', '5', 'over'))
        and {'position_5'} <= set(got('position')) | set(group_masks(s, 'position', who)[1])
    )
    with pytest.raises(ValueError, match=r"no column or relation 'gendr' \(did you mean 'gender'\?\)"):
        group_masks(s, 'gendr', who)


# ------------------------------------------------------------------------------------------- what cannot be told
def test_what_the_tasks_do_not_tell_is_blank_with_a_reason():
    s = make_synthetic(n_employees=100, seed=0).survey
    pair = shown_pair(s)
    r = what_if(s, pd.concat([pair.assign(offer=1), pair.assign(offer=2, pay_change=['0', '20'])]), target=0.9, **QUICK)
    assert r.shares.share.notna().tolist() == [True, True, False, False] and r.shares.note.str.startswith(
        'not identified'
    ).tolist() == [False, False, True, True]
    assert (
        r.moves.share.isna().all()
        and r.moves.note.str.startswith('not identified').all()
        and (r.targets.note == 'not identified').all()
        and any('whatever the model' in n for n in r.notes)
    )


def test_a_model_that_is_no_better_says_so(world):
    s, _ = world
    r = np.random.default_rng(0)
    t = s.choices.table
    pick = r.integers(0, 3, s.choices.n)
    coins = replace(s, choices=replace(s.choices, table=t.assign(chosen=t.alternative.to_numpy() == pick[t.situation])))
    m = fit_what_if(coins, **QUICK)
    assert (
        any(x.startswith('THE MODEL IS NOT SHOWN TO BE BETTER THAN THE MAJORITY CHOICE') for x in belief(m))
        and 'do not act on it' in what_if(m, POSTS, moves=False).text()
    )


def test_tasks_left_out_are_predicted_where_the_others_identify_them(shared_data):
    from turnover_nb.data.survey import read_survey

    s = read_survey(shared_data / 'mba_job_conjoint', 'mba_job_conjoint')
    m = fit_what_if(s, **QUICK)
    assert (
        list(m.check.index) == ['features', 'answers', 'new tasks']
        and m.check.choices['new tasks'] == 560
        and m.ordinal == 'linear'
    )
    assert any('an even chance' in x for x in belief(m)) and any(
        'Each step of an ordered attribute' in x for x in belief(m)
    )


def test_far_beyond_what_people_were_shown_is_noted(model):
    r = what_if(model, POSTS.assign(pay=[0, 5, 90]), moves=False)
    assert (
        r.shares[r.shares.post == 'rich'].note.iloc[0] == 'pay = 90 lies outside the -10 to 30 that people were shown'
    )


# ------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    'edit, message',
    [
        (
            lambda t: t.drop(columns='remote'),
            r'posts.csv, column remote: no such column; expected the columns post, pay, remote, kind, and offer',
        ),
        (lambda t: t.rename(columns=dict(remote='remot')), r"column remote: no such column \(did you mean 'remot'\?\)"),
        (lambda t: t.drop(columns='post'), 'column post: no such column'),
        (lambda t: t.assign(bonus=1), 'column bonus: is no attribute of the posts that people were shown'),
        (
            lambda t: t.assign(remote='sometimes'),
            "column remote, row 2: 'sometimes' is a level that nobody was shown.*expected one of none, hybrid, full",
        ),
        (
            lambda t: t.assign(kind=['private', 'foreign', 'private']),
            "column kind, row 3: 'foreign' is a level that nobody was shown.*expected one of private, state",
        ),
        (
            lambda t: t.assign(pay=['0', 'a lot', '5']),
            "column pay, row 3: 'a lot' is not a number; expected a number of percent",
        ),
        (lambda t: t.assign(pay=['0', '', '5']), 'column pay, row 3: is blank'),
        (lambda t: t.assign(pay=['0', 'inf', '5']), "column pay, row 3: 'inf' is not a"),
        (lambda t: t[:0], 'posts.csv: has a header but no data'),
        (lambda t: t.assign(post='x'), "column post, rows 2, 3, 4: 'x' names two posts of one offer"),
        (lambda t: t.assign(post=['a', '', 'b']), 'column post, row 3: is blank'),
        (
            lambda t: t.assign(offer=1, situation=2),
            'columns offer, situation: two columns say what is offered together',
        ),
    ],
)
def test_a_bad_table_is_one_clear_error(world, tmp_path, edit, message):
    f = tmp_path / 'posts.csv'
    edit(POSTS).to_csv(f, index=False)
    with pytest.raises(DataError, match=message):
        read_posts(f, world[0])


def test_bad_arguments_are_refused_before_anything_is_fitted(world, monkeypatch):
    import turnover_nb.tastes.what_if as module

    monkeypatch.setattr(module, 'fit_what_if', lambda *a, **k: pytest.fail('fitted'))
    s, _ = world
    for kw, message in (
        (dict(target=50), 'target=50: expected a share between 0 and 1'),
        (dict(reference='nwo'), r"no post 'nwo' \(did you mean 'now'\?\)"),
        (dict(group='comute'), "no column or relation 'comute'"),
    ):
        with pytest.raises(ValueError, match=message):
            what_if(s, POSTS, **kw)
    with pytest.raises(ValueError, match='holds no choices of posts with attributes'):
        what_if(replace(s, choices=None), POSTS)
    with pytest.raises(DataError, match='nothing.csv: no such file'):
        what_if(s, 'nothing.csv')
    for kw, message in (
        (dict(n_boot=5), 'at least 20 resamples'),
        (dict(ordinal='steps'), 'expected one of auto, levels, linear'),
        (dict(folds=200), 'the check needs at least 400'),
    ):
        with pytest.raises(ValueError, match=message):
            fit_what_if(s, **kw)


def test_labels_and_affixes_of_the_codebook_are_understood(world, tmp_path):
    assert list(read_posts(POSTS.assign(pay=['0 %', '+5', '20percent']), world[0]).pay) == [0, 5, 20]
    POSTS.assign(pay=['0', '5', '20']).to_parquet(tmp_path / 'p.parquet')
    assert list(read_posts(tmp_path / 'p.parquet', world[0]).pay) == [0, 5, 20]


# ------------------------------------------------------------------------------------------- tastes
def test_tastes_find_what_was_planted(world, model):
    s, beta = world
    t, est, d = coefficient_table(s)
    assert (t.note == '').all() and list(t.name) == [
        'pay',
        'remote: hybrid vs none',
        'remote: full vs none',
        'kind: state vs private',
        'no post',
    ]
    p = population_table(model).set_index('name')
    names = list(t.name[:4])
    assert ((p.low[names] <= beta.mean(0)) & (beta.mean(0) <= p.high[names])).sum() >= 3 and pay_attribute(s) == 'pay'
    own = person_tastes(model)
    assert (
        list(own.index) == list(s.ids)
        and np.corrcoef(own['remote: full vs none'], beta[:, 2])[0, 1] > 0.6
        and abs(own.mean() - p.value[own.columns]).max() < 1e-3
    )


def test_perfect_separation_is_named_and_does_not_stop_a_run(world):
    s = plain(world[0])
    t = s.choices.table
    pay = s.posts.pay.to_numpy()[t.post] + 1e-4 * t.post.to_numpy()
    best = pd.Series(pay).groupby(t.situation.to_numpy()).transform('max').to_numpy() == pay
    posts = s.posts.assign(pay=s.posts.pay + 1e-4 * np.arange(len(s.posts)))
    bad = replace(s, posts=posts, choices=replace(s.choices, table=t.assign(chosen=best)))
    with pytest.raises(ValueError, match='perfect separation by pay: every choice follows it'):
        tastes(bad, **QUICK)
    note = run_tastes('conditional_logit', None, bad, make_split(bad))
    assert list(note.kind) == ['note'] and 'perfect separation' in note.note[0]


def test_weights_of_the_utility_head_are_its_utilities(world):
    "Utilities by natural units differ from the model's by a constant of each person"
    from turnover_nb.models.gnn.config import make_config
    from turnover_nb.graph.graph import build_graph
    from turnover_nb.models.trainer import fit, model_inputs

    s = plain(world[0])
    g = build_graph(s, make_split(s))
    m = fit(g, make_config(preference_head='utility', hidden=8, epochs=3), 0).model
    w = utility_weights(m, g)
    d = coefficient_table(s, 'linear')[2]
    data = model_inputs(g, m.config, 'test')
    sup = g.supervision('test')
    who = data['employee'].index.numpy()[sup.employee.numpy()]
    post = (
        data['post'].index.numpy()[sup.post.numpy()]
        if 'index' in data['post']
        else s.choices.table.post.to_numpy()[sup.rows.numpy()]
    )
    with torch.no_grad():
        u = m.utility(m.eval()(data), data, sup.employee, sup.post).numpy()
    natural = (w.loc[s.ids[who]].to_numpy() * d.Z[post]).sum(1)
    gap = pd.Series(u - natural).groupby(who).std()
    assert gap.max() < 1e-4 and np.std(u) > 0.01, gap.max()
    with pytest.raises(ValueError, match="preference_head='utility'"):
        utility_weights(fit(g, make_config(hidden=8, epochs=1), 0).model, g)


# ------------------------------------------------------------------------------------------- commands, runs, report
def test_commands_on_the_synthetic_survey(tmp_path, capsys):
    s = make_synthetic(n_employees=80).survey
    f = tmp_path / 'posts.csv'
    shown_pair(s).to_csv(f, index=False)
    base = ['--employees', '80', '--resamples', '20', '--out', str(tmp_path / 'o')]
    assert main(['what-if', '--posts', str(f), '--group', 'gender', '--target', '.6', *base]) == 0
    out = capsys.readouterr().out
    assert 'Predicted share of takers' in out and 'Not identified, so not shown' in out and 'Out of fold' in out
    assert {p.name for p in (tmp_path / 'o').iterdir()} >= {'shares.csv', 'notes.txt', 'shares.png'}
    written = ' '.join(p.read_text('utf-8') for p in (tmp_path / 'o').glob('*.csv'))
    assert not any(i in written for i in s.ids)
    assert main(['tastes', *base]) == 0 and 'identify 7 directions' in capsys.readouterr().out
    (tmp_path / 'bad.csv').write_text('post,pay_change\na,1\n')
    assert main(['what-if', '--posts', str(tmp_path / 'bad.csv'), *base]) == 2
    assert (
        'bad.csv, column company_type: no such column' in capsys.readouterr().err
        and main(['tastes', '--employees', '80', '--pay', 'salary']) == 2
    )


def test_runs_leave_what_the_report_needs_and_the_report_shows_it(tmp_path):
    from turnover_nb.runs.sweep import Plan, start, sweep
    from turnover_nb.report.report import make_report

    plan = Plan(
        models=('majority', 'conditional_logit', 'latent_class'), seeds=(0, 1), employees=80, preference=('cold',)
    )
    folder = start(plan, tmp_path, 'x')
    assert all(o.ok for o in sweep(plan, folder, 1))
    have = {
        p.parent.parent.name: {q.name for q in p.parent.glob('*.parquet')} for p in folder.glob('*/seed_0/results.json')
    }
    assert (
        'tastes.parquet' in have['conditional_logit']
        and {'tastes.parquet', 'known_curve.parquet'} <= have['latent_class']
        and not {'tastes.parquet', 'known_curve.parquet'} & have['majority']
    )
    curve = pd.read_parquet(folder / 'latent_class' / 'seed_0' / 'known_curve.parquet')
    assert sorted(curve.known.unique()) == list(range(7)) and (curve.groupby('known').employee.nunique() == 16).all()
    text = make_report(folder).read_text('utf-8')
    assert all(
        w in text
        for w in ('Accuracy against known answers', 'Tastes: what the choices say', 'coefficients are not identified')
    )
    assert (
        (folder / 'report' / 'tables' / 'known_answers.csv').exists()
        and (folder / 'report' / 'figures' / 'known_answers.png').exists()
        and (folder / 'report' / 'tables' / 'coefficients.csv').exists()
    )


def test_a_curve_is_the_mean_over_answers(world):
    d = pd.DataFrame(
        dict(
            known=[0, 0, 1, 1],
            employee=['a', 'b'] * 2,
            n=[3, 1, 2, 1],
            accuracy=[3.0, 0, 1, 1],
            log_loss=[0.3, 0.9, 0.4, 0.2],
        )
    )
    c = curve_of(d, np.random.default_rng(0), 200)
    assert (
        c.accuracy.tolist() == pytest.approx([3 / 4, 2 / 3])
        and c.log_loss.tolist() == pytest.approx([0.3, 0.2])
        and (c.accuracy_low <= c.accuracy).all()
        and c.n_situations.tolist() == [4, 3]
    )
    from turnover_nb.choice.panel_logit import fit_panel_preference

    s, split = world[0], make_split(world[0])
    f = fit_panel_preference('mixed_logit', s.choices, None, split, s, grid=[dict(steps=30, draws=8)])
    a, b = run_curve(f, s, split, 0), run_curve(f, s, split, 0)
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert a.n.groupby(a.known).sum().tolist() == [len(split.test) * k for k in range(6, 0, -1)]


def test_share_interval_is_on_the_log_odds():
    s = np.r_[0.9, 0.9 + 0.02 * np.random.default_rng(0).normal(size=2000)][:, None, None]
    e, lo, hi = share_interval(s)
    assert e[0, 0] == 0.9 and lo[0, 0] < 0.9 < hi[0, 0] < 1 and (0.9 - lo[0, 0]) > (hi[0, 0] - 0.9)


def test_shares_do_not_depend_on_the_order_of_posts(model):
    Z = model.design.code(read_posts(POSTS, model.survey))
    Z = np.r_[Z, [[0] * 4 + [1]]]
    M = np.ones((1, len(model.people)), bool)
    a, b = shares(model, Z, M)[0], shares(model, Z[::-1].copy(), M)[0]
    assert np.allclose(a, b[:, :, ::-1], atol=1e-5)
