"""Fixtures shared by all tests, and one thread for each process of tests: several at once would wait for each other."""

import os
from pathlib import Path
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy are imported


@pytest.fixture(scope="session")
def shared_data() -> Path:
    "Folder of the real data beside the repository; tests that need it skip where it is absent"
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data are not beside the repository")
    return folder
