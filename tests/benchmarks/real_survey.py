"""Repeated k-fold scores of the baselines on a survey, pooled out-of-fold, for example

    python tests/benchmarks/real_survey.py --data survey/ --codebook job_choice_survey --repeats 3

Test rows are scored once per repeat by models that were fitted and tuned on the other folds. Scores are computed on the
pooled out-of-fold predictions of each repeat: mean ± sd over repeats. The interval resamples people, over all repeats
together."""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import pandas as pd
from turnover_nb.core.tables import Survey
from turnover_nb.data.split import Split, make_split
from turnover_nb.data.survey import read_survey
from turnover_nb.evaluate.preference import preference_metrics
from turnover_nb.evaluate.turnover import best_threshold, turnover_metrics
from turnover_nb.graph.graph import Graph, build_graph
from turnover_nb.models.base import Model
from turnover_nb.models.registry import find, make_model, members

OF_TURNOVER = ('aupr', 'auroc', 'f1', 'brier', 'ece', 'log_loss')
OF_PREFERENCE = ('accuracy', 'log_loss', 'auc_pooled')


@dataclass
class Score:
    "What is scored of one repeat, or of all together"

    repeats: list[dict]  # metrics of each repeat
    pooled: dict  # metrics of all repeats together, with intervals

    def row(self, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, float]]:
        "One row in words: mean ± sd over repeats and the interval of the pooled scores; and the means"
        row, means = {}, {}
        for k in names:
            values = [r[k]['value'] for r in self.repeats]
            low, high = self.pooled[k]['low'], self.pooled[k]['high']
            interval = '' if low is None else f' [{low:.3f}, {high:.3f}]'
            means[k] = float(np.mean(values))
            row[k] = f'{means[k]:.3f} ± {np.std(values):.3f}{interval}'
        return row, means


def folds(survey: Survey, a: argparse.Namespace, repeat: int, protocol: str) -> Iterator[Split]:
    "The splits of a repeat"
    for fold in range(a.folds):
        known = dict(preference=protocol, n_known=a.known)
        yield make_split(survey, 'kfold', seed=repeat, fold=fold, n_folds=a.folds, **known)


def fitted(survey: Survey, name: str, split: Split, seed: int) -> tuple[Model, Graph]:
    "A model that has learned from the training people of a split, and its graph"
    graph = build_graph(survey, split)
    return make_model(name).fit(graph, seed), graph


def turnover(survey: Survey, name: str, a: argparse.Namespace) -> Score:
    "Pooled out-of-fold probabilities, and classes at each fold's own validation threshold"
    known = np.flatnonzero(np.isfinite(survey.turnover))
    y = survey.turnover[known]
    repeats, rows = [], []
    for r in range(a.repeats):
        p, hit = np.full(survey.n, np.nan), np.zeros(survey.n, bool)
        for split in folds(survey, a, r, 'cold'):
            model, graph = fitted(survey, name, split, r)
            valid, test = model.predict(graph, 'valid'), model.predict(graph, 'test')
            labelled = np.isfinite(survey.turnover[valid.people])
            threshold = best_threshold(survey.turnover[valid.people[labelled]], valid.turnover[labelled])
            p[test.people] = test.turnover
            hit[test.people] = test.turnover >= threshold
        metrics = turnover_metrics(y, p[known], threshold=0.5, n_boot=0, rng=np.random.default_rng(0))
        f1 = 2 * (y * hit[known]).sum() / max(1, y.sum() + hit[known].sum())
        repeats.append(metrics | dict(f1=dict(value=f1)))
        rows.append(p[known])
    pooled = turnover_metrics(
        np.tile(y, a.repeats),
        np.concatenate(rows),
        threshold=0.5,
        person=np.tile(known, a.repeats),
        n_boot=a.boot,
        rng=np.random.default_rng(0),
    )
    return Score(repeats, pooled | dict(f1=dict(low=None, high=None)))  # the thresholds of F1 differ by fold


def choice_scores(rows: list[tuple], n_boot: int) -> dict:
    "Preference metrics of the situations of one or several folds or repeats together"
    utility, chosen, available, size, person = (np.concatenate(x) for x in zip(*rows))
    ptr = np.r_[0, np.cumsum(size)]
    rng = np.random.default_rng(0)
    return preference_metrics(utility, ptr, chosen, available, person, n_boot=n_boot, rng=rng)


def preference(survey: Survey, name: str, protocol: str, a: argparse.Namespace) -> Score:
    "Pooled out-of-fold utilities of the situations to predict"
    choices = survey.choices
    repeats, every = [], []
    for r in range(a.repeats):
        rows = []
        for split in folds(survey, a, r, protocol):
            model, graph = fitted(survey, name, split, r)
            said = model.predict(graph, 'test')
            situations = split.situations(survey, 'test')
            at, ptr = choices.rows(situations)
            if not np.array_equal(at, said.rows):
                raise ValueError(f'{name}: scores other rows than those that were to be predicted')
            t = choices.table.iloc[at]
            answers = t.chosen.to_numpy(), t.available.to_numpy()
            rows.append((said.utility, *answers, np.diff(ptr), choices.employee[situations]))
        repeats.append(choice_scores(rows, 0))
        every += rows
    return Score(repeats, choice_scores(every, a.boot))


def baselines(task: str) -> list[str]:
    "Names of the models that others have to beat in a task, majority first"
    return [name for name in members('baselines') if task in find(name).tasks]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', required=True)
    parser.add_argument('--codebook', required=True)
    parser.add_argument('--folds', type=int, default=5)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--known', type=int, default=6, help='answers known of a held-out person in the warm protocol')
    parser.add_argument('--boot', type=int, default=1000)
    parser.add_argument('--json', help='write the means to this file')
    a = parser.parse_args()
    survey = read_survey(a.data, a.codebook)
    print(survey, f'\n{a.repeats} × {a.folds}-fold, pooled out-of-fold\n')
    found, table = {}, {}
    for name in baselines('turnover') if survey.turnover is not None else ():
        begin = time.process_time()
        table[name], found[name] = turnover(survey, name, a).row(OF_TURNOVER)
        table[name]['CPU s'] = f'{time.process_time() - begin:.0f}'
    if table:
        print(pd.DataFrame(table).T.to_string(), '\n')
    if survey.choices is not None and survey.choices.form != 'interactions':
        table = {}
        for protocol in ('cold', 'warm'):
            for name in baselines('preference'):
                row = preference(survey, name, protocol, a).row(OF_PREFERENCE)
                table[protocol, name], found[f'{protocol} {name}'] = row
        print(pd.DataFrame(table).T.to_string())
    if a.json:
        Path(a.json).write_text(json.dumps(found, indent=1) + '\n', 'utf-8')


if __name__ == '__main__':
    main()
