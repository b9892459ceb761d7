"""How often does a comparison claim a difference where there is none, and how often does it find one that is there?

Prints both, for example

    python tests/benchmarks/compare.py --worlds 1000 --jobs 2

A world is a new survey. Turnover: each model is a logistic regression (or a decision tree) that sees the same signal
through noise of its own. With noise of equal strength nobody is better, whatever a survey shows; `chance` compares a
model without any signal with a constant one. Preference: seven pairs per person. People are divided 68 : 12 : 20 as in
the experiments. Claims count in either direction, with 95 % Clopper-Pearson intervals."""

import argparse
import multiprocessing as mp
import os
import time

os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
import pandas as pd
from scipy import stats
from turnover_nb.evaluate.compare import BETTER, SAME, WORSE, compare_frames, power

FEATURES, TASKS = 6, 7


def logistic(X, y, train, steps=6):
    "Probabilities of L2-penalised logistic regressions on training rows, both [splits, rows], by Newton's method"
    Z = np.c_[np.ones(len(X)), X]
    b, R = np.zeros((len(train), Z.shape[1])), np.diag(np.r_[1e-6, np.ones(X.shape[1])])
    risk = lambda: 1 / (1 + np.exp(-np.clip(b @ Z.T, -30, 30)))
    for _ in range(steps):
        p = risk()
        H = ((train * p * (1 - p))[:, :, None] * Z).transpose(0, 2, 1) @ Z + R
        b = b + np.linalg.solve(H, ((train * (y - p)) @ Z - b @ R)[..., None])[..., 0]
    return risk()


def tree(X, y, train):
    "The same by decision trees, an unstable learner whose model seed differs from split to split"
    from sklearn.tree import DecisionTreeClassifier

    fit = lambda j, t: (
        DecisionTreeClassifier(min_samples_leaf=10, max_features=3, random_state=j)
        .fit(X[t], y[t])
        .predict_proba(X)[:, 1]
    )
    return np.array([fit(j, t) for j, t in enumerate(train)])


def parts(rng, y, design, splits):
    "Training and test people, bool [splits, people], stratified; validation people are neither"
    test = np.zeros((splits, len(y)), bool)
    for c in np.unique(y):
        people = np.flatnonzero(y == c)
        for j in range(splits):
            if design == 'holdout' or j % 5 == 0:
                order = rng.permutation(people)
            test[j, order[: round(len(people) * 0.2)] if design == 'holdout' else order[j % 5 :: 5]] = True
    return test, ~test & (rng.random(test.shape) < 0.85)


def turnover_world(rng, n, design, splits, noise, learner):
    "Test predictions of a model per entry of `noise` (None: constant; infinite: no signal), and the shares of people"
    z = rng.normal(size=(n, FEATURES))
    y = (rng.random(n) < 1 / (1 + np.exp(1.9 - 1.5 * z.sum(1) / np.sqrt(FEATURES)))) * 1.0
    test, train = parts(rng, y, design, splits)
    who, frames = np.arange(n).astype(str), {}
    for k, sd in enumerate(noise):
        e = rng.normal(size=z.shape)
        X = None if sd is None else e if np.isinf(sd) else z + sd * e
        p = np.full(test.shape, y.mean()) if sd is None else learner(X, y, train)
        frames[f'm{k}'] = [
            pd.DataFrame(dict(employee=who[t], label=y[t], probability=q[t], flag=(q[t] > 0.3) * 1.0))
            for q, t in zip(p, test)
        ]
    return frames, test.mean(), train.mean()


def preference_world(rng, n, design, splits, noise, learner):
    "The same for choices between two posts; a person's tasks are in one part. Tastes differ between people"
    person = np.repeat(np.arange(n), TASKS)
    z = rng.normal(size=(n * TASKS, FEATURES))
    taste = 0.4 + 0.5 * rng.normal(size=(n, FEATURES))
    y = (rng.random(n * TASKS) < 1 / (1 + np.exp(-(z * taste[person]).sum(1) / 2))) * 1.0
    test, train = parts(rng, np.zeros(n), design, splits)
    frames = {}
    for k, sd in enumerate(noise):
        p = learner(z + sd * rng.normal(size=z.shape), y, train[:, person])
        u = np.log(p / (1 - p))
        frames[f'm{k}'] = []
        for t, v in zip(test[:, person], u):
            s = np.flatnonzero(t)
            two = lambda a, b: np.stack([a, b], 1).ravel()  # noqa: E731
            frames[f'm{k}'].append(
                pd.DataFrame(
                    dict(
                        employee=np.repeat(person[s], 2).astype(str),
                        situation=np.repeat(s, 2),
                        score=two(v[s], 0 * v[s]),
                        label=two(y[s], 1 - y[s]),
                        available=True,
                    )
                )
            )
    return frames, test.mean(), train.mean()


def one(job):
    "A row per model: what each way of testing claims about it, against the first model"
    seed, o = job
    rng = np.random.default_rng([17, seed])
    make = turnover_world if o['task'] == 'turnover' else preference_world
    frames, test, train = make(
        rng, o['people'], o['design'], o['splits'], o['noise'], dict(logistic=logistic, tree=tree)[o['learner']]
    )
    t = compare_frames(
        frames, 'm0', test / (test + train), o['task'], o['metric'], rope=o['rope'], n_boot=o['boot'], seed=seed
    )
    out = []
    for r in t.itertuples():
        plain = r.p is not None and 2 * stats.t.sf(abs(r.d_z) * np.sqrt(r.splits), r.splits - 1) < 0.05
        person = r.person_low is not None and (r.person_low > 0 or r.person_high < 0)
        out.append(
            dict(
                world=seed,
                plain=plain,
                corrected=r.p is not None and r.p < 0.05,
                person=person,
                claimed=r.verdict in (BETTER, WORSE),
                better=r.verdict == BETTER,
                worse=r.verdict == WORSE,
                same=r.verdict == SAME,
                difference=r.difference,
                sd=None if r.d_z in (None, 0) else abs(r.difference / r.d_z),
                ratio=test / train,
            )
        )
    return out


