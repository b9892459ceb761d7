"""Does P(genuine) find careless records? Planted ones, the real survey by its metadata rule, and the time it takes.

    python tests/benchmarks/quality.py --employees 500 2000 --careless 0 .2 .5 --seeds 10
    python tests/benchmarks/quality.py --pattern top --employees 500            # other ways of being careless
    python tests/benchmarks/quality.py --real survey/                 # folder with responses.csv, answers only
    python tests/benchmarks/quality.py --scale 100000

`classes` says what was preferred in how many seeds.
Intervals: Student's over seeds; for the real survey a bootstrap over people (the fit held)."""

import argparse
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score
from turnover_nb.quality.genuine import genuine
from turnover_nb.quality.signs import indices
from turnover_nb.synthetic.world import make_synthetic

PATTERNS = ("uniform", "top", "middle", "sources", "straight")


def planted(n, careless, seed, pattern="uniform"):
    """A synthetic survey and who is careless in it.

    Item by item: `uniform` over the levels, `top` three levels, `middle`-heavy, `sources`: half uniform, half top.
    `straight`: one column all the way down"""
    w = make_synthetic(n_employees=n, careless=careless, seed=seed)
    bad = w.truth.hidden["careless"]
    f = w.survey.features.copy()
    if pattern == "uniform":
        return w.survey, bad
    rng = np.random.default_rng([seed, PATTERNS.index(pattern)])
    column = rng.random(n)
    half = rng.random(n) < 0.5
    for c, t in w.survey.types.items():
        if not c.startswith(("fit_", "use_", "skill_", "loss_")):
            continue
        k = len(t.levels)
        old = f[c].to_numpy()
        top, middle = rng.integers(k - 2, k + 1, n), np.clip(np.round(rng.normal((k + 1) / 2, 0.8, n)), 1, k)
        new = dict(top=top, middle=middle, sources=np.where(half, old, top), straight=1 + np.floor(column * k))[pattern]
        f[c] = np.where(bad, new, old).astype(float)
    return replace(w.survey, features=f), bad


def auroc(good, log_odds):
    return float(roc_auc_score(good, np.clip(log_odds, -1e9, 1e9)))


def interval(x):
    x = np.asarray(x, float)
    m = x.mean()
    if len(x) < 3:
        return f"{m:.4f}"
    h = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5
    return f"{m:.4f} [{m - h:.4f}, {m + h:.4f}]"


def measure(n, careless, seeds, pattern, choices=True):
    "One row of the table"
    auc, flagged, wrong, classes, used = [], [], [], Counter(), time.process_time()
    for seed in range(seeds):
        s, bad = planted(n, careless, seed, pattern)
        q = genuine(s, choices=choices)
        classes[
            q.criteria[q.criteria.chosen]
            .classes.iloc[0]
            .replace("genuine + ", "")
            .replace("genuine", "none")
            .replace("careless ", "")
        ] += 1
        flagged.append((~q.genuine).mean())
        wrong.append((~q.genuine)[~bad].mean())
        if bad.any():
            auc.append(auroc(~bad, q.log_odds))
    return {
        "people": n,
        "careless": careless,
        "pattern": pattern,
        "AUROC": interval(auc) if auc else "",
        "lowest": f"{min(auc):.4f}" if auc else "",
        "flagged": interval(flagged),
        "attentive flagged, most": f"{max(wrong):.4f}",
        "classes": dict(classes),
        "CPU s each": round((time.process_time() - used) / seeds, 1),
    }


def metadata_rule(folder):
    """Genuine by the platform's metadata, bool [n].

    A phone with a phone's (upright) screen, or a computer whose IP province is the stated one"""
    d = pd.read_csv(Path(folder) / "responses.csv", encoding="gb18030", header=None, dtype=str)
    head = d.iloc[0].str.strip().tolist()
    d = d.iloc[2:].reset_index(drop=True)
    device, screen, match = (d[head.index(c)] for c in ("设备类型", "屏幕分辨率", "IP省份与所填一致"))
    size = screen.str.extract(r"(\d+)\D+(\d+)").astype(float)
    return (((device == "MOBILE") & (size[1] > size[0])) | ((device == "COMPUTER") & (match == "1"))).to_numpy()


