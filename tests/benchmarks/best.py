"""Scores of the preset `best` and its parts, through config, trainer and predictions as in a run, on planted worlds, by repeated k-fold and beside the baselines:

    python tests/benchmarks/best.py planted --employees 2000 --seeds 20 --out rows.csv     # share of headroom, paired differences, log-loss above Bayes
    python tests/benchmarks/best.py planted --alone --out alone.csv                        # … with no relational signal
    python tests/benchmarks/best.py planted --careless .5 --models best best_no_answer_quality    # … half of them answer at random
    python tests/benchmarks/best.py survey --data survey/ --codebook job_choice_survey     # repeated k-fold, pooled: AUPR, accuracy cold and warm, all and genuine
    python tests/benchmarks/best.py holdout --data ibm/ --codebook ibm_hr_attrition        # differences from the baselines, splits resampled
    python tests/benchmarks/best.py scale --employees 500 2000 10000                       # CPU seconds of each stage of one fit, and memory

Rows already in `--out` are not run again. A model is a baseline, a preset, a variant of it, or preset+key=value."""

import argparse
import os
import resource
import time

os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from turnover_nb.models.tabular import TURNOVER_BASELINES, fit_turnover
from turnover_nb.models.checkpoint import predict
from turnover_nb.models.gnn.config import GROUPS, PRESETS, make_config
from turnover_nb.runs.sweep import parse_variant
from turnover_nb.data.features import design_matrix
from turnover_nb.report.headroom import mean_over_seeds, ratio_of_means
from turnover_nb.evaluate.calibration import quantile_bins
from turnover_nb.evaluate.preference import preference_metrics
from turnover_nb.evaluate.turnover import turnover_values
from turnover_nb.runs.run import model_graph
from turnover_nb.data.split import make_split
from turnover_nb.models.relational.model import fitted_panel
from turnover_nb.data.survey import read_survey
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.models.trainer import fit

BASELINES = [b for b in ('logistic', 'random_forest', 'mlp', 'xgboost') if b in TURNOVER_BASELINES]
KNOWN = (0, 1, 3, 6)
show = lambda x: (lambda m: f'{m["value"]:.4f}' + ('' if m['low'] is None else f' [{m["low"]:.4f}, {m["high"]:.4f}]'))(
    mean_over_seeds(np.asarray(x))
)


def trained(survey, split, name, seed):
    "The fit of a preset or variant, its graph, and CPU seconds of each stage"
    model, settings = parse_variant(name)
    c = make_config(model, **settings)
    g = model_graph(survey, split, c)
    end, start = {}, time.process_time()

    def at(r):
        end[r['stage']] = time.process_time()

    f = fit(g, c, seed, at)
    last = start
    seconds = {}
    for s, t in end.items():
        seconds[s] = t - last
        last = t
    return f, g, seconds


def turnover_of(survey, split, name, seed):
    "Probabilities of the test people [n], the fit and graph of a preset, CPU seconds by stage"
    p = np.full(survey.n, np.nan)
    if name in BASELINES:
        start = time.process_time()
        X = design_matrix(survey, split.train)[0]
        p[split.test] = fit_turnover(name, X, survey.turnover, split, seed).predict(X)[split.test]
        return p, None, None, dict(stage1=time.process_time() - start)
    f, g, seconds = trained(survey, split, name, seed)
    q = predict(f.model, g, 'test')
    p[q['people']] = q['turnover']
    return p, f, g, seconds


# ------------------------------------------------------------------------------------------- planted
def gaps(world, split, f, g, seed):
    "Expected log-loss above Bayes and in percent of it at each number of known answers, of a model of the statistical family"
    law, who, n, out = world.truth, split.test, world.survey.n, {}
    fitted = fitted_panel(f.model, g, 'test')
    for k in KNOWN:
        told = np.argsort(np.random.default_rng([seed, k]).random((n, 7)), 1).argsort(1) < k
        told[np.setdiff1d(np.arange(n), who)] = False
        p, free = law.second_post(told.ravel(), who), ~told[who]
        q = np.clip(fitted.probability(told.ravel(), who).reshape(-1, 7, 2)[who, :, 1], 1e-9, 1 - 1e-9)
        bayes, loss = (
            -(p * np.log(x) + (1 - p) * np.log1p(-x))[free].mean() for x in (np.clip(p, 1e-12, 1 - 1e-12), q)
        )
        out |= {f'gap_{k}': loss - bayes, f'percent_{k}': 100 * (loss / bayes - 1)}
    return out


