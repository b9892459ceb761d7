"""What does a papermill run cost beyond its computing? The same runs as forked plain functions and as notebooks of the fast engine, in turn, one at a time:
python tests/benchmarks/overhead.py --rounds 5"""

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
from turnover_nb.runs.run import _shared, load_data


def plain(parameters, out):
    "What the notebook computes, without a notebook"
    import torch
    from turnover_nb.runs.run import run_one, write_run
    from turnover_nb.data.split import make_split

    torch.set_num_threads(1)
    p = parameters
    survey, truth = load_data(p['data'], p['codebook'], p['employees'])
    split = make_split(survey, p['protocol'], seed=p['seed'], preference=p['preference'], n_known=p['n_known'])
    write_run(run_one(survey, split, p['model'], seed=p['seed'], truth=truth, variant=p['variant']), out)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--rounds', type=int, default=5)
    a.add_argument('--models', nargs='+', default=['majority', 'logistic', 'conditional_logit'])
    a = a.parse_args()
    plan = Plan(tuple(a.models), (0,), preference=('cold',))
    key = plan.data, plan.codebook, plan.employees
    survey, truth = load_data(*key)
    preload()
    _shared[key] = survey, truth
    ctx, extra, computing = mp.get_context('fork'), [], []
    with tempfile.TemporaryDirectory() as d:
        for r in range(a.rounds):
            jobs = plan_jobs(plan, survey, Path(d) / f'notebook{r}')
            cpu = lambda: sum(os.times()[:4])
            t, c = time.perf_counter(), cpu()
            for j in jobs:
                p = ctx.Process(target=plain, args=(j.parameters, Path(d) / f'plain{r}' / j.name))
                p.start()
                p.join()
                assert p.exitcode == 0
            a1, c1 = time.perf_counter() - t, cpu() - c
            t, c = time.perf_counter(), cpu()
            assert all(o.ok for o in run_jobs(jobs, 1))
            b1, c2 = time.perf_counter() - t, cpu() - c
            extra.append(((b1 - a1) / len(jobs), (c2 - c1) / len(jobs)))
            computing.append(a1 / len(jobs))
    wall, cpu = np.median(extra, 0)
    print(
        f'{len(plan.models)} models × {a.rounds} rounds: plain {np.median(computing):.2f} s a run; a notebook adds {wall:.2f} s wall, {cpu:.2f} s CPU (median; wall {min(x for x, _ in extra):.2f} … {max(x for x, _ in extra):.2f})'
    )


if __name__ == '__main__':
    main()
