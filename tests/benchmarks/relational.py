"""Scores of the relational model and its parts on planted worlds, by repeated k-fold, and beside the baselines:

    cd tests/benchmarks
    python relational.py planted --employees 2000 --seeds 20 --out rows.csv   # share of headroom, differences, log-loss
    python relational.py planted --alone --out alone.csv                      # … with no relational signal
    python relational.py planted --careless .5                                # … half of them answer at random
    python relational.py survey --data survey/ --codebook job_choice_survey   # repeated k-fold, pooled; all and genuine
    python relational.py holdout --data ibm/ --codebook ibm_hr_attrition      # differences, splits resampled
    python relational.py scale --employees 500 2000 10000                     # CPU seconds of each stage, and memory

Rows already in `--out` are not run again. A model is any of the registry, or name+key=value."""

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from turnover_nb.data.split import make_split
from turnover_nb.data.survey import read_survey
from turnover_nb.evaluate.calibration import quantile_bins
from turnover_nb.evaluate.preference import preference_metrics
from turnover_nb.evaluate.turnover import turnover_values
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import make_model
from turnover_nb.models.relational.model import Relational
from turnover_nb.models.relational.network import fitted_panel
from turnover_nb.report.headroom import mean_over_seeds, ratio_of_means
from turnover_nb.synthetic.world import make_synthetic

MODELS = ("relational", "logistic", "random_forest", "mlp", "xgboost")
KNOWN = (0, 1, 3, 6)


def show(x) -> str:
    "Mean with its 95 % interval"
    m = mean_over_seeds(np.asarray(x))
    return f"{m['value']:.4f}" + ("" if m["low"] is None else f" [{m['low']:.4f}, {m['high']:.4f}]")


def trained(survey, split, name, seed):
    "The fitted model, its graph, and CPU seconds of each stage"
    graph = build_graph(survey, split)
    end, last = {}, time.process_time()

    def note(record):
        end[record["stage"]] = time.process_time()

    model = make_model(name).fit(graph, seed, progress=note)
    seconds = {}
    for stage, t in (end or dict(stage1=time.process_time())).items():
        seconds[stage] = t - last
        last = t
    return model, graph, seconds


def told(n, known, people, rng):
    "Which of seven situations of each of n people are known: `known` of each of `people`, at random, bool [7n]"
    out = np.argsort(rng.random((n, 7)), 1).argsort(1) < known
    out[np.setdiff1d(np.arange(n), people)] = False
    return out


# --- planted worlds


def gaps(world, model, graph, seed):
    "Expected log-loss above Bayes, and in percent of it, at each number of known answers"
    law, who, n, out = world.truth, graph.split.test, world.survey.n, {}
    fitted = fitted_panel(model.network, graph, "test")
    for k in KNOWN:
        known = told(n, k, who, np.random.default_rng([seed, k]))
        p, free = law.second_post(known.ravel(), who), ~known[who]
        q = fitted.probability(known.ravel(), who).reshape(-1, 7, 2)[who, :, 1]
        loss = lambda q, p=p, free=free: -(p * np.log(q) + (1 - p) * np.log1p(-q))[free].mean()
        bayes, mine = loss(np.clip(p, 1e-12, 1 - 1e-12)), loss(np.clip(q, 1e-9, 1 - 1e-9))
        out |= {f"gap_{k}": mine - bayes, f"percent_{k}": 100 * (mine / bayes - 1)}
    return out


def planted_row(world, split, name, seed):
    "Scores of one model on one world"
    model, graph, seconds = trained(world.survey, split, name, seed)
    y = world.survey.turnover[split.test]
    p = model.predict(graph).turnover
    v = turnover_values(y, p, 0.5, quantile_bins(p))
    row = dict(seed=seed, model=name, employees=world.survey.n, base=y.mean())
    row["best"] = world.truth.scores(split.test, known_labels=split.train)["turnover"]["aupr"]
    row["law"] = average_precision_score(y, world.truth.turnover_given(split.train)[split.test])
    row |= {k: v[k] for k in ("aupr", "auroc", "ece", "log_loss")}
    row |= dict(cpu_turnover=seconds.get("stage1"), cpu_preference=seconds.get("stage2"))
    return row | (gaps(world, model, graph, seed) if isinstance(model, Relational) else {})


