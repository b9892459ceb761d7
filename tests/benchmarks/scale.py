"""How long does a large survey take, and how much memory? Each step in turn:
generate, write, read and validate, split, build the graph and its test phase.
    python tests/benchmarks/scale.py --employees 100000 --format csv"""

import argparse, json, resource, tempfile, time
from pathlib import Path

a = argparse.ArgumentParser(description=__doc__.split('\n')[0])
a.add_argument('--employees', type=int, default=100_000)
a.add_argument('--format', choices=['csv', 'parquet'], default='csv')
a.add_argument('--careless', type=float, default=0.0, help='share of people who answer at random')
a.add_argument('--until', choices=['generate', 'write', 'read', 'graph'], default='graph', help='last step')
a.add_argument('--out', help='also write the figures to this JSON file')
a = a.parse_args()
rows, begin = [], (time.perf_counter(), time.process_time())


class Step:
    "Seconds of a step, and the highest memory that the process had held at its end"

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *error):
        rows.append(
            dict(
                step=self.name,
                wall_s=time.perf_counter() - self.wall,
                cpu_s=time.process_time() - self.cpu,
                peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            )
        )
        print(
            '{step:<28} {wall_s:8.1f} s wall {cpu_s:8.1f} s CPU   peak {peak_gib:5.2f} GiB'.format(**rows[-1]),
            flush=True,
        )


with tempfile.TemporaryDirectory() as d:
    with Step('import'):
        from turnover_nb.synthetic.world import make_synthetic, write_synthetic
    with Step('generate'):
        s = make_synthetic(n_employees=a.employees, careless=a.careless)
    if a.until != 'generate':
        with Step('write'):
            folder = write_synthetic(s, Path(d) / 'survey', a.format)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f'  {size / 2**20:,.0f} MiB on disk')
    del s
    if a.until in ('read', 'graph'):
        from turnover_nb.data.survey import read_survey

        with Step('read and validate'):
            survey = read_survey(folder, folder / 'codebook.yaml')
        print(' ', survey)
    if a.until == 'graph':
        with Step('split'):
            from turnover_nb.data.split import make_split

            split = make_split(survey)
        with Step('import torch, PyG'):
            from turnover_nb.graph.graph import build_graph
        with Step('build graph'):
            graph = build_graph(survey, split)
            test = graph.at('test')
        print(f'  {test.num_nodes:,} nodes, {test.num_edges:,} edges')
rows.append(
    dict(
        step='total',
        wall_s=time.perf_counter() - begin[0],
        cpu_s=time.process_time() - begin[1],
        peak_gib=rows[-1]['peak_gib'],
    )
)
print('{step:<28} {wall_s:8.1f} s wall {cpu_s:8.1f} s CPU   peak {peak_gib:5.2f} GiB'.format(**rows[-1]))
if a.out:
    Path(a.out).write_text(
        json.dumps(dict(employees=a.employees, format=a.format, synthetic=True, steps=rows), indent=1) + '\n'
    )
