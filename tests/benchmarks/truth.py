"""Do the computed Bayes-optimal scores agree with brute force?

    python tests/benchmarks/truth.py --employees 50000 --worlds 200

New worlds are drawn from the planted law, the ideal model sees the known answers and is scored by scikit-learn on the
unknown ones; prints mean simulated − mean computed and its standard error."""

import argparse
import time
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from turnover_nb.synthetic.truth import Truth, expected_scores, simulate
from turnover_nb.synthetic.world import make_synthetic

NAMES = [
    *(f'turnover {k}' for k in ('aupr', 'auroc', 'accuracy', 'log_loss')),
    'preference accuracy',
    'preference log_loss',
]


def simulated_and_computed(world: Truth, known: np.ndarray, people: np.ndarray) -> tuple[list, list]:
    "Scores of one world, in the order of NAMES"
    everybody = np.ones(world.n, bool)
    p, y = world.turnover_given(everybody), world.label  # each person given all others
    q = world.second_post(known, people)[:, 4:].ravel()
    c = world.chosen[people, 4:].ravel()
    of_turnover = average_precision_score(y, p), roc_auc_score(y, p), np.mean((p > 0.5) == y), log_loss(y, p)
    s, d = expected_scores(p), expected_scores(q)
    computed = [s['aupr'], s['auroc'], s['accuracy'], s['log_loss'], d['accuracy'], d['log_loss']]
    return [*of_turnover, np.mean((q > 0.5) == c), log_loss(c, q)], computed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--employees', type=int, default=50_000)
    people = 'people whose choices are scored: these need a two-dimensional integral each'
    parser.add_argument('--people', type=int, default=2_000, help=people)
    parser.add_argument('--worlds', type=int, default=200)
    parser.add_argument('--careless', type=float, default=0.2)
    a = parser.parse_args()
    start = time.perf_counter()
    truth = make_synthetic(n_employees=a.employees, careless=a.careless).truth
    known = np.tile(np.arange(7) < 4, truth.n)
    people = np.arange(min(a.people, truth.n))
    worlds = simulate(truth, a.worlds, np.random.default_rng(1))
    got, want = zip(*(simulated_and_computed(w, known, people) for w in worlds))
    d = np.subtract(got, want)
    table = dict(computed=np.mean(want, 0), difference=d.mean(0), se=d.std(0) / np.sqrt(a.worlds))
    print(pd.DataFrame(table, NAMES).round(5))
    print(f'synthetic, {a.employees:,} employees, {a.worlds} worlds, {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()
