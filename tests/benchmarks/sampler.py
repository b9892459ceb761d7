"""Speed and memory of the negative sampler, beside a plain loop and beside the bare matrix product of the same run.

    python tests/benchmarks/sampler.py --threads 1
    python tests/benchmarks/sampler.py --threads 2 --people 20000

Refresh: 2·people·posts·dims floating-point operations over the wall time of the whole refresh, against the fastest of
several chunked `torch.matmul` of the same operands into a buffer that is allocated once. Memory: peak resident set over
what is resident before.
"""

import argparse
import json
import random
import resource
import time

import torch

from turnover_nb.data.post_sets import Positives
from turnover_nb.models.gnn.negatives import HardNegativeSampler


def resident(peak=False):
    "Resident set, or its peak since `forget_peak`, in MiB"
    key = "VmHWM" if peak else "VmRSS"
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) / 1024


def forget_peak():
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def best(f, repeats):
    "Shortest wall time and shortest CPU time of some calls, in s: the second hardly sees what else is running"
    times = []
    for _ in range(repeats):
        t, c = time.perf_counter(), time.process_time()
        f()
        times.append((time.perf_counter() - t, time.process_time() - c))
    return least(times)


def least(times):
    return tuple(min(t) for t in zip(*times))


def loop_torch(person, cache, chosen, n_posts, ratio, g):
    "One negative per pair, drawn from the same kind of generator as the sampler's"
    out = []
    for p in person:
        if torch.rand(1, generator=g).item() < ratio:
            out.append(cache[p][torch.randint(len(cache[p]), (1,), generator=g).item()])
            continue
        while (q := torch.randint(n_posts, (1,), generator=g).item()) in chosen[p]:
            pass
        out.append(q)
    return out


def loop_python(person, cache, chosen, n_posts, ratio, rng):
    "The same with Python's own generator"
    out = []
    for p in person:
        if rng.random() < ratio:
            out.append(rng.choice(cache[p]))
            continue
        while (q := rng.randrange(n_posts)) in chosen[p]:
            pass
        out.append(q)
    return out


def matmul(z, q, chunk):
    out = torch.empty(chunk, len(q))
    for a in range(0, len(z), chunk):
        part = z[a : a + chunk]
        torch.matmul(part, q.t(), out=out[: len(part)])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(
        people=100_000, posts=10_000, dims=128, positives=5, pairs=100_000, k=5, threads=1, repeats=4
    ).items():
        ap.add_argument(f"--{name}", type=int, default=value)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    g = torch.Generator().manual_seed(0)
    z, q = (torch.randn(n, a.dims, generator=g) for n in (a.people, a.posts))
    who = torch.arange(a.people).repeat_interleave(a.positives)
    positives = Positives.of(who, torch.randint(a.posts, (len(who),), generator=g), a.people, a.posts)
    sampler = HardNegativeSampler(positives, k=a.k)
    score = lambda people: z[people] @ q.t()

    sampler.refresh(score, 0)  # warm up
    forget_peak()
    before = resident()
    sampler.refresh(score, 0)
    memory = resident(peak=True) - before
    refresh, product = [], []
    for _ in range(a.repeats):  # in turn: other processes disturb both alike
        product += [best(lambda c=c: matmul(z, q, c), 1) for c in (128, 256, 512, 1024)]
        refresh.append(best(lambda: sampler.refresh(score, 0), 1))
    flops, (wall, cpu), (mm_wall, mm_cpu) = 2 * a.people * a.posts * a.dims / 1e9, least(refresh), least(product)
    print(
        json.dumps(
            dict(
                what="refresh",
                people=a.people,
                posts=a.posts,
                dims=a.dims,
                threads=a.threads,
                refresh_s=round(wall, 2),
                matmul_s=round(mm_wall, 2),
                refresh_gflops=round(flops / wall, 1),
                matmul_gflops=round(flops / mm_wall, 1),
                share_of_matmul_rate=round(mm_wall / wall, 3),
                share_by_cpu_time=round(mm_cpu / cpu, 3),
                peak_mib_beyond_inputs=round(memory, 1),
            )
        )
    )

    person = torch.randint(a.people, (a.pairs,), generator=g)
    people = person.tolist()
    cache = [[p for p in row if p >= 0] for row in sampler.cache.tolist()]
    chosen = [set(s.tolist()) for s in positives.post.split(positives.count.tolist())]
    ours = best(lambda: sampler.sample(person, 1, g), 20)
    plain = {
        "a torch.Generator": best(lambda: loop_torch(people, cache, chosen, a.posts, 0.7, g), 2),
        "Python's random": best(lambda: loop_python(people, cache, chosen, a.posts, 0.7, random.Random(0)), 2),
    }
    for kind, s in plain.items():
        print(
            json.dumps(
                dict(
                    what="sample",
                    pairs=a.pairs,
                    threads=a.threads,
                    sampler_ms=round(ours[0] * 1e3, 2),
                    loop_with=kind,
                    loop_ms=round(s[0] * 1e3, 1),
                    times_faster=round(s[0] / ours[0], 1),
                    times_by_cpu_time=round(s[1] / ours[1], 1),
                )
            )
        )
    print(
        json.dumps(dict(what="process", peak_rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)))
    )


if __name__ == "__main__":
    main()
