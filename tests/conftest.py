"""What every test shares: a home of its own, and a machine that stays responsive."""

from __future__ import annotations

import os
from pathlib import Path

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