def planted(a):
    n = a.employees[0]
    rows = pd.read_csv(a.out).to_dict("records") if a.out and os.path.exists(a.out) else []
    done = {(r["seed"], r["model"], r["employees"]) for r in rows}
    knobs = dict(context=0.0, contagion=0.0) if a.alone else {}
    for seed in range(a.first, a.first + a.seeds):
        left = [m for m in a.models if (seed, m, n) not in done]
        if not left:
            continue
        world = make_synthetic(n_employees=n, seed=seed, careless=a.careless, **knobs)
        split = make_split(world.survey, seed=seed)
        rows += [planted_row(world, split, m, seed) for m in left]
        if a.out:
            pd.DataFrame(rows).to_csv(a.out, index=False)
    planted_table(pd.DataFrame(rows).query("employees == @n"), a)


def planted_table(d, a):
    print(f"synthetic, {a.employees[0]:,} people, careless {a.careless:g}" + ", no relational signal" * a.alone)
    for m, r in d.groupby("model", sort=False):
        h, law = (ratio_of_means(r[k] - r.base, r.best - r.base) for k in ("aupr", "law"))
        interval = f"[{h['low'] or np.nan:.3f}, {h['high'] or np.nan:.3f}]"
        print(
            f"{m:24s} headroom {h['value']:.3f} {interval} (the law itself {law['value']:.3f})  AUPR {show(r.aupr)}"
            f"  AUROC {r.auroc.mean():.3f}  ECE {r.ece.mean():.3f}  CPU s turnover {r.cpu_turnover.mean():.2f}, "
            f"preference {r.cpu_preference.mean():.2f}  seeds {len(r)}"
        )
    wide = d.pivot(index="seed", columns="model", values="aupr")
    first = a.models[0]
    for m in a.models[1:]:
        print(f"{first} − {m}: AUPR {show((wide[first] - wide[m]).dropna())}")
    if "gap_0" not in d:
        return
    for m, r in d[d.gap_0.notna()].groupby("model", sort=False):
        at = [f"{k} known {show(r[f'gap_{k}'])} ({r[f'percent_{k}'].mean():.2f} %)" for k in KNOWN]
        print(f"{m:24s} log-loss above Bayes at " + "; ".join(at))


# --- a survey


def folds(survey, name, repeat, known):
    """Out-of-fold probabilities of leaving [n] and utilities of rows [R] of one repeat;
    `known`: every task in turn is unknown, the others of the person are told"""
    c, p = survey.choices, np.full(survey.n, np.nan)
    u = None if c is None else np.full(len(c.table), np.nan)
    for k in range(5):
        split = make_split(survey, "kfold", seed=repeat, fold=k)
        model, graph, _ = trained(survey, split, name, repeat)
        q = model.predict(graph)
        if q.turnover is not None:
            p[q.people] = q.turnover
        if q.utility is None:
            continue
        if not known:
            u[q.rows] = q.utility
            continue
        fitted, who = fitted_panel(model.network, graph, "test"), np.isin(c.employee, split.test)
        for t in range(len(c.tasks)):  # one fit, any answers known
            now = who & (c.task == t)
            rows = now[c.table.situation.to_numpy()]
            u[rows] = np.log(np.maximum(fitted.probability(who & ~now, split.test)[rows], 1e-300))
    return p, u


def turnover_line(name, survey, probabilities):
    "Metrics of turnover, averaged over repeats"
    known = np.isfinite(survey.turnover)
    y = survey.turnover[known]
    v = [turnover_values(y, p[known], 0.5, quantile_bins(p[known])) for p in probabilities]
    sd = np.std([x["aupr"] for x in v], ddof=1) if len(v) > 1 else np.nan
    names = ("aupr", "auroc", "ece", "brier", "log_loss")
    means = "  ".join(f"{k} {np.mean([x[k] for x in v]):.4f}" for k in names)
    print(f"{name:20s} turnover, n = {known.sum()}: {means}  (sd of AUPR over repeats {sd:.3f})", flush=True)


def preference_line(name, survey, utilities, said, people):
    "Metrics of the choices of some people, pooled over repeats"
    c, t, n = survey.choices, survey.choices.table, len(utilities)
    use = people[c.employee] & np.isfinite(utilities[0][c.ptr[:-1]])
    rows = use[t.situation.to_numpy()]
    m = preference_metrics(
        np.concatenate([u[rows] for u in utilities]),
        np.r_[0, np.cumsum(np.tile(np.diff(c.ptr)[use], n))],
        np.tile(t.chosen.to_numpy()[rows], n),
        np.tile(t.available.to_numpy()[rows], n),
        np.tile(c.employee[use], n),
        n_boot=1000,
        rng=np.random.default_rng(0),
    )
    values = [f"{k} {m[k]['value']:.4f} [{m[k]['low']:.4f}, {m[k]['high']:.4f}]" for k in ("accuracy", "log_loss")]
    print(f"{name:20s} preference, {said}, {people.sum()} people: " + "  ".join(values), flush=True)


