"""How a program and all that it started come to an end, and how its lines arrive."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from oblik.errors import BackendUnavailable
from oblik.training.backends.program import running

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and nobody's; the system may need a moment for it."""
    for _ in range(100):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


@posix
def test_a_program_that_will_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    began = time.monotonic()
    with running([sys.executable, "-c", code], folder=tmp_path, environment={}, grace_s=0.3) as program:
        child = int(next(line for line in program.lines() if line))
    assert program.status < 0
    assert time.monotonic() - began < 300
    assert ended(child)


@posix
def test_a_child_that_outlives_the_program_does_not_hold_us(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; print('done')\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    )
    with running([sys.executable, "-c", code], folder=tmp_path, environment={}) as program:
        assert [line for line in program.lines() if line] == ["done"]
    assert program.status == 0


def test_letters_that_are_torn_apart_come_whole(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfor byte in '習\\r開始\\nend'.encode(): "
        "sys.stdout.buffer.write(bytes([byte])); sys.stdout.buffer.flush(); time.sleep(0.01)"
    )
    with running([sys.executable, "-c", code], folder=tmp_path, environment={}) as program:
        assert [line for line in program.lines() if line] == ["習", "開始", "end"]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(BackendUnavailable, match="cannot be started"),
        running([str(tmp_path / "absent")], folder=tmp_path, environment={}),
    ):
        pass
