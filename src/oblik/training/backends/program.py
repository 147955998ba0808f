"""Another program at work: its output line by line, and the end of its whole process group.

In: a command line. Out: lines, those that a progress bar overwrites with a carriage return included, and an
exit status. The program leads a group of its own, so that a Ctrl-C here does not reach it half and the
processes that it starts end with it. Knows nothing of what the program says.
Not guaranteed: on Windows a process that outlives the one that started it is not found.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO

from oblik.errors import BackendUnavailable

GRACE_S = 8.0
"""How long a program may take to end when it is asked to, before it is killed."""
_PIECE_BYTES = 1 << 16


class Program:
    """A running program. ``lines`` until it ends, then ``status``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lines: Queue[bytes | None] = Queue()
        assert process.stdout is not None
        self._reader = Thread(target=_read, args=(process.stdout, self._lines), daemon=True)
        self._reader.start()

    @property
    def status(self) -> int:
        """The exit status; negative is the signal that ended it."""
        return self._process.wait()

    def lines(self, wait_s: float = 0.2) -> Iterator[str]:
        """Every line as it comes, and an empty one whenever nothing came for ``wait_s``."""
        while True:
            try:
                line = self._lines.get(timeout=wait_s)
            except Empty:
                if self._process.poll() is not None:
                    return  # a process that it left behind holds the pipe open
                yield ""
                continue
            if line is None:
                break
            yield line.decode("utf-8", "replace")
        while self._process.poll() is None:
            time.sleep(wait_s)
            yield ""

    def close(self) -> None:
        """Let the reader come to the end of the pipe."""
        self._reader.join(1.0)


@contextmanager
def running(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], grace_s: float = GRACE_S
) -> Iterator[Program]:
    """Run ``command`` in ``folder``; when the block is left, nothing of its group runs any more.

    Raises BackendUnavailable when it cannot be started.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, bufsize=0,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, creationflags=flags,
        )  # fmt: skip
    except OSError as problem:
        raise BackendUnavailable(
            f"{command[0]} cannot be started in {folder}: {problem.strerror}", hint="oblik config test"
        ) from problem
    program = Program(process)
    try:
        yield program
    finally:
        _end(process, grace_s)
        program.close()


def _end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask the group to end, then kill what is left of it."""
    if sys.platform == "win32":
        if process.poll() is None:
            process.send_signal(signal.CTRL_BREAK_EVENT)
            _wait(process, grace_s)
        kill = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(kill, capture_output=True, check=False)
    else:
        if process.poll() is None:
            _signal(process.pid, signal.SIGTERM)
            _wait(process, grace_s)
        _signal(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen[bytes], grace_s: float) -> None:
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        return


def _signal(group: int, number: int) -> None:
    if sys.platform != "win32":
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            return  # macOS says "not permitted" of a group that has only dead members


def _read(pipe: IO[bytes], lines: Queue[bytes | None]) -> None:
    rest = b""
    with pipe:
        while piece := pipe.read(_PIECE_BYTES):
            *whole, rest = re.split(rb"[\r\n]+", rest + piece)
            for line in whole:
                lines.put(line)
    lines.put(rest)
    lines.put(None)
