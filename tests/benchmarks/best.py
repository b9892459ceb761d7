"""Scores of the relational turnover model (`turnover_nb.relational`), on planted worlds, by repeated k-fold, and on a holdout beside the baselines:

    python tests/benchmarks/best.py planted --out best.csv --employees 2000 --seeds 20     # share of headroom; a new world per seed
    python tests/benchmarks/best.py planted --alone --out alone.csv                       # … with no relational signal
    python tests/benchmarks/best.py kfold --data survey/ --codebook job_choice_survey      # pooled out-of-fold, mean over repeats
    python tests/benchmarks/best.py holdout --data ibm/ --codebook ibm_hr_attrition        # beside logistic, forest and XGBoost
    python tests/benchmarks/best.py scale --employees 2000 10000 100000                    # CPU seconds and memory of one fit"""
import argparse
import os
import resource
import time
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from turnover_nb.baselines import fit_turnover
from turnover_nb.features import design_matrix
from turnover_nb.graph import build_graph
from turnover_nb.headroom import mean_interval, ratio_of_means
from turnover_nb.relational import fit_relational, predict_relational
from turnover_nb.split import make_split
from turnover_nb.survey import read_survey
from turnover_nb.synthetic import make_synthetic

VARIANTS = {'relational': {}, 'soft target': dict(likelihood='soft'), 'no likelihood': dict(likelihood='none'), 'no graph': dict(relations=()),
            'no graph, no likelihood': dict(relations=(), likelihood='none'), 'no network': dict(network=0), 'no products': dict(products=False),
            'no messages': dict(messages=False), 'no colleagues': dict(colleagues=False), 'linear': dict(relations=(), products=False, network=0, likelihood='none'),
            'hgt branch': dict(branch='hgt'), 'sage branch': dict(branch='sage')}

def score(graph, survey, seed, settings, phase='test'):
    "Fit and score: AUPR, AUROC, CPU seconds of fit and prediction, variances"
    start = time.process_time(); m = fit_relational(graph, seed, **settings); p = predict_relational(m, graph, phase); s = time.process_time() - start
    y = survey.turnover[p['people']]; ok = np.isfinite(y)
    tau = {} if m.messages is None else {f'variance_{k}': v for k, v in zip(m.relations, m.messages.variance.tolist())}
    return dict(aupr=average_precision_score(y[ok], p['turnover'][ok]), auroc=roc_auc_score(y[ok], p['turnover'][ok]), cpu_s=s, **tau), p

def show(x): m = mean_interval(np.asarray(x)); return f'{m["value"]:.4f}' + ('' if m['low'] is None else f' [{m["low"]:.4f}, {m["high"]:.4f}]')

def planted(a):
    rows = pd.read_csv(a.out).to_dict('records') if a.out and os.path.exists(a.out) else []
    done = {(r['seed'], r['variant'], r['employees']) for r in rows}; n = a.employees[0]
    for seed in range(a.first, a.first + a.seeds):
        if all((seed, v, n) in done for v in a.models): continue
        w = make_synthetic(n_employees=n, seed=seed, **(dict(context=0., contagion=0.) if a.alone else {})); s = make_split(w.survey, seed=seed)
        g, y = build_graph(w.survey, s), w.survey.turnover[s.test]
        best = w.truth.scores(s.test, known_labels=s.train)['turnover']['aupr']; bayes = average_precision_score(y, w.truth.turnover_given(s.train)[s.test])
        for v in a.models:
            if (seed, v, n) in done: continue
            rows.append(dict(seed=seed, variant=v, employees=n, base=y.mean(), best=best, bayes=bayes, **score(g, w.survey, seed, VARIANTS[v])[0]))
        if a.out: pd.DataFrame(rows).to_csv(a.out, index=False)
    d = pd.DataFrame(rows)
    for (v, _), r in d[d.employees == n].groupby(['variant', 'employees'], sort=False):
        q = [ratio_of_means(r[k] - r.base, r.best - r.base) for k in ('aupr', 'bayes')]
        print(f'{v:24s} headroom {q[0]["value"]:.3f} [{q[0]["low"] or 0:.3f}, {q[0]["high"] or 0:.3f}] (planted law itself {q[1]["value"]:.3f})  AUPR {show(r.aupr)}  '
              f'minus law {show(r.aupr - r.bayes)}  CPU s {r.cpu_s.mean():.2f}  seeds {len(r)}')
    wide = d[d.employees == n].pivot(index='seed', columns='variant', values='aupr')
    for x, b in (('relational', 'no graph'), ('no likelihood', 'no graph, no likelihood'), ('relational', 'no network'), ('relational', 'hgt branch'), ('relational', 'sage branch')):
        if {x, b} <= set(wide): print(f'{x} − {b}: AUPR {show((wide[x] - wide[b]).dropna())}')

