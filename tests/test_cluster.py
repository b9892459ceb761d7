"""A sweep on a Ray cluster of two workers: the bits of a local one, killed runs are started again.

Nothing is left half-written or running."""

import importlib.util
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
import nbformat
import pytest
from turnover_nb.runs.cluster import check_address, connect, run_jobs_ray
from turnover_nb.runs.engine import Job, run_jobs
from turnover_nb.runs.sweep import Plan, plan_jobs, preload
from turnover_nb.runs.shared import data_key, load_data, share

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
SMALL = dict(include_dashboard=False, object_store_memory=80_000_000)
DEAD_SOON = dict(
    health_check_period_ms=1000, health_check_timeout_ms=8000, health_check_failure_threshold=2
)  # a lost machine is noticed in seconds


def descendants(root):
    "Process ids below `root`, with their start times, so that an id used again is not mistaken"
    child = {}
    for p in Path("/proc").glob("[0-9]*/stat"):
        try:
            f = p.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if f[0] != "Z":
            child.setdefault(int(f[1]), []).append((int(p.parent.name), f[19]))
    out, todo = set(), [root]
    while todo:
        for c in child.get(todo.pop(), []):
            out.add(c)
            todo.append(c[0])
    return out


def alive(pid, started):
    try:
        f = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return f[0] != "Z" and f[19] == started


