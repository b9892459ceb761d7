"""What share of the planted signal does each model find? A new world per seed; best scores are known; a row per run:

    python tests/benchmarks/planted.py --out planted.csv --jobs 2

Worlds: `signal` (colleagues' answers and firm shocks move turnover), `alone` (neither does), `shuffled` (labels and
choices in random order).
Rows that the file has already are not run again. `turnover_nb.report.headroom` makes the tables from the file."""

import argparse
import dataclasses
import multiprocessing as mp
import os
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
import pandas as pd

BASELINES = ('majority', 'logistic', 'random_forest', 'mlp', 'xgboost', 'conditional_logit')
GRAPH = (
    'hgt',
    'hgt+per_relation=true',
    'hgt+encoder=sage',
    'hgt+encoder=rgcn',
    'v5',
    'v6_twostage',
    'v6_optimized',
    'v6_balanced',
    'dual_head',
)
TIED = tuple(f'{g}+colleagues=true' for g in GRAPH)
ALONE = ('hgt+encoder=mlp',)
RELATIONAL = ('relational', 'relational_no_relations')
RUNS = dict(
    signal=dict(
        cold=BASELINES + ALONE + GRAPH + TIED + RELATIONAL,
        warm=('majority', 'conditional_logit', 'mixed_logit', 'relational') + GRAPH,
    ),
    alone=dict(cold=('majority', 'logistic', 'mlp', 'hgt+colleagues=true') + ALONE + GRAPH + RELATIONAL),
    shuffled=dict(cold=('majority', 'logistic', 'mlp', 'hgt+colleagues=true', 'relational') + GRAPH),
)


def world(name, seed, n):
    "(survey, truth or None)"
    from turnover_nb.synthetic.world import make_synthetic

    w = make_synthetic(n_employees=n, seed=seed, **(dict(context=0.0, contagion=0.0) if name == 'alone' else {}))
    if name != 'shuffled':
        return w.survey, w.truth
    rng, s = np.random.default_rng([seed, 5]), w.survey
    t = s.choices.table.copy()
    flip = np.repeat(rng.random(s.choices.n) < 0.5, 2)
    t['chosen'] = t.chosen.to_numpy() ^ flip
    return dataclasses.replace(
        s, turnover=rng.permutation(s.turnover), choices=dataclasses.replace(s.choices, table=t)
    ), None


def one(job):
    "The row of one run"
    import torch

    from turnover_nb.data.split import make_split
    from turnover_nb.runs.run import run_one

    torch.set_num_threads(1)
    name, protocol, seed, variant, n, boot = job
    survey, truth = world(name, seed, n)
    split = make_split(survey, seed=seed, preference=protocol, n_known=6 if protocol == 'warm' else 3)
    start = time.process_time()
    r = run_one(survey, split, variant, seed=seed, truth=truth, n_boot=boot).results
    row = dict(world=name, preference=protocol, seed=seed, variant=variant, employees=n)
    row |= dict(cpu_s=round(time.process_time() - start, 1), base_rate=float(survey.turnover[split.test].mean()))
    row |= {f'best_{k}': v for k, v in (r.facts.get('best_epochs') or {}).items()}
    return row | metrics(r, 'turnover', r.turnover) | metrics(r, 'preference', r.preference and r.preference.metrics)


def metrics(results, task, found):
    "Columns of some metrics of a task with their intervals, and what the planted truth reaches"
    row = {}
    for k in dict(turnover=('aupr', 'auroc', 'log_loss'), preference=('accuracy', 'log_loss'))[task] if found else ():
        at = f'{task}_{k}'
        row |= {at: found[k].value, f'{at}_low': found[k].low, f'{at}_high': found[k].high}
        if results.bayes and k in results.bayes.get(task, {}):
            row[f'{at}_best'] = results.bayes[task][k]
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', required=True)
    p.add_argument('--employees', type=int, default=2000)
    p.add_argument('--seeds', type=int, default=10)
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--worlds', nargs='+', default=list(RUNS), choices=list(RUNS))
    p.add_argument('--models', nargs='+')
    a = p.parse_args()
    out = Path(a.out)
    had = (
        pd.read_csv(out)
        if out.exists()
        else pd.DataFrame(columns=['world', 'preference', 'seed', 'variant', 'employees'])
    )
    done = set(map(tuple, had[['world', 'preference', 'seed', 'variant', 'employees']].to_numpy()))
    jobs = [
        (w, q, s, v, a.employees, 500 if w == 'shuffled' else 0)
        for w in a.worlds
        for q, vs in RUNS[w].items()
        for s in range(a.seeds)
        for v in vs
        if (w, q, s, v, a.employees) not in done and (not a.models or v in a.models)
    ]
    rows = had.to_dict('records')
    with mp.get_context('fork').Pool(a.jobs, maxtasksperchild=4) as pool:
        for i, row in enumerate(pool.imap_unordered(one, jobs)):
            rows.append(row)
            said = [str(row[k]) for k in ('world', 'preference', 'variant', 'seed', 'cpu_s')]
            print(f'{i + 1}/{len(jobs)}', *said, 's', flush=True)
            pd.DataFrame(rows).sort_values(['world', 'preference', 'seed', 'variant']).to_csv(
                f'{out}.part', index=False
            )
            os.replace(f'{out}.part', out)


if __name__ == '__main__':
    main()