def planted(a):
    n = a.employees[0]
    rows = pd.read_csv(a.out).to_dict('records') if a.out and os.path.exists(a.out) else []
    done = {(r['seed'], r['model'], r['employees']) for r in rows}
    for seed in range(a.first, a.first + a.seeds):
        if all((seed, m, n) in done for m in a.models):
            continue
        w = make_synthetic(
            n_employees=n, seed=seed, careless=a.careless, **(dict(context=0.0, contagion=0.0) if a.alone else {})
        )
        s = make_split(w.survey, seed=seed)
        y = w.survey.turnover[s.test]
        best, law = (
            w.truth.scores(s.test, known_labels=s.train)['turnover']['aupr'],
            average_precision_score(y, w.truth.turnover_given(s.train)[s.test]),
        )
        for m in a.models:
            if (seed, m, n) in done:
                continue
            p, f, g, seconds = turnover_of(w.survey, s, m, seed)
            p = p[s.test]
            v = turnover_values(y, p, 0.5, quantile_bins(p))
            rows.append(
                dict(
                    seed=seed,
                    model=m,
                    employees=n,
                    base=y.mean(),
                    best=best,
                    law=law,
                    aupr=v['aupr'],
                    auroc=v['auroc'],
                    ece=v['ece'],
                    log_loss=v['log_loss'],
                    cpu_turnover=seconds.get('stage1'),
                    cpu_preference=seconds.get('stage2'),
                    **(gaps(w, s, f, g, seed) if f and f.config.family == 'statistical' else {}),
                )
            )
        if a.out:
            pd.DataFrame(rows).to_csv(a.out, index=False)
    planted_table(pd.DataFrame(rows).query('employees == @n'), a)


def planted_table(d, a):
    print(f'synthetic, {a.employees[0]:,} people, careless {a.careless:g}' + ', no relational signal' * a.alone)
    for m, r in d.groupby('model', sort=False):
        h, law = (ratio_of_means(r[k] - r.base, r.best - r.base) for k in ('aupr', 'law'))
        print(
            f'{m:24s} headroom {h["value"]:.3f} [{h["low"] or np.nan:.3f}, {h["high"] or np.nan:.3f}] (the law itself {law["value"]:.3f})  AUPR {show(r.aupr)}  AUROC {r.auroc.mean():.3f}  ECE {r.ece.mean():.3f}'
            f'  CPU s turnover {r.cpu_turnover.mean():.2f}, preference {r.cpu_preference.mean():.2f}  seeds {len(r)}'
        )
    wide = d.pivot(index='seed', columns='model', values='aupr')
    first = a.models[0]
    for m in a.models[1:]:
        print(f'{first} − {m}: AUPR {show((wide[first] - wide[m]).dropna())}')
    if 'gap_0' in d:
        t = d[d.gap_0.notna()]
        for m, r in t.groupby('model', sort=False):
            print(
                f'{m:24s} log-loss above Bayes at '
                + '; '.join(f'{k} known {show(r[f"gap_{k}"])} ({r[f"percent_{k}"].mean():.2f} %)' for k in KNOWN)
            )


# ------------------------------------------------------------------------------------------- a survey
def folds(survey, name, repeat, known):
    "Out-of-fold probabilities of leaving [n] and utilities of rows [R] with the situations that were predicted, of one repeat; every task in turn is unknown where `known`"
    c, p = survey.choices, np.full(survey.n, np.nan)
    u = None if c is None else np.full(len(c.table), np.nan)
    for k in range(5):
        s = make_split(survey, 'kfold', seed=repeat, fold=k)
        turnover, f, g, _ = turnover_of(survey, s, name, repeat)
        mine = np.isfinite(turnover)
        p[mine] = turnover[mine]
        if f is None or c is None:
            continue
        if not known:
            q = predict(f.model, g, 'test')
            u[q['rows']] = q['utility']
            continue
        fitted, who = fitted_panel(f.model, g, 'test'), np.isin(c.employee, s.test)  # one fit, any answers known
        for t in range(len(c.tasks)):
            now = who & (c.task == t)
            rows = now[c.table.situation.to_numpy()]
            u[rows] = np.log(np.maximum(fitted.probability(who & ~now, s.test)[rows], 1e-300))
    return p, u


