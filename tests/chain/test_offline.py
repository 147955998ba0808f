"""The flow in a network namespace that has no route to anywhere, not even loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CUT_OFF = ["unshare", "--net", "--map-root-user"]
SCRIPT = """
import socket, sys
from pathlib import Path
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    pass
else:
    sys.exit("there is a route")
from oblik import studio
from oblik.settings import Settings
result = studio.run_demo(
    Settings(device="cpu"), Path(sys.argv[1]), seed=900_012, photos=20, portraits=1,
    training={"steps": 2, "token_steps": 2, "sample_every": 0, "validate_every": 2}, plan={"steps": 2},
)
print(result.summary)
"""


def can_be_cut_off() -> bool:
    """Whether this machine lets a user make a namespace."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CUT_OFF, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_be_cut_off(), reason="unshare --net is not permitted here")
def test_the_whole_flow_needs_no_network(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "src"
    online = {"HF_HUB_OFFLINE": "0", "PYTHONPATH": str(source), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [*CUT_OFF, sys.executable, "-c", SCRIPT, str(tmp_path / "demo")],
        capture_output=True, text=True, check=False, timeout=900, env={**os.environ, **online},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith("likeness ")
    assert (tmp_path / "demo" / "report.html").is_file()
