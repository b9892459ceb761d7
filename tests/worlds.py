"A small made-up survey with every kind of column, relation and role, for tests of splits, graphs and audits"

from dataclasses import replace
import numpy as np
import pandas as pd
from turnover_nb.core.tables import Choices, ColumnType, Relation, Survey


def world(n=80, tasks=4, seed=0, form='pairs', missing=0.0) -> Survey:
    "`n` people in firms of 5; a fifth leave; `tasks` choices each: pairs, triples of own posts, or interactions"
    rng, e = np.random.default_rng(seed), np.arange(n)
    blank = lambda x: np.where(rng.random(n) < missing, np.nan, x)
    features = pd.DataFrame(
        dict(
            age=blank(rng.normal(40, 9, n)),
            fit=blank(rng.integers(1, 8, n) * 1.0),
            data=(rng.random(n) < 0.3) * 1.0,
            city=pd.Categorical(rng.choice(['north', 'south', 'west'], n)),
            sex=pd.Categorical(rng.choice(['f', 'm'], n)),
        )
    )
    types = dict(
        age=ColumnType('numeric'),
        fit=ColumnType('ordinal'),
        data=ColumnType('binary', group='skills'),
        city=ColumnType('categorical'),
        sex=ColumnType('categorical'),
    )
    rows, n_posts = choices(form, n, tasks, rng)
    labels = np.array(list('ABC'))[: rows.alternative.max() + 1]
    posts = pd.DataFrame(
        dict(pay=rng.normal(10, 5, n_posts), remote=pd.Categorical(rng.choice(['yes', 'no', 'some'], n_posts)))
    )
    y = np.zeros(n)
    y[rng.permutation(n)[: n // 5]] = 1
    return Survey(
        'made up',
        e.astype(str),
        features,
        types,
        relations(n, n_posts, rng),
        turnover=y,
        likelihood=rng.random(n),
        posts=posts,
        post_types=dict(pay=ColumnType('numeric'), remote=ColumnType('categorical')),
        synthetic=True,
        choices=Choices(rows, np.arange(rows.task.max() + 1).astype(str), labels, form),
        groups=pd.DataFrame(dict(site=(e // 10).astype(str))),
        time=pd.Series(rng.integers(0, 20, n) * 1.0),
        protected=pd.DataFrame(dict(sex=features.sex.astype(str))),
    )


def relations(n, n_posts, rng):
    "Firms of 5 whose first is the manager; a company type shared with posts; one or two positions"
    e, p = np.arange(n), np.arange(n_posts)
    kind = Relation(
        'company_type',
        'company_type',
        np.array(['state', 'private', 'other']),
        np.stack([e, rng.integers(0, 3, n)]),
        np.stack([p, p % 2]),
    )
    firm = Relation('employer', 'employer', np.array([f'firm {i}' for i in range(-(-n // 5))]), np.stack([e, e // 5]))
    position = Relation(
        'position',
        'position',
        np.array(list('abcd')),
        np.unique(np.stack([np.repeat(e, 2), rng.integers(0, 4, 2 * n)]), axis=1),
    )
    manager = Relation('manager', 'manager', None, np.stack([e, e // 5 * 5])[:, e % 5 != 0])
    return dict(employer=firm, company_type=kind, position=position, manager=manager)


def choices(form, n, tasks, rng):
    """The table of choices and the number of posts.

    `long`: each person is shown three posts of their own, the third sometimes unavailable"""
    e, m = np.arange(n), n * tasks
    if form == 'interactions':
        post = np.concatenate([rng.permutation(12)[:tasks] for _ in e])
        return pd.DataFrame(
            dict(
                situation=np.arange(m),
                employee=np.repeat(e, tasks),
                task=0,
                alternative=0,
                post=post,
                chosen=True,
                available=True,
            )
        ), 12
    k = 2 if form == 'pairs' else 3
    s, a = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
    t = s % tasks
    open_ = (a < 2) | (rng.random(m * k) < 0.7)
    pick = rng.integers(0, 2, m)
    post = t * 2 + a if form == 'pairs' else np.arange(m * k)
    return pd.DataFrame(
        dict(situation=s, employee=s // tasks, task=t, alternative=a, post=post, chosen=a == pick[s], available=open_)
    ), 2 * tasks if form == 'pairs' else m * k


def with_items(survey, careless=0.35, seed=0):
    """The survey with three batteries of five items, the last of each asked the other way round.

    A share of the people answers at random"""
    rng, n = np.random.default_rng(seed), survey.n
    coin, out = rng.random(n) < careless, {}
    for stem in ('trust', 'mood', 'calm'):
        f = rng.normal(size=n)
        for j in range(5):
            x = np.digitize(f * (-1 if j == 4 else 1) + 0.5 * rng.normal(size=n), (-1.3, -0.6, 0, 0.6, 1.3)) + 1.0
            out[f'{stem}_{j + 1}'] = np.where(coin, rng.integers(1, 7, n), x)
    types = {c: ColumnType('ordinal', levels=tuple('123456')) for c in out}
    return replace(survey, features=survey.features.assign(**out), types={**survey.types, **types})
