"""What does a papermill run cost beyond its computing?

The same runs as forked plain functions and as notebooks of the fast engine, in turn, one at a time:

    python tests/benchmarks/overhead.py --rounds 5
"""

import argparse
import multiprocessing as mp
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
from turnover_nb.runs.engine import run_jobs
from turnover_nb.runs.sweep import Plan, plan_jobs, preload
from turnover_nb.runs.shared import data_key, load_data, share


def plain(parameters, out):
    "What the notebook computes, without a notebook"
    import torch
    from turnover_nb.runs.run import run_one, write_run
    from turnover_nb.data.split import make_split

    torch.set_num_threads(1)
    p = parameters
    survey, truth = load_data(p['data'], p['codebook'], p['employees'])
    split = make_split(survey, p['protocol'], seed=p['seed'], preference=p['preference'], n_known=p['n_known'])
    write_run(run_one(survey, split, p['model'], p['seed'], truth=truth), out)


def spent(work, *arguments) -> np.ndarray:
    "Seconds of wall and of processor that a function takes"
    before = time.perf_counter(), sum(os.times()[:4])
    work(*arguments)
    return np.array([time.perf_counter(), sum(os.times()[:4])]) - before


def forked(jobs, folder):
    "Run jobs as plain functions, each in a process of its own"
    for j in jobs:
        process = mp.get_context('fork').Process(target=plain, args=(j.parameters, folder / j.name))
        process.start()
        process.join()
        assert process.exitcode == 0


def notebooks(jobs):
    "Run jobs as notebooks"
    assert all(o.ok for o in run_jobs(jobs, 1))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--rounds', type=int, default=5)
    a.add_argument('--models', nargs='+', default=['majority', 'logistic', 'conditional_logit'])
    a = a.parse_args()
    plan = Plan(tuple(a.models), (0,), preference=('cold',))
    key = plan.data, plan.codebook, plan.employees
    data = load_data(*key)
    preload(plan.models)
    extra, computing = [], []
    with tempfile.TemporaryDirectory() as d, share({data_key(*key): data}):
        for r in range(a.rounds):
            jobs = plan_jobs(plan, data[0], Path(d) / f'notebook{r}')
            alone = spent(forked, jobs, Path(d) / f'plain{r}')
            extra.append((spent(notebooks, jobs) - alone) / len(jobs))
            computing.append(alone[0] / len(jobs))
    (wall, cpu), walls = np.median(extra, 0), [w for w, _ in extra]
    print(f'{len(plan.models)} models × {a.rounds} rounds: plain {np.median(computing):.2f} s a run')
    print(f'a notebook adds {wall:.2f} s wall ({min(walls):.2f} … {max(walls):.2f}), {cpu:.2f} s CPU (median)')


if __name__ == '__main__':
    main()
