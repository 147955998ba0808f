"""What every test shares: a home of its own, a machine that stays responsive, and the order of the files.

Each file runs in one process, so that what its tests share is made once; `-n 0` runs all in this one.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from oblik.paths import Home

for _name, _value in {
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
}.items():
    os.environ.setdefault(_name, _value)
for _name in [name for name in os.environ if name.startswith("OBLIK_")]:
    del os.environ[_name]
settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home folder; nothing is created until it is written."""
    return Home(tmp_path / "home")


LONGEST_FIRST = ("chain", "training", "generation", "flows", "diffusion", "miniature", "personas")
WORKER_BYTES = 2 * 2**30
TESTS = Path(__file__).parent


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many processes as cores and memory allow; none on one core, nor for a few files that were named."""
    if all(".py" in word for word in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    workers = min(cores, psutil.virtual_memory().available // WORKER_BYTES)
    return workers if workers > 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files before short ones, so that no process is left alone with a long one."""

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(TESTS).parts[0]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """The half a million objects of the imported libraries stay: the collector need not look at them."""
    gc.collect()
    gc.freeze()