def survey(a):
    s, known = read_survey(a.data, a.codebook), None
    known = np.isfinite(s.turnover) if s.turnover is not None else None
    groups = dict(all=np.ones(s.n, bool))
    if a.subset:
        groups['subset'] = np.loadtxt(a.subset) > 0
    if a.genuine:
        from turnover_nb.quality.populations import judge_answers

        p = judge_answers(s).p('preference')
        groups |= {} if p is None else dict(genuine=p >= 0.5)
    print(s, f'{a.seeds} × 5-fold, pooled within a repeat', flush=True)
    for name in a.models:
        for warm in (False, True) if s.choices is not None and name not in BASELINES else (False,):
            done = [folds(s, name, r, warm) for r in range(a.first, a.first + a.seeds)]
            if not warm and known is not None:
                v = [turnover_values(s.turnover[known], p[known], 0.5, quantile_bins(p[known])) for p, _ in done]
                sd = np.std([x['aupr'] for x in v], ddof=1) if len(v) > 1 else np.nan
                print(
                    f'{name:20s} turnover, n = {known.sum()}: '
                    + '  '.join(
                        f'{k} {np.mean([x[k] for x in v]):.4f}' for k in ('aupr', 'auroc', 'ece', 'brier', 'log_loss')
                    )
                    + f'  (sd of AUPR over repeats {sd:.3f})',
                    flush=True,
                )
            if name in BASELINES or s.choices is None:
                continue
            c, t = s.choices, s.choices.table
            for group, people in groups.items():
                use = people[c.employee] & np.isfinite(done[0][1][c.ptr[:-1]])
                rows = use[t.situation.to_numpy()]
                n = len(done)
                many = lambda x, n=n: np.concatenate([x] * n)
                m = preference_metrics(
                    np.concatenate([u[rows] for _, u in done]),
                    np.r_[0, np.cumsum(many(np.diff(c.ptr)[use]))],
                    many(t.chosen.to_numpy()[rows]),
                    many(t.available.to_numpy()[rows]),
                    many(c.employee[use]),
                    n_boot=1000,
                    rng=np.random.default_rng(0),
                )
                print(
                    f'{name:20s} preference, {"all other answers known" if warm else "cold"}, {group}, {people.sum()} people: '
                    + '  '.join(
                        f'{k} {m[k]["value"]:.4f} [{m[k]["low"]:.4f}, {m[k]["high"]:.4f}]'
                        for k in ('accuracy', 'log_loss')
                    ),
                    flush=True,
                )


def holdout(a):
    "Differences with the corrected resampled t interval (Nadeau & Bengio 2003), as the splits share people"
    s, rows = read_survey(a.data, a.codebook), []
    for seed in range(a.first, a.first + a.seeds):
        split = make_split(s, seed=seed)
        ok = split.test[np.isfinite(s.turnover[split.test])]
        y = s.turnover[ok]
        for m in a.models:
            start = time.process_time()
            p = turnover_of(s, split, m, seed)[0][ok]
            rows.append(
                dict(
                    seed=seed,
                    model=m,
                    aupr=average_precision_score(y, p),
                    auroc=roc_auc_score(y, p),
                    ece=turnover_values(y, p, 0.5, quantile_bins(p))['ece'],
                    cpu_s=time.process_time() - start,
                )
            )
    d = pd.DataFrame(rows)
    first, n = a.models[0], a.seeds
    share = len(split.test) / len(split.train)
    for m, r in d.groupby('model', sort=False):
        print(
            f'{m:24s} AUPR {r.aupr.mean():.4f}  AUROC {r.auroc.mean():.4f}  ECE {r.ece.mean():.4f}  CPU s {r.cpu_s.mean():.2f}'
        )
    for k in ('aupr', 'auroc'):
        wide = d.pivot(index='seed', columns='model', values=k)
        for m in a.models[1:]:
            x = wide[first] - wide[m]
            half = stats.t.ppf(0.975, n - 1) * x.std(ddof=1) * np.sqrt(1 / n + share) if n > 1 else np.nan
            print(f'{first} − {m}: {k} {x.mean():+.4f} [{x.mean() - half:+.4f}, {x.mean() + half:+.4f}]')


def scale(a):
    for n in a.employees:
        w = make_synthetic(n_employees=n, seed=0)
        s = make_split(w.survey, seed=0)
        f, g, seconds = trained(w.survey, s, a.models[0], 0)
        start = time.process_time()
        predict(f.model, g, 'test')
        print(
            f'{n:8,} people: '
            + ', '.join(f'{k} {v:.2f}' for k, v in seconds.items())
            + f', prediction {time.process_time() - start:.2f} CPU s; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB',
            flush=True,
        )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=('planted', 'survey', 'holdout', 'scale'))
    p.add_argument('--out')
    p.add_argument('--data')
    p.add_argument('--codebook')
    p.add_argument('--employees', type=int, nargs='+', default=[2000])
    p.add_argument('--seeds', type=int, default=20, help='planted worlds, holdouts, or repeats of the k-fold')
    p.add_argument('--first', type=int, default=0, help='first seed')
    p.add_argument('--alone', action='store_true', help='planted: neither context nor contagion')
    p.add_argument('--careless', type=float, default=0.0, help='planted: share who answer at random')
    p.add_argument('--subset', help='survey: a file with 1 or 0 a person; those with 1 are scored apart too')
    p.add_argument(
        '--genuine', action='store_true', help='survey: score the genuine apart too, by their answers to the items'
    )
    p.add_argument(
        '--models',
        nargs='+',
        default=['best', *BASELINES],
        help=f'baselines, presets ({", ".join(PRESETS)}), variants ({", ".join(GROUPS["parts"])}); differences are from the first',
    )
    a = p.parse_args()
    torch.set_num_threads(1)
    dict(planted=planted, survey=survey, holdout=holdout, scale=scale)[a.what](a)


if __name__ == '__main__':
    main()