@pytest.fixture(scope="module")
def cluster():
    "A head without CPUs and two workers of one CPU, on the loopback interface; afterwards none of its processes lives"
    import ray
    from ray._private import node, ray_constants
    from ray.cluster_utils import Cluster

    before, home = descendants(os.getpid()), tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets need a short path
    (Path(home) / "ray").mkdir()
    with pytest.MonkeyPatch.context() as m, pytest.MonkeyPatch.context() as n:
        for k, v in dict(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", TMPDIR=home).items():
            m.setenv(k, v)
        m.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # Ray's own switch for loopback addresses
        m.setattr(node.Node, "start_api_server", lambda *a, **k: None)  # it would ask the network which cloud this is
        c = Cluster()
        try:
            for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                n.setenv(k, "2")  # what a run would get by itself
            c.add_node(num_cpus=0, no_monitor=True, include_log_monitor=False, _system_config=DEAD_SOON, **SMALL)
            for _ in range(2):
                c.add_node(wait=False, num_cpus=1, **SMALL)
            c.wait_for_nodes()
            n.undo()
            assert c.address.startswith("127.0.0.1:")
            c.home, c.processes = home, set()
            yield c
        finally:
            ours = getattr(c, "processes", set()) | descendants(os.getpid()) - before
            ray.shutdown()
            c.shutdown()
            end = time.monotonic() + 20
            while (left := [p for p in ours if alive(*p)]) and time.monotonic() < end:
                time.sleep(0.1)
            shutil.rmtree(home, ignore_errors=True)
    assert not left, f"still running: {left}"


def book(path, code):
    cells = [
        nbformat.v4.new_code_cell("seed = 0\nout = ''", metadata=dict(tags=["parameters"])),
        nbformat.v4.new_code_cell(code),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def gone():
    "A plan whose data only the starting process has, and what `load_data` would give for it"
    plan = Plan(
        ("majority", "logistic", "hgt"),
        (0, 1),
        data="/read/by/the/driver/alone",
        codebook="nowhere.yaml",
        employees=60,
        preference=("cold",),
        settings=dict(epochs=2, hidden=8),
    )
    return plan, {data_key(plan.data, plan.codebook, plan.employees): load_data("synthetic", "", plan.employees)}


def test_a_sweep_has_the_same_bits_as_a_local_one(cluster, gone, tmp_path):
    plan, things = gone
    ((survey, _),) = things.values()
    local, far = (
        [j for j in plan_jobs(plan, survey, tmp_path / k) if j.name not in ("majority cold seed_1", "hgt cold seed_1")]
        for k in ("local", "far")
    )
    preload(plan.models)
    with share(things):  # as `sweep` does
        assert [o.error for o in run_jobs(local, 2)] == [""] * 4
    said = []
    done = run_jobs_ray(
        far, cluster.address, progress=lambda o, n, total: said.append((o.job.name, n, total)), things=things
    )
    assert [o.error for o in done] == [""] * 4 and said == [(o.job.name, i, 4) for i, o in enumerate(done, 1)]
    for a, b in zip(local, far):
        names = {p.name for p in a.out.iterdir()}
        assert {p.name for p in b.out.iterdir()} == names and not b.part.exists()
        # these hold seconds, folders, machine, and the time and addresses of an archive
        for name in names - {"run.ipynb", "environment.json", "estimator.skops"}:
            assert (a.out / name).read_bytes() == (b.out / name).read_bytes(), (b.name, name)
        assert json.loads((b.out / "environment.json").read_text())["threads"] == 1
    assert run_jobs_ray(far, "nowhere:1") == []  # all there: no cluster is asked


KILLED_ONCE = """
import os, signal
from pathlib import Path
state, marker = Path(out, 'resume.pt'), Path(MARKER)
if not marker.exists():
    marker.touch(); state.write_text('epoch 1')
    os.kill(os.getpid(), signal.SIGKILL)
Path(out, 'result.txt').write_text(f'{seed} after {state.read_text()}')
state.unlink()
"""
ALWAYS_KILLED = """
import os, signal
with open(MARKER, 'a') as f: f.write('x')
os.kill(os.getpid(), signal.SIGKILL)
"""
LOOKS_ROUND = """
import builtins, json, os
from pathlib import Path
import numpy
from threadpoolctl import threadpool_info
threads = max(i['num_threads'] for i in threadpool_info())
seen = dict(pid=os.getpid(), marked=hasattr(builtins, 'marked'), threads=threads)
builtins.marked = True
Path(out, 'seen.json').write_text(json.dumps(seen))
"""


def test_killed_runs_are_started_again_and_failing_ones_hurt_no_other(cluster, tmp_path):
    code = {
        "killed": KILLED_ONCE.replace("MARKER", repr(str(tmp_path / "marker"))),
        "always": ALWAYS_KILLED.replace("MARKER", repr(str(tmp_path / "tries"))),
        "fails": "import builtins; builtins.marked = True\nassert seed != 7, 'seven is refused'",
        "a": LOOKS_ROUND,
        "b": LOOKS_ROUND,
        "c": LOOKS_ROUND,
    }
    jobs = [Job(book(tmp_path / f"{k}.ipynb", v), dict(seed=7), tmp_path / "out" / k, k) for k, v in code.items()]
    done = {o.job.name: o for o in run_jobs_ray(jobs, cluster.address, cpus_per_run=1, max_retries=1)}
    assert {k: o.ok for k, o in done.items()} == {
        "killed": True,
        "always": False,
        "fails": False,
        "a": True,
        "b": True,
        "c": True,
    }
    assert (
        tmp_path / "out" / "killed" / "result.txt"
    ).read_text() == "7 after epoch 1"  # the second try found the state of the first
    assert "WorkerCrashedError" in done["always"].error and (tmp_path / "tries").read_text() == "xx"
    assert "AssertionError: seven is refused" in done["fails"].error
    kept = done["fails"].job.part
    assert (
        "seven is refused" in (kept / "run.ipynb").read_text("utf-8")
        and (kept / "error.txt").read_text("utf-8") == done["fails"].error
    )
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"killed", "a", "b", "c", ".fails.part"}
    seen = [json.loads((tmp_path / "out" / k / "seen.json").read_text()) for k in "abc"]
    assert (
        len({s["pid"] for s in seen}) == 3
        and not any(s["marked"] for s in seen)
        and {s["threads"] for s in seen} == {1}
    )
    assert not list(Path(cluster.home).glob("turnover_nb-*"))  # not even of the run that was killed twice


def test_a_lost_machine_loses_no_run(cluster, tmp_path):
    code = """
import os, time
from pathlib import Path
Path(DIR, f'{seed}_{os.getpid()}').touch()
while not Path(DIR, 'go').exists():
    time.sleep(.05)
Path(out, 'result.txt').write_text(str(seed))"""
    jobs = [
        Job(
            book(tmp_path / "wait.ipynb", code.replace("DIR", repr(str(tmp_path)))),
            dict(seed=s),
            tmp_path / "out" / str(s),
            str(s),
        )
        for s in (1, 2)
    ]

    def lose():
        while len(pids := [p.name.split("_")[1] for p in tmp_path.glob("[12]_*")]) < 2:
            time.sleep(0.05)
        cluster.processes |= descendants(os.getpid())  # some have another parent afterwards
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        while all(Path("/proc", p).exists() for p in pids):
            time.sleep(0.05)  # a worker outlives its machine's daemon by a moment
        (tmp_path / "go").touch()

    t = threading.Thread(target=lose)
    t.start()
    done = run_jobs_ray(jobs, cluster.address)
    t.join()
    assert sorted((o.job.name, o.ok, o.error) for o in done) == [("1", True, ""), ("2", True, "")]
    assert [(tmp_path / "out" / s / "result.txt").read_text() for s in "12"] == ["1", "2"] and len(
        list(tmp_path.glob("[12]_*"))
    ) == 3


def test_a_run_that_no_machine_can_take_is_said(cluster, tmp_path, monkeypatch):
    import ray

    def stop(*a, **k):
        raise KeyboardInterrupt

    job = Job(book(tmp_path / "b.ipynb", "1"), dict(seed=1), tmp_path / "out", "b")
    monkeypatch.setattr(ray, "wait", stop)
    with (
        pytest.warns(UserWarning, match="no machine of the cluster has {'num_cpus': 99"),
        pytest.raises(KeyboardInterrupt),
    ):
        run_jobs_ray([job], cluster.address, cpus_per_run=99)
    assert not ray.is_initialized() and not job.out.exists() and not job.part.exists()


def test_wrong_addresses_are_refused_at_once(cluster, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as s:
        closed = s.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=f"no Ray cluster at 127.0.0.1:{closed}: Connection refused"):
        check_address(f"127.0.0.1:{closed}")
    with pytest.raises(ValueError, match="expected 'host:port'"):
        check_address("ray://head:10001")
    monkeypatch.setenv("RAY_ADDRESS", f"localhost:{closed}")
    with pytest.raises(RuntimeError, match="Connection refused"):
        connect()
    monkeypatch.delenv("RAY_ADDRESS")
    assert check_address(cluster.address) == cluster.address and check_address() == "auto"
    assert time.monotonic() - begin < 5
    r, opened = connect(cluster.address)
    try:
        assert opened and connect()[1] is False and connect(cluster.address)[1] is False
        with pytest.raises(RuntimeError, match="call ray.shutdown.. first"):
            connect("127.0.0.1:1")
    finally:
        r.shutdown()


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match="pip install 'turnover_nb.cluster.'"):
        check_address("127.0.0.1:6379")
