"""How good the choice baselines are where the truth is known, and on a survey. One part a call, for example

    python tests/benchmarks/choice.py truth --seeds 3
    python tests/benchmarks/choice.py survey --data survey/ --codebook job_choice_survey [--subset people.txt]
    python tests/benchmarks/choice.py trade --replications 50
    python tests/benchmarks/choice.py speed

`truth`: log-loss above the Bayes optimum, in percent of it, at 0, 1, 3 and 6 known answers (expected over answers,
test people).
`survey`: repeated k-fold; each test answer is predicted from none and from all of the person's others; intervals
resample people over all repeats together; `--subset` is a file with 1 or 0 for each person, in the order of the data:
those with 1 are scored apart too.
`trade`: how often the intervals of the willingness to trade pay cover the truth.
`speed`: seconds to estimate a multinomial logit of 100,000 people, 7 tasks each, 9 attributes that differ per person
and task."""

import argparse
import time
import numpy as np
import pandas as pd
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import make_model, members
from turnover_nb.choice.estimate import estimate_logit
from turnover_nb.evaluate.preference import choice_probability, preference_metrics
from turnover_nb.data.split import make_split

KNOWN = (0, 1, 3, 6)


def probabilities(model, graph, known):
    "Probability of each row of test people that is to be predicted, NaN elsewhere"
    p, table = model.predict(graph, 'test', known), graph.survey.choices.table
    out = np.full(len(table), np.nan)
    ptr = np.r_[np.flatnonzero(np.diff(table.situation.to_numpy()[p.rows], prepend=-1)), len(p.rows)]
    out[p.rows] = choice_probability(p.utility, ptr, table.available.to_numpy()[p.rows])
    return out


def truth(a):
    from turnover_nb.synthetic.world import make_synthetic

    rows, seconds = [], {}
    for seed in range(a.first, a.first + a.seeds):
        world = make_synthetic(n_employees=a.employees, seed=seed)
        survey, law = world.survey, world.truth
        split = make_split(survey, seed=seed)
        graph, who = build_graph(survey, split), split.test
        for name in a.models:
            t0 = time.process_time()
            model = make_model(name).fit(graph)
            seconds.setdefault(name, []).append(time.process_time() - t0)
            for k in KNOWN:
                told = np.argsort(np.random.default_rng([seed, k]).random((survey.n, 7)), 1).argsort(1) < k
                told[np.setdiff1d(np.arange(survey.n), who)] = False
                p = law.second_post(told.ravel(), who)
                free = ~told[who]
                q = np.clip(probabilities(model, graph, told.ravel()).reshape(-1, 7, 2)[who, :, 1], 1e-9, 1 - 1e-9)
                bayes = -(p * np.log(p) + (1 - p) * np.log1p(-p))[free].mean()
                loss = -(p * np.log(q) + (1 - p) * np.log1p(-q))[free].mean()
                rows.append(
                    dict(
                        model=name, known=k, seed=seed, bayes=bayes, gap=loss - bayes, percent=100 * (loss / bayes - 1)
                    )
                )
            print(seed, name, model.facts()['preference']['chosen'], flush=True)
    table = pd.DataFrame(rows)
    out = table.groupby(['model', 'known'], sort=False)[['bayes', 'gap', 'percent']].mean()
    out['percent_sd'] = table.groupby(['model', 'known'], sort=False).percent.std()
    out['percent_worst'] = table.groupby(['model', 'known'], sort=False).percent.max()
    print(
        f'synthetic, {a.employees} people, {a.seeds} seeds, 68/12/20 split\n',
        out.round(4).to_string(),
        '\nCPU s per fit',
        {k: round(np.mean(v), 1) for k, v in seconds.items()},
    )


def survey_scores(survey, name, a):
    "Probability of each row cold and from all the other answers, a row per repeat [repeats, 2, rows]"
    c = survey.choices
    t = c.table
    out = np.full((a.repeats, 2, len(t)), np.nan)
    most = int(np.bincount(c.employee).max())
    for r in range(a.repeats):
        for f in range(a.folds):
            for i, warm in enumerate((dict(preference='cold'), dict(preference='warm', n_known=most - 1))):
                split = make_split(survey, 'kfold', seed=r, fold=f, n_folds=a.folds, **warm)
                graph = build_graph(survey, split)
                model = make_model(name).fit(graph, seed=r)
                mine = np.isin(c.employee, split.test)
                # a model that uses no answers of a person has learned from the known ones
                ask = range(len(c.tasks)) if i and model.uses_answers(graph) else [None]
                for task in ask:
                    now = mine & ~split.known if task is None else mine & (c.task == task)
                    p = probabilities(model, graph, split.known if task is None else mine & ~now)
                    row = now[t.situation.to_numpy()]
                    out[r, i, row] = p[row]
    return out


def survey(a):
    from turnover_nb.data.survey import read_survey

    s = read_survey(a.data, a.codebook)
    c = s.choices
    t = c.table
    groups, rows = dict(all=np.ones(s.n, bool)), []
    if a.subset:
        groups['subset'] = np.loadtxt(a.subset) > 0
    print(s, f'{a.repeats} × {a.folds}-fold; each answer from none, and from all others of the person', flush=True)
    mean = {}
    for name in a.models:
        t0 = time.process_time()
        mean[name] = survey_scores(s, name, a)
        for i, known in enumerate(('0', 'others')):
            for group, people in groups.items():
                p = mean[name][:, i]
                use = np.isfinite(p[:, c.ptr[:-1]]) & people[c.employee]
                row = np.isfinite(p) & people[t.employee]  # [repeats, …]
                every = lambda x, of: np.broadcast_to(x, of.shape)[of]
                m = preference_metrics(
                    np.log(np.maximum(p[row], 1e-12)),
                    np.r_[0, np.cumsum(every(np.diff(c.ptr), use))],
                    every(t.chosen, row),
                    every(t.available, row),
                    every(c.employee, use),
                    n_boot=a.boot,
                    rng=np.random.default_rng(0),
                )
                f = lambda k, m=m: f"{m[k]['value']:.3f} [{m[k]['low']:.3f}, {m[k]['high']:.3f}]"
                rows.append(dict(model=name, known=known, people=group, accuracy=f('accuracy'), log_loss=f('log_loss')))
        print(
            pd.DataFrame(rows[-2 * len(groups) :]).to_string(header=False, index=False),
            f'{time.process_time() - t0:.0f} CPU s',
            flush=True,
        )