def kfold(a):
    survey = read_survey(a.data, a.codebook); known = np.isfinite(survey.turnover)
    for v in a.models:
        out = []
        for r in range(a.first, a.first + a.seeds):
            p = np.full(survey.n, np.nan)
            for f in range(5):
                s = make_split(survey, 'kfold', seed=r, fold=f); q = score(build_graph(survey, s), survey, r, VARIANTS[v])[1]; p[q['people']] = q['turnover']
            out.append([average_precision_score(survey.turnover[known], p[known]), roc_auc_score(survey.turnover[known], p[known])])
        out = np.array(out)
        print(f'{v:24s} pooled AUPR {show(out[:, 0])} sd {out[:, 0].std(ddof=1):.3f}  AUROC {show(out[:, 1])}  repeats {len(out)} (the interval is over repeats on the same people)')

def holdout(a):
    survey = read_survey(a.data, a.codebook); rows = []
    for seed in range(a.first, a.first + a.seeds):
        s = make_split(survey, seed=seed); g, y, (X, _) = build_graph(survey, s), survey.turnover, design_matrix(survey, s.train)
        for m in ('logistic', 'random_forest', 'xgboost'):
            start = time.process_time(); p = fit_turnover(m, X, y, s, seed).predict(X)[s.test]
            rows.append(dict(seed=seed, variant=m, aupr=average_precision_score(y[s.test], p), auroc=roc_auc_score(y[s.test], p), cpu_s=time.process_time() - start))
        for v in a.models: rows.append(dict(seed=seed, variant=v, **score(g, survey, seed, VARIANTS[v])[0]))
    d = pd.DataFrame(rows); wide = {k: d.pivot(index='seed', columns='variant', values=k) for k in ('aupr', 'auroc')}
    for v, r in d.groupby('variant', sort=False): print(f'{v:24s} AUPR {show(r.aupr)}  AUROC {show(r.auroc)}  CPU s {r.cpu_s.mean():.2f}')
    for k, x in wide.items():
        top = max(('logistic', 'random_forest', 'xgboost'), key=lambda m: x[m].mean())
        for v in a.models: print(f'{v} − {top}: {k} {show(x[v] - x[top])}  (splits share people: the interval is too narrow)')

def scale(a):
    for n in a.employees:
        w = make_synthetic(n_employees=n, seed=0); s = make_split(w.survey, seed=0); r, _ = score(build_graph(w.survey, s), w.survey, 0, {})
        print(f'{n:8,} people: {r["cpu_s"]:.1f} CPU s, {1e6*r["cpu_s"]/n/300:.2f} µs per person and step, peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20:.2f} GiB', flush=True)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=('planted', 'kfold', 'holdout', 'scale')); p.add_argument('--out'); p.add_argument('--data'); p.add_argument('--codebook')
    p.add_argument('--employees', type=int, nargs='+', default=[2000]); p.add_argument('--seeds', type=int, default=20, help='of planted worlds and holdouts; repeats of a k-fold')
    p.add_argument('--first', type=int, default=0, help='first seed'); p.add_argument('--alone', action='store_true', help='planted: neither context nor contagion')
    p.add_argument('--models', nargs='+', default=['relational'], choices=list(VARIANTS))
    a = p.parse_args(); torch.set_num_threads(1); dict(planted=planted, kfold=kfold, holdout=holdout, scale=scale)[a.what](a)

if __name__ == '__main__': main()
