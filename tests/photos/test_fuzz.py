"""A thousand damaged files: no crash, nothing slow, nothing large."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="measures memory as POSIX systems count it")


def test_a_thousand_damaged_files() -> None:
    script = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "1000", "0"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout)
    assert figures["files"] == figures["accepted"] + figures["refused"] == 1000
    assert min(figures["accepted"], figures["refused"]) > 100
    assert figures["slowest_s"] < 5
    assert figures["peak_mib"] < 1024
