"""How long does a large survey take, and how much memory? Each step in turn:
generate, write, read and validate, split, build the graph and its test phase.

    python tests/benchmarks/scale.py --employees 100000 --format csv"""

import argparse
import json
import resource
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

rows = []  # one a step: seconds, and the highest memory that the process had held at its end


def note(step: str, wall: float, cpu: float):
    "Keep and print the figures of a step that began at these two clocks"
    row = dict(
        step=step,
        wall_s=time.perf_counter() - wall,
        cpu_s=time.process_time() - cpu,
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )
    rows.append(row)
    line = '{step:<28} {wall_s:8.1f} s wall {cpu_s:8.1f} s CPU   peak {peak_gib:5.2f} GiB'
    print(line.format(**row), flush=True)


@contextmanager
def step(name: str):
    "Measure what is done inside"
    clocks = time.perf_counter(), time.process_time()
    yield
    note(name, *clocks)


def run(a: argparse.Namespace, folder: Path):
    "All steps until the last that is asked for"
    with step('import'):
        from turnover_nb.synthetic.world import make_synthetic, write_synthetic
    with step('generate'):
        made = make_synthetic(n_employees=a.employees, careless=a.careless)
    if a.until == 'generate':
        return
    with step('write'):
        write_synthetic(made, folder, a.format)
    print(f'  {sum(f.stat().st_size for f in folder.iterdir()) / 2**20:,.0f} MiB on disk')
    if a.until == 'write':
        return
    del made
    from turnover_nb.data.survey import read_survey

    with step('read and validate'):
        survey = read_survey(folder, folder / 'codebook.yaml')
    print(' ', survey)
    if a.until == 'read':
        return
    with step('split'):
        from turnover_nb.data.split import make_split

        split = make_split(survey)
    with step('import torch, PyG'):
        from turnover_nb.graph.graph import build_graph
    with step('build graph'):
        test = build_graph(survey, split).at('test')
    print(f'  {test.num_nodes:,} nodes, {test.num_edges:,} edges')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--employees', type=int, default=100_000)
    parser.add_argument('--format', choices=['csv', 'parquet'], default='csv')
    parser.add_argument('--careless', type=float, default=0.0, help='share of people who answer at random')
    parser.add_argument('--until', choices=['generate', 'write', 'read', 'graph'], default='graph', help='last step')
    parser.add_argument('--out', help='also write the figures to this JSON file')
    a = parser.parse_args()
    clocks = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as d:
        run(a, Path(d) / 'survey')
    note('total', *clocks)
    if a.out:
        facts = dict(employees=a.employees, format=a.format, synthetic=True, steps=rows)
        Path(a.out).write_text(json.dumps(facts, indent=1) + '\n', 'utf-8')


if __name__ == '__main__':
    main()
