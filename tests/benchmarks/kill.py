"""A sweep that is killed again and again must end in the same tables.

Runs it once undisturbed, then kills it (SIGKILL) at random moments, resumes it, and compares every results.json,
predictions.parquet and table bit for bit:

    python tests/benchmarks/kill.py --kills 20
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
import numpy as np

MODELS = [
    '--models',
    'majority,logistic,v6_twostage',
    '--seeds',
    '2',
    '--preference',
    'cold',
    '--employees',
    '120',
    '--set',
    'hidden=16',
    '--set',
    'epochs=12',
    '--set',
    'stage2_epochs=12',
]


def start(out, *more):
    return subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import sys; from turnover_nb.cli import main; sys.exit(main())',
            'run',
            '--out',
            str(out),
            *MODELS,
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(folder):
    "Content of everything that a result depends on"
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for n in ('results.json', 'predictions.parquet', '*_history.json', 'tables/*.csv', 'tables/*.md')
        for p in sorted(folder.rglob(n))
        if p.stem != 'environment'
    }  # that one says how long the runs took


def killed_sweep(out, kills: int, rng, longest: float) -> tuple:
    "(folder, how often it was killed) of a sweep that is killed up to `kills` times, then left to end"
    folder, done = None, 0
    while True:
        p = start(out, *(['--resume', str(folder)] if folder else []))
        if done < kills:
            try:
                p.wait(rng.uniform(0.2, longest))
            except subprocess.TimeoutExpired:
                p.send_signal(signal.SIGKILL)
                done += 1
        said = p.communicate()
        if p.returncode == 0:
            return folder or next((out / 'main').iterdir()), done
        if p.returncode != -signal.SIGKILL:
            raise RuntimeError(f'exit code {p.returncode}: {said[1]}')
        if folder is None and (out / 'main').exists():
            # killed before the manifest: nothing to resume
            whole = [f for f in (out / 'main').iterdir() if (f / 'manifest.json').exists()]
            folder = whole[0] if whole else None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--kills', type=int, default=20)
    p.add_argument('--longest', type=float, default=12.0, help='a kill comes within so many seconds of a start')
    p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    rng, done, round_ = np.random.default_rng(a.seed), 0, 0
    with tempfile.TemporaryDirectory() as d:
        t = time.perf_counter()
        q = start(Path(d) / 'calm')
        said = q.communicate()
        if q.returncode:
            raise RuntimeError(said[1])
        want = files(next((Path(d) / 'calm' / 'main').iterdir()))
        print(f'undisturbed: {time.perf_counter() - t:.0f} s, {len(want)} files')
        while done < a.kills:
            folder, n = killed_sweep(Path(d) / f'killed{round_}', min(a.kills - done, 7), rng, a.longest)
            done += n
            round_ += 1
            got = files(folder)
            bad = [k for k in want.keys() | got.keys() if want.get(k) != got.get(k)]
            print(f'sweep {round_}: killed {n} times, {len(got)} files, {len(bad)} differ {bad[:5]}', flush=True)
            if bad:
                sys.exit(1)
    print(f'{done} kills, all results and tables bit-identical')


if __name__ == '__main__':
    main()
