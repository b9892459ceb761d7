"Splits: partitions, proportions, and what is refused, over many seeds"

from dataclasses import replace
import numpy as np
import pandas as pd
import pytest
from turnover_nb.data.split import PHASES, draw_known, group_labels, make_split
from worlds import world

W = world(300, tasks=5)
ARGS = dict(holdout={}, kfold=dict(fold=2), group=dict(group='employer'), time={})
part = lambda s: [s.train, s.valid, s.test]


@pytest.mark.parametrize('protocol', ARGS)
@pytest.mark.parametrize('seed', range(4))
def test_partition_of_the_expected_sizes(protocol, seed):
    s = make_split(W, protocol, seed=seed, **ARGS[protocol])
    assert np.array_equal(np.sort(np.concatenate(part(s))), np.arange(300))
    slack = dict(holdout=0, kfold=1, group=10, time=20)[protocol]
    assert all(abs(len(x) - n) <= slack for x, n in zip(part(s), (204, 36, 60)))
    assert all(0 < W.turnover[x].sum() < len(x) for x in part(s))


@pytest.mark.parametrize('protocol', ['holdout', 'kfold'])
def test_stratified_to_within_one_person(protocol):
    for seed in range(10):
        for x in part(make_split(W, protocol, seed=seed, **ARGS[protocol])):
            assert abs(W.turnover[x].sum() - len(x) * 0.2) <= 1


@pytest.mark.parametrize('protocol', ARGS)
def test_same_seed_same_split_another_seed_another(protocol):
    a, b, c = (make_split(W, protocol, seed=s, **ARGS[protocol]) for s in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(part(a), part(b)))
    assert np.array_equal(a.test, c.test) == (protocol == 'time')


@pytest.mark.parametrize('protocol', ARGS)
def test_only_labels_groups_and_times_are_looked_at(protocol):
    other = replace(
        W,
        features=W.features.sample(frac=1, random_state=0).reset_index(drop=True),
        likelihood=1 - W.likelihood,
        posts=None,
    )
    a, b = (make_split(w, protocol, preference='warm', **ARGS[protocol]) for w in (W, other))
    assert all(np.array_equal(x, y) for x, y in zip(part(a) + [a.known], part(b) + [b.known]))


def test_folds_partition_the_people_in_every_repeat():
    for seed in (0, 7):
        for kw in (dict(protocol='kfold'), dict(protocol='group', group='site')):
            tests = [make_split(W, seed=seed, fold=f, n_folds=4, **kw).test for f in range(4)]
            assert np.array_equal(np.sort(np.concatenate(tests)), np.arange(300))


@pytest.mark.parametrize('group', ['employer', 'site', 'manager'])
def test_no_group_is_in_two_parts(group):
    g = group_labels(W, group)
    for seed in range(3):
        s = make_split(W, 'group', seed=seed, group=group)
        assert sum(len(np.unique(g[x])) for x in part(s)) == len(np.unique(g))