def simulate(
    worlds,
    jobs=1,
    task='turnover',
    metric='aupr',
    people=500,
    design='holdout',
    splits=10,
    noise=(1.0, 1.0),
    learner='logistic',
    rope=0.01,
    boot=300,
    first=0,
):
    "The rows of many worlds"
    o = dict(
        task=task,
        metric=metric,
        people=people,
        design=design,
        splits=splits,
        noise=noise,
        learner=learner,
        rope=rope,
        boot=boot,
    )
    work = [(s, o) for s in range(first, first + worlds)]
    if jobs == 1:
        rows = [one(j) for j in work]
    else:
        with mp.get_context('fork').Pool(jobs) as pool:
            rows = pool.map(one, work, chunksize=8)
    return pd.DataFrame([r for world in rows for r in world])


def share(x):
    "'0.031 [0.021, 0.044]': a share with its Clopper-Pearson interval"
    k, n = int(x.sum()), len(x)
    ci = stats.binomtest(k, n).proportion_ci(0.95)
    return f'{k / n:.3f} [{ci.low:.3f}, {ci.high:.3f}]'


def row(d, o, **more):
    "A printed row"
    return {
        **{
            k: o.get(k, v)
            for k, v in dict(
                task='turnover', metric='aupr', people=500, design='holdout', splits=10, learner='logistic'
            ).items()
        },
        'worlds': d.world.nunique(),
        **more,
        'plain t-test': share(d.plain),
        'corrected': share(d.corrected),
        'by person': share(d.person),
        'verdict': share(d.claimed),
        **({'better': share(d.better), 'worse': share(d.worse)} if 'better' in d else {}),
    }


def table(title, rows):
    print(f'\n{title}\n\n{pd.DataFrame(rows).to_string(index=False)}', flush=True)


NULL = [
    dict(people=p, design=g, splits=s)
    for p in (250, 500)
    for g, s in (('holdout', 5), ('holdout', 10), ('holdout', 30), ('kfold', 5), ('kfold', 25))
]
NULL += [
    dict(metric='auroc'),
    dict(metric='log_loss'),
    dict(metric='f1'),
    dict(learner='tree'),
    dict(task='preference', metric='accuracy'),
    dict(task='preference', metric='log_loss'),
]
CHANCE = [
    dict(metric=m, people=p, design=g, splits=s)
    for m in ('aupr', 'auroc')
    for p in (250, 500)
    for g, s in (('holdout', 10), ('kfold', 25))
]
POWER = [
    dict(design=g, splits=s, noise=(1 + more, 1.0))
    for g, s in (('holdout', 5), ('holdout', 10), ('kfold', 25))
    for more in (0.5, 1.0, 2.0, 4.0)
]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--worlds', type=int, default=1000, help='per row of each table')
    ap.add_argument('--jobs', type=int, default=2)
    ap.add_argument(
        '--parts',
        nargs='+',
        default=['null', 'chance', 'family', 'power', 'same'],
        choices=['null', 'chance', 'family', 'power', 'same'],
    )
    a = ap.parse_args()
    start = time.perf_counter()
    go = lambda **o: simulate(a.worlds, a.jobs, **o)
    if 'null' in a.parts:
        table('Claims where nobody is better', [row(go(**o), o) for o in NULL])
    if 'chance' in a.parts:
        made = [(o, go(noise=(None, np.inf), **o)) for o in CHANCE]
        table('Claims about a model without signal, against a constant one', [row(d, o) for o, d in made])
    if 'family' in a.parts:
        rows = []
        for o in (dict(splits=10), dict(design='kfold', splits=25)):
            d = (
                go(noise=(1.0,) * 9, **o)
                .groupby('world')[['plain', 'corrected', 'person', 'claimed']]
                .any()
                .reset_index()
            )
            rows.append(row(d, o))
        table('Any claim in a table of eight models as good as the reference; `corrected` is without Holm', rows)
    if 'power' in a.parts:
        rows = []
        for o in POWER:
            d = go(**o)
            true, se = d.difference.mean(), d.difference.std() / np.sqrt(len(d))
            ratio = d.ratio.mean()
            rows.append(
                row(
                    d,
                    o,
                    **{
                        'true difference': f'{true:.3f} ± {se:.3f}',
                        'formula': round(power(true, d.sd.mean(), o['splits'], ratio / (1 + ratio)), 3),
                    },
                )
            )
        table('Power: how often the better model is found; `formula` is the t-test\'s by `power`', rows)
    if 'same' in a.parts:
        rows = []
        for noise, rope in (
            ((1.0, 1.0), 0.01),
            ((1.0, 1.0), 0.1),
            ((1.0, 1.0), 0.2),
            ((3.0, 1.0), 0.1),
            ((3.0, 1.0), 0.14),
        ):
            d = go(noise=noise, rope=rope, splits=25, design='kfold')
            rows.append(
                {
                    'true difference': round(d.difference.mean(), 3),
                    'rope': rope,
                    'splits': 25,
                    'worlds': len(d),
                    'practically equivalent': share(d.same),
                }
            )
        table('How often two models are called practically equivalent', rows)
    print(f'\nsynthetic, {a.worlds} worlds a row, {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()
