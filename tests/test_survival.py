"""A sweep that is killed, starved of disk or disturbed by another ends in the same tables, or says what is wrong."""

import os
import resource
import subprocess
import sys
from pathlib import Path
import numpy as np
import pytest
from turnover_nb.cli import main
from turnover_nb.runs.sweep import locked

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import kill

FEW = ["--models", "majority,logistic", "--seeds", "1", "--employees", "60", "--preference", "cold"]


def test_killed_three_times_and_resumed_gives_the_same_bits(tmp_path):
    q = kill.start(tmp_path / "calm")
    said = q.communicate()
    assert q.returncode == 0, said[1]
    want = kill.files(next((tmp_path / "calm" / "main").iterdir()))
    folder, n = kill.killed_sweep(tmp_path / "killed", 3, np.random.default_rng(1), 8.0)
    assert n > 0 and kill.files(folder) == want and len(want) > 15
    assert not [p for p in folder.rglob("*.part") if p.is_file()] and not list(folder.rglob("resume.pt"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A sweep with its report"
    place = tmp_path_factory.mktemp("out")
    assert main(["run", "--out", str(place), *FEW]) == 0
    return next((place / "main").iterdir())


def test_a_report_that_was_killed_midway_is_made_again(finished):
    folder = finished
    want = kill.files(folder)
    (folder / "report").rename(folder / ".report.part")
    (folder / ".report.part" / "tables" / "half.csv").write_text("a,b\n1")
    assert main(["report", str(folder)]) == 0
    assert kill.files(folder) == want and not (folder / ".report.part").exists()


def test_two_sweeps_in_one_folder(finished, capsys):
    folder = finished
    with locked(folder):
        assert main(["run", "--out", str(folder.parent), *FEW, "--resume", str(folder)]) == 2
    assert f"{folder}: another sweep is writing there" in capsys.readouterr().err


def test_two_sweeps_at_once_get_folders_of_their_own(tmp_path):
    from turnover_nb.runs.sweep import Plan, start

    assert len({start(Plan(("majority",), (0,)), tmp_path) for _ in range(5)}) == 5


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_output_folder_that_cannot_be(tmp_path, capsys, out):
    (tmp_path / "file").write_text("here")
    assert main(["run", "--out", str(tmp_path / out), *FEW]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "file") in err and err.count("\n") == 1 and (tmp_path / "file").read_text() == "here"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_without_permission(tmp_path, capsys):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert main(["run", "--out", str(tmp_path / "closed"), *FEW]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_a_full_disk_leaves_no_run_that_looks_finished(tmp_path):
    "Files may not grow beyond 2 kB: the manifest can be written, a notebook cannot"
    code = """
import resource, signal, sys
from turnover_nb.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main())"""
    p = subprocess.run(
        [sys.executable, "-c", code, "run", "--out", str(tmp_path), *FEW], capture_output=True, text=True
    )
    assert p.returncode == 1 and "failed: majority cold seed_0: OSError" in p.stderr and "--resume" in p.stderr, (
        p.stderr
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000
    (folder,) = (tmp_path / "main").iterdir()
    assert not [d for v in ("majority/cold", "logistic") for d in (folder / v).iterdir() if d.name[0] != "."]
    assert main(["run", "--out", str(tmp_path), *FEW, "--resume", str(folder)]) == 0  # room again: nothing is lost


@pytest.mark.parametrize(
    "content, says",
    [(None, "no manifest.json"), ("", "manifest.json"), ("{", "manifest.json"), ("{}", "manifest.json")],
)
def test_a_folder_that_is_no_sweep(tmp_path, capsys, content, says):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert says in err and str(tmp_path) in err and err.count("\n") == 1
    assert (
        main(["run", "--out", str(tmp_path / "o"), *FEW, "--resume", str(tmp_path)]) == 2
        and not (tmp_path / "o").exists()
    )
