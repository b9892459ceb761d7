"""Repeated k-fold scores of the baselines on a survey, pooled out-of-fold, for example

    python tests/benchmarks/real_survey.py --data survey/ --codebook job_choice_survey --repeats 3

Test rows are scored once per repeat by models that were fitted and tuned on the other folds. Scores are computed on the pooled out-of-fold
predictions of each repeat: mean ± sd over repeats. The interval resamples people, over all repeats together."""

import argparse
import json
import time
import numpy as np
import pandas as pd
from turnover_nb.models.tabular import TURNOVER_BASELINES, fit_turnover
from turnover_nb.choice.logit import PREFERENCE_BASELINES, fit_preference
from turnover_nb.data.features import design_matrix
from turnover_nb.evaluate.preference import preference_metrics
from turnover_nb.evaluate.turnover import best_threshold, turnover_metrics
from turnover_nb.data.split import make_split
from turnover_nb.data.survey import read_survey


def summary(repeats, pooled, names):
    "One row: mean ± sd over repeats, and the interval of the pooled scores"
    mean = {k: np.mean([r[k]['value'] for r in repeats]) for k in names}
    sd = {k: np.std([r[k]['value'] for r in repeats]) for k in names}
    span = {k: '' if pooled[k]['low'] is None else f' [{pooled[k]["low"]:.3f}, {pooled[k]["high"]:.3f}]' for k in names}
    return {k: f'{mean[k]:.3f} ± {sd[k]:.3f}{span[k]}' for k in names}, mean


def turnover(survey, model, a):
    "Pooled out-of-fold probabilities, and classes at each fold's own validation threshold"
    known, repeats, rows = np.flatnonzero(np.isfinite(survey.turnover)), [], []
    for r in range(a.repeats):
        p, hit = np.full(survey.n, np.nan), np.zeros(survey.n, bool)
        for f in range(a.folds):
            s = make_split(survey, 'kfold', seed=r, fold=f, n_folds=a.folds)
            X, _ = design_matrix(survey, s.train, skew=a.skew)
            fit = fit_turnover(model, X, survey.turnover, s, seed=r)
            q, valid = fit.predict(X), s.valid[np.isfinite(survey.turnover[s.valid])]
            p[s.test], hit[s.test] = q[s.test], q[s.test] >= best_threshold(survey.turnover[valid], q[valid])
        y = survey.turnover[known]
        m = turnover_metrics(y, p[known], threshold=0.5, n_boot=0, rng=np.random.default_rng(0))
        m['f1'] = dict(value=2 * (y * hit[known]).sum() / max(1, y.sum() + hit[known].sum()))
        repeats.append(m)
        rows.append(p[known])
    pooled = turnover_metrics(
        np.tile(survey.turnover[known], a.repeats),
        np.concatenate(rows),
        threshold=0.5,
        person=np.tile(known, a.repeats),
        n_boot=a.boot,
        rng=np.random.default_rng(0),
    )
    pooled['f1'] = dict(low=None, high=None)  # its thresholds differ by fold
    return summary(repeats, pooled, ('aupr', 'auroc', 'f1', 'brier', 'ece', 'log_loss'))


def preference(survey, model, protocol, a):
    "Pooled out-of-fold utilities of the situations to predict"
    c = survey.choices
    t = c.table
    repeats, rows = [], []
    for r in range(a.repeats):
        u, scored = np.zeros(len(t)), np.zeros(c.n, bool)
        for f in range(a.folds):
            s = make_split(survey, 'kfold', seed=r, fold=f, n_folds=a.folds, preference=protocol, n_known=a.known)
            now = np.zeros(c.n, bool)
            now[s.situations(survey, 'test')] = True
            row = now[t.situation.to_numpy()]
            u[row] = fit_preference(model, c, None, s, survey).utility[row]
            scored |= now
        row = scored[t.situation.to_numpy()]
        rows.append(
            (u[row], t.chosen.to_numpy()[row], t.available.to_numpy()[row], np.diff(c.ptr)[scored], c.employee[scored])
        )
        repeats.append(choice_scores([rows[-1]], 0))
    return summary(repeats, choice_scores(rows, a.boot), ('accuracy', 'log_loss', 'auc_pooled'))


def choice_scores(rows, n_boot):
    "Preference metrics of one or several repeats together"
    u, chosen, available, size, person = (np.concatenate(x) for x in zip(*rows))
    return preference_metrics(
        u, np.r_[0, np.cumsum(size)], chosen, available, person, n_boot=n_boot, rng=np.random.default_rng(0)
    )


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--data', required=True)
    ap.add_argument('--codebook', required=True)
    ap.add_argument('--folds', type=int, default=5)
    ap.add_argument('--repeats', type=int, default=3)
    ap.add_argument(
        '--skew', type=float, default=2.0, help='log of numeric columns with a larger skewness, as in the experiments'
    )
    ap.add_argument('--known', type=int, default=6, help='answers known of a held-out person in the warm protocol')
    ap.add_argument('--boot', type=int, default=1000)
    ap.add_argument('--json', help='write the means to this file')
    a = ap.parse_args()
    survey = read_survey(a.data, a.codebook)
    print(survey, f'\n{a.repeats} × {a.folds}-fold, pooled out-of-fold\n')
    found = {}
    if survey.turnover is not None:
        table = {}
        for m in TURNOVER_BASELINES:
            t0 = time.process_time()
            table[m], found[m] = turnover(survey, m, a)
            table[m]['CPU s'] = f'{time.process_time() - t0:.0f}'
        print(pd.DataFrame(table).T.fillna('').to_string(), '\n')
    if survey.choices is not None and survey.choices.form != 'interactions':
        table = {}
        for protocol in ('cold', 'warm'):
            for m in PREFERENCE_BASELINES:
                table[protocol, m], found[f'{protocol} {m}'] = preference(survey, m, protocol, a)
        print(pd.DataFrame(table).T.to_string())
    if a.json:
        with open(a.json, 'w') as f:
            json.dump(found, f, indent=1)


if __name__ == '__main__':
    main()