def survey(a):
    s = read_survey(a.data, a.codebook)
    groups = dict(all=np.ones(s.n, bool))
    if a.subset:
        groups["subset"] = np.loadtxt(a.subset) > 0
    if a.genuine:
        from turnover_nb.quality.populations import judge_answers

        p = judge_answers(s).p("preference")
        groups |= {} if p is None else dict(genuine=p >= 0.5)
    print(s, f"{a.seeds} × 5-fold, pooled within a repeat", flush=True)
    for name in a.models:
        chooses = s.choices is not None and "preference" in make_model(name).tasks
        warm = chooses and isinstance(make_model(name), Relational)
        for known in (False, True) if warm else (False,):
            done = [folds(s, name, r, known) for r in range(a.first, a.first + a.seeds)]
            if not known and s.turnover is not None:
                turnover_line(name, s, [p for p, _ in done])
            said = "all other answers known" if known else "cold"
            for group, people in groups.items() if chooses else ():
                preference_line(name, s, [u for _, u in done], f"{said}, {group}", people)


def holdout(a):
    "Differences with the corrected resampled t interval (Nadeau & Bengio 2003), as the splits share people"
    s, rows = read_survey(a.data, a.codebook), []
    for seed in range(a.first, a.first + a.seeds):
        split = make_split(s, seed=seed)
        for m in a.models:
            start = time.process_time()
            model, graph, _ = trained(s, split, m, seed)
            q = model.predict(graph)
            known = np.isfinite(s.turnover[q.people])
            y, p = s.turnover[q.people][known], q.turnover[known]
            row = dict(seed=seed, model=m, aupr=average_precision_score(y, p), auroc=roc_auc_score(y, p))
            row["ece"] = turnover_values(y, p, 0.5, quantile_bins(p))["ece"]
            rows.append(row | dict(cpu_s=time.process_time() - start))
    d = pd.DataFrame(rows)
    for m, r in d.groupby("model", sort=False):
        means = r[["aupr", "auroc", "ece"]].mean()
        print(f"{m:24s} " + "  ".join(f"{k} {v:.4f}" for k, v in means.items()) + f"  CPU s {r.cpu_s.mean():.2f}")
    first, n = a.models[0], a.seeds
    share = len(split.test) / len(split.train)
    for k in ("aupr", "auroc"):
        wide = d.pivot(index="seed", columns="model", values=k)
        for m in a.models[1:]:
            x = wide[first] - wide[m]
            half = stats.t.ppf(0.975, n - 1) * x.std(ddof=1) * np.sqrt(1 / n + share) if n > 1 else np.nan
            print(f"{first} − {m}: {k} {x.mean():+.4f} [{x.mean() - half:+.4f}, {x.mean() + half:+.4f}]")


def scale(a):
    for n in a.employees:
        s = make_synthetic(n_employees=n, seed=0).survey
        model, graph, seconds = trained(s, make_split(s, seed=0), a.models[0], 0)
        start = time.process_time()
        model.predict(graph)
        seconds["prediction"] = time.process_time() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        said = ", ".join(f"{k} {v:.2f}" for k, v in seconds.items())
        print(f"{n:8,} people: {said} CPU s; peak memory {memory:.2f} GiB", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("planted", "survey", "holdout", "scale"))
    p.add_argument("--out")
    p.add_argument("--data")
    p.add_argument("--codebook")
    p.add_argument("--employees", type=int, nargs="+", default=[2000])
    p.add_argument("--seeds", type=int, default=20, help="planted worlds, holdouts, or repeats of the k-fold")
    p.add_argument("--first", type=int, default=0, help="first seed")
    p.add_argument("--alone", action="store_true", help="planted: neither context nor contagion")
    p.add_argument("--careless", type=float, default=0.0, help="planted: share who answer at random")
    p.add_argument("--subset", help="survey: a file with 1 or 0 a person; those with 1 are scored apart too")
    p.add_argument("--genuine", action="store_true", help="survey: score the genuine apart too, by their items")
    p.add_argument("--models", nargs="+", default=[*MODELS], help="differences are from the first")
    a = p.parse_args()
    torch.set_num_threads(1)
    dict(planted=planted, survey=survey, holdout=holdout, scale=scale)[a.what](a)


if __name__ == "__main__":
    main()