def test_very_many_groups_are_put_together_whole():
    w = world(15_000, tasks=2)
    s = make_split(w, 'group', group='employer')
    assert sum(len(np.unique(x // 5)) for x in part(s)) == 3000
    assert all(
        abs(len(x) / 15_000 - f) < 0.03 and abs(w.turnover[x].mean() - 0.2) < 0.01
        for x, f in zip(part(s), (0.68, 0.12, 0.20))
    )


def test_several_values_are_no_group():
    with pytest.raises(ValueError, match="'position' ties some employees to several nodes"):
        make_split(W, 'group', group='position')


def test_blank_groups_are_groups_of_one():
    w = replace(W, groups=pd.DataFrame(dict(site=['a', 'a', '', None] + ['b'] * 296)))
    g = group_labels(w)
    assert g[0] == g[1] and len({g[0], g[2], g[3], g[4]}) == 4


def test_time_never_runs_backwards_and_ties_stay_together():
    for seed in range(5):
        w = world(200, seed=seed)
        s = make_split(w, 'time')
        t = w.time.to_numpy()
        assert t[s.train].max() < t[s.valid].min() and t[s.valid].max() < t[s.test].min()
    dated = replace(w, time=pd.Series(pd.to_datetime('2024-01-01') + pd.to_timedelta(t, unit='D')))
    assert all(np.array_equal(a, b) for a, b in zip(part(make_split(dated, 'time')), part(s)))


def test_time_with_one_huge_tie_still_fills_three_parts():
    w = replace(
        W, time=pd.Series(np.r_[np.zeros(280), np.full(10, 1.0), np.full(10, 2.0)]), turnover=np.tile([0.0, 1.0], 150)
    )
    assert [len(x) for x in part(make_split(w, 'time'))] == [280, 10, 10]


@pytest.mark.parametrize('unknown', [1, 3, 60])
@pytest.mark.parametrize('protocol', ['holdout', 'kfold'])
def test_unlabelled_people_are_split_too(unknown, protocol):
    y = W.turnover.copy()
    y[np.flatnonzero(y == 0)[:unknown]] = np.nan
    s = make_split(replace(W, turnover=y), protocol, **ARGS[protocol])
    assert np.array_equal(np.sort(np.concatenate(part(s))), np.arange(300))
    assert [int(np.nansum(y[x])) for x in part(s)] == [41, 7, 12]


def test_without_labels_any_people_will_do():
    for protocol in ARGS:
        assert len(make_split(replace(W, turnover=None), protocol, **ARGS[protocol]).test)


def test_warm_leaves_each_person_something_to_predict():
    w = replace(
        W, choices=replace(W.choices, table=W.choices.table.iloc[:-6].reset_index(drop=True))
    )  # the last person answered 2 of 5
    for seed in range(5):
        s = make_split(w, seed=seed, preference='warm', n_known=3)
        e = w.choices.employee
        held = np.union1d(s.valid, s.test)
        n = np.bincount(e[s.known], minlength=300)
        assert (n[s.train] == 0).all() and all(n[i] == (1 if i == 299 else 3) for i in held)
        got = np.concatenate([s.situations(w, p) for p in PHASES] + [np.flatnonzero(s.known)])
        assert np.array_equal(np.sort(got), np.arange(w.choices.n))


def test_each_answer_is_as_likely_to_be_known():
    e = np.repeat(np.arange(4000), 5)
    k = draw_known(e, 2, np.random.default_rng(0)).reshape(4000, 5)
    assert (k.sum(1) == 2).all() and abs(k.mean(0) - 0.4).max() < 4 * (0.24 / 4000) ** 0.5


def _leavers(n):
    return replace(W, turnover=np.r_[np.ones(n), np.zeros(300 - n)])


REFUSED = [
    (lambda: make_split(_leavers(2)), '2 employees leave and 298 stay; a split in three needs at least 3 of each'),
    (lambda: make_split(_leavers(298)), '298 employees leave and 2 stay'),
    (lambda: make_split(_leavers(4), 'kfold', fold=0), '4 employees leave and 296 stay; 5-fold needs at least 5'),
    (lambda: make_split(_leavers(0)), '0 employees leave and 300 stay'),
    (lambda: make_split(_leavers(5), 'group', group='employer'), 'each part needs at least 1 employee who leaves'),
    (
        lambda: make_split(replace(W, groups=pd.DataFrame(dict(site=['a', 'b'] * 150))), 'group'),
        '2 groups; a group split in 5 needs at least 5',
    ),
    (lambda: make_split(W, 'group', group='firm'), "group 'firm': expected one of"),
    (lambda: make_split(replace(W, time=None), 'time'), 'needs a `time` column'),
    (lambda: make_split(replace(W, time=W.time.where(W.time > 3)), 'time'), 'time is missing for'),
    (lambda: make_split(replace(W, time=W.time % 2), 'time'), '2 distinct times; a time split needs at least 3'),
    (lambda: make_split(W, 'random'), "protocol 'random'"),
    (lambda: make_split(W, preference='hot'), "preference 'hot'"),
    (lambda: make_split(W, 'kfold', fold=-1), 'fold -1 of 5'),
    (lambda: make_split(W, fold=0), 'no folds'),
    (lambda: make_split(W, 'kfold', fold=0, n_folds=1), 'n_folds=1'),
    (lambda: make_split(W, group='site'), 'for the group protocol'),
    (lambda: make_split(W, fractions=(0.5, 0.5, 0.0)), 'three positive shares'),
    (lambda: make_split(W, preference='warm', n_known=0), 'n_known=0'),
    (lambda: make_split(W, preference='warm', n_known=5), 'answered at most 5 tasks; 1 to 4 can be known'),
]


@pytest.mark.parametrize('make,said', REFUSED, ids=[s for _, s in REFUSED])
def test_refused_with_the_numbers(make, said):
    with pytest.raises(ValueError) as e:
        make()
    assert said in str(e.value)