def real(folder, seeds=3, boot=2000):
    "AUROC of P(genuine) against the rule, from answers only"
    from turnover_nb.data.survey import read_survey

    s, rule, rows, rng = read_survey(folder, "job_choice_survey"), metadata_rule(folder), [], np.random.default_rng(0)
    for choices in (True, False):
        for seed in range(seeds):
            q = genuine(s, seed, choices=choices)
            o = q.log_odds
            b = [auroc(rule[i], o[i]) for i in rng.integers(0, s.n, (boot, s.n))]
            rows.append(
                {
                    "choices": choices,
                    "seed": seed,
                    "AUROC": round(auroc(rule, o), 4),
                    "low": round(np.quantile(b, 0.025), 4),
                    "high": round(np.quantile(b, 0.975), 4),
                    "genuine": int(q.genuine.sum()),
                    "rule": int(rule.sum()),
                    "agree": round((q.genuine == rule).mean(), 3),
                    "classes": q.criteria[q.criteria.chosen].classes.iloc[0],
                    **{f"r {k}": round(v, 2) for k, v in q.correlation.items()},
                }
            )
    for size in (150, 272):  # fits on some of the people, as on the training people of a split
        agree = []
        for seed in range(4 * seeds):
            some = np.sort(np.random.default_rng(seed).permutation(s.n)[:size])
            q2 = genuine(s, rows=some, choices=False)
            held = np.setdiff1d(np.arange(s.n), some)
            agree.append(((q2.genuine == rule)[some].mean(), (q2.genuine == rule)[held].mean()))
        inside, outside = zip(*agree)
        print(
            f"fitted on {size} random people, items only, {len(agree)} draws: agreement with the rule "
            f"inside {min(inside):.3f} … {max(inside):.3f}, outside {min(outside):.3f} … {max(outside):.3f}"
        )
    signs = indices(s)
    low = ("irv", "mahalanobis")
    each = {
        c: auroc(rule[ok], (-1 if c in low else 1) * signs[c][ok])
        for c in signs
        if c != "mahalanobis_p"
        for ok in [signs[c].notna().to_numpy()]
    }
    return q, pd.DataFrame(rows), pd.Series(each, name="AUROC").round(3)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--employees", type=int, nargs="*", default=[500, 2000])
    ap.add_argument("--careless", type=float, nargs="*", default=[0, 0.2, 0.5])
    ap.add_argument("--seeds", type=int, default=10)
    ap.add_argument("--pattern", choices=PATTERNS, nargs="*", default=["uniform"])
    ap.add_argument("--items-only", action="store_true", help="without the choice tasks")
    ap.add_argument("--real")
    ap.add_argument("--scale", type=int)
    a = ap.parse_args()
    pd.set_option("display.width", 250, "display.max_columns", 20, "display.max_colwidth", 60)
    if a.real:
        q, rows, each = real(a.real)
        print(q.summary(), "\n")
        print(rows.to_string(index=False), "\n")
        print(each.to_string())
    elif a.scale:
        s, bad = planted(a.scale, 0.2, 0)
        t, c = time.perf_counter(), time.process_time()
        q = genuine(s)
        print(
            f"{s.n:,} people × {q.n_items} items and {q.n_tasks} choices: "
            f"{time.perf_counter() - t:.0f} s wall, {time.process_time() - c:.0f} s CPU, "
            f"AUROC {auroc(~bad, q.log_odds):.4f}, "
            f"flagged {(~q.genuine).mean():.4f} of which planted {bad.mean():.4f}"
        )
    else:
        for p in a.pattern:
            print(
                pd.DataFrame(
                    [measure(n, c, a.seeds, p, not a.items_only) for n in a.employees for c in a.careless]
                ).to_string(index=False),
                flush=True,
            )


if __name__ == "__main__":
    main()