def trade(a):
    "Willingness to trade in surveys of a free design with the synthetic survey's attributes, common and latent tastes"
    from turnover_nb.choice.panel import Panel
    from turnover_nb.synthetic.tasks import COMMON, LATENT
    from turnover_nb.choice.mixed_estimate import estimate_mixed
    from turnover_nb.choice.worth import willingness
    import torch

    names = list(COMMON)
    K, T, A, n = len(names), 7, 2, a.employees
    mean = np.array([COMMON[k] for k in names]) * 1.5
    L = np.stack([[d.get(k, 0.0) for k in names] for d in LATENT], 1)
    L[0, 1] = 0  # column 2 leaves pay alone: no rotation
    true = mean[1:] / mean[0]
    cover, seconds = {m: [] for m in ('multinomial', 'mixed')}, []
    for s in range(a.replications):
        r = np.random.default_rng(s)
        Z = r.normal(size=(n * T * A, K))
        Z[:, 1:] = (Z[:, 1:] > 0) * 2.0 - 1
        beta = mean + r.normal(size=(n, 2)) @ L.T
        pick = ((Z.reshape(n, T, A, K) * beta[:, None, None]).sum(-1) + r.gumbel(size=(n, T, A))).argmax(-1).ravel()
        est = dict(
            multinomial=estimate_logit(
                Z,
                np.arange(0, n * T * A + 1, A),
                (pick[:, None] == np.arange(A)).ravel() * 1.0,
                names,
                np.repeat(np.arange(n), T),
            )
        )
        panel = Panel(
            torch.as_tensor(Z, dtype=torch.float32),
            torch.arange(n * T).repeat_interleave(A),
            torch.arange(n).repeat_interleave(T),
            torch.as_tensor(np.arange(n * T) * A + pick),
            torch.ones(len(Z), dtype=torch.bool),
            torch.zeros(n, 0),
        )
        t0 = time.process_time()
        est['mixed'] = estimate_mixed(panel, names, (L != 0) | np.tril(np.ones_like(L, bool)), draws=a.draws, seed=s)
        seconds.append(time.process_time() - t0)
        for m, e in est.items():
            w = willingness(e, 'pay')
            cover[m].append(
                [((w[f'{k}_low'] <= true) & (true <= w[f'{k}_high'])).to_numpy() for k in ('delta', 'kr')]
                + [(w.worth - true).to_numpy()]
            )
        if s % 10 == 9:
            print(s + 1, 'replications', flush=True)
    for m, v in cover.items():
        d, k, e = (np.array(x) for x in zip(*v))
        print(
            f'{m}: covered, delta {d.mean():.3f}, Krinsky–Robb {k.mean():.3f}; by attribute',
            dict(zip(names[1:], k.mean(0).round(2))),
            'mean error',
            e.mean(0).round(3),
        )
    print(
        f'{a.replications} replications, {n} people × {T} tasks, {a.draws} draws; '
        f'{np.mean(seconds):.1f} CPU s per mixed logit'
    )


def speed(a):
    rng = np.random.default_rng(0)
    n, T, A, K = a.people, 7, 2, 9
    Z = rng.normal(size=(n * T * A, K))
    beta = np.linspace(-1, 1, K)
    pick = ((Z @ beta).reshape(-1, A) + rng.gumbel(size=(n * T, A))).argmax(1)
    chosen = (pick[:, None] == np.arange(A)).ravel() * 1.0
    t0, c0 = time.perf_counter(), time.process_time()
    est = estimate_logit(Z, np.arange(0, n * T * A + 1, A), chosen, person=np.repeat(np.arange(n), T))
    print(
        f'{n:,} people × {T} tasks × {A} alternatives × {K} attributes: '
        f'{time.perf_counter() - t0:.1f} s wall, {time.process_time() - c0:.1f} s CPU; '
        f'largest |z| of the estimates {np.abs((est.beta - beta) / np.sqrt(np.diag(est.cov))).max():.2f}'
    )


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('part', choices=('truth', 'survey', 'trade', 'speed'))
    ap.add_argument('--models', nargs='+', default=['majority', *members('choice')])
    ap.add_argument('--employees', type=int, default=2000)
    ap.add_argument('--seeds', type=int, default=3)
    ap.add_argument('--first', type=int, default=0, help='first seed')
    ap.add_argument('--data')
    ap.add_argument('--codebook')
    ap.add_argument('--subset')
    ap.add_argument('--folds', type=int, default=5)
    ap.add_argument('--repeats', type=int, default=3)
    ap.add_argument('--boot', type=int, default=1000)
    ap.add_argument('--replications', type=int, default=50)
    ap.add_argument('--people', type=int, default=100_000)
    ap.add_argument('--draws', type=int, default=64)
    a = ap.parse_args()
    globals()[a.part](a)


if __name__ == '__main__':
    main()
