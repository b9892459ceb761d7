"""What share of the planted signal does each model find? A new world per seed, whose best attainable scores are known; a row per run:

    python tests/benchmarks/planted.py --out planted.csv --jobs 2

Worlds: `signal` (colleagues' answers and firm shocks move turnover), `alone` (neither does), `shuffled` (labels and choices in random order).
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
BEST = ('best', 'best_no_relations')
RUNS = dict(
    signal=dict(
        cold=BASELINES + ALONE + GRAPH + TIED + BEST,
        warm=('majority', 'conditional_logit', 'mixed_logit', 'best') + GRAPH,
    ),
    alone=dict(cold=('majority', 'logistic', 'mlp', 'hgt+colleagues=true') + ALONE + GRAPH + BEST),
    shuffled=dict(cold=('majority', 'logistic', 'mlp', 'hgt+colleagues=true', 'best') + GRAPH),
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
    from turnover_nb.models.gnn.config import PRESETS, make_config
    from turnover_nb.runs.sweep import parse_variant
    from turnover_nb.runs.run import run_one
    from turnover_nb.data.split import make_split

    torch.set_num_threads(1)
    name, protocol, seed, variant, n, boot = job
    survey, truth = world(name, seed, n)
    model, settings = parse_variant(variant)
    split = make_split(survey, seed=seed, preference=protocol, n_known=6 if protocol == 'warm' else 3)
    start = time.process_time()
    r = run_one(
        survey,
        split,
        model,
        seed=seed,
        config=make_config(model, **settings) if model in PRESETS else None,
        truth=truth,
        variant=variant,
        n_boot=boot,
    )
    row = dict(
        world=name,
        preference=protocol,
        seed=seed,
        variant=variant,
        employees=n,
        cpu_s=round(time.process_time() - start, 1),
        base_rate=float(survey.turnover[split.test].mean()),
        **{f'best_{k}': v for k, v in (r.results.facts.get('best_epochs') or {}).items()},
    )
    for task, m in (
        ('turnover', r.results.turnover),
        ('preference', r.results.preference and r.results.preference.metrics),
    ):
        for k in dict(turnover=('aupr', 'auroc', 'log_loss'), preference=('accuracy', 'log_loss'))[task] if m else ():
            row |= {f'{task}_{k}': m[k].value, f'{task}_{k}_low': m[k].low, f'{task}_{k}_high': m[k].high}
            if r.results.bayes and k in r.results.bayes.get(task, {}):
                row[f'{task}_{k}_best'] = r.results.bayes[task][k]
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
            print(
                f'{i + 1}/{len(jobs)}',
                row['world'],
                row['preference'],
                row['variant'],
                row['seed'],
                row['cpu_s'],
                's',
                flush=True,
            )
            pd.DataFrame(rows).sort_values(['world', 'preference', 'seed', 'variant']).to_csv(
                f'{out}.part', index=False
            )
            os.replace(f'{out}.part', out)


if __name__ == '__main__':
    main()
