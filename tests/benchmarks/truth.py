"""Do the computed Bayes-optimal scores agree with brute force? New worlds are drawn from the planted law, the ideal model sees the known
answers and is scored by scikit-learn on the unknown ones; prints mean simulated − mean computed and its standard error.
    python tests/benchmarks/truth.py --employees 50000 --worlds 200"""

import argparse, time
import numpy as np, pandas as pd
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.synthetic.truth import expected_scores, simulate

a = argparse.ArgumentParser(description=__doc__.split('\n')[0])
a.add_argument('--employees', type=int, default=50_000)
a.add_argument(
    '--people',
    type=int,
    default=2_000,
    help='people whose choices are scored: these need a two-dimensional integral each',
)
a.add_argument('--worlds', type=int, default=200)
a.add_argument('--careless', type=float, default=0.2)
a = a.parse_args()
start, t = time.perf_counter(), make_synthetic(n_employees=a.employees, careless=a.careless).truth
everybody, known, people = np.ones(t.n, bool), np.tile(np.arange(7) < 4, t.n), np.arange(min(a.people, t.n))
got, want = [], []
for w in simulate(t, a.worlds, np.random.default_rng(1)):
    p, y = w.turnover_given(everybody), w.label  # each person given all others
    q, c = w.second_post(known, people)[:, 4:].ravel(), w.chosen[people, 4:].ravel()
    s, d = expected_scores(p), expected_scores(q)
    got.append(
        [
            average_precision_score(y, p),
            roc_auc_score(y, p),
            np.mean((p > 0.5) == y),
            log_loss(y, p),
            np.mean((q > 0.5) == c),
            log_loss(c, q),
        ]
    )
    want.append([s['aupr'], s['auroc'], s['accuracy'], s['log_loss'], d['accuracy'], d['log_loss']])
names = [
    *(f'turnover {k}' for k in ('aupr', 'auroc', 'accuracy', 'log_loss')),
    'preference accuracy',
    'preference log_loss',
]
d = np.subtract(got, want)
print(
    pd.DataFrame(dict(computed=np.mean(want, 0), difference=d.mean(0), se=d.std(0) / np.sqrt(a.worlds)), names).round(5)
)
print(f'synthetic, {a.employees:,} employees, {a.worlds} worlds, {time.perf_counter() - start:.0f} s')
