"""Stopped in any way and started again, a run ends with the same weights, bit for bit."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.tiny import open_tiny

from oblik.errors import DiskFull, InvalidInput, JobCancelled
from oblik.progress import Advance, SilentProgress
from oblik.training.artifact import METRICS, TEXT_ENCODER, TOKEN, WEIGHTS
from oblik.training.backends.checkpoints import Checkpoints
from oblik.training.backends.native import NativeTrainer
from oblik.training.trainer import TrainRequest

resource = pytest.importorskip("resource", reason="limits files as POSIX systems do")
Ask = Callable[..., TrainRequest]
ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import gc, os, pickle, signal, sys
from oblik.progress import SilentProgress
from oblik.training.backends.native import NativeTrainer
from tests.training.test_resume import At
from tests.training.tiny import open_tiny

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Fsync:
    left, real = 0, os.fsync
    def __call__(self, handle):
        if "checkpoint" in where and ".step-" in os.readlink(f"/proc/self/fd/{handle}"):
            self.left -= 1
            if not self.left:
                die()
        Fsync.real(handle)

gc.freeze()
for where, number, request in pickle.load(sys.stdin.buffer):
    if not (child := os.fork()):
        os.fsync = fsync = Fsync()
        fsync.left = number
        progress = At(number, die) if where == "step" else SilentProgress()
        NativeTrainer("cpu", open_tiny).train(request, progress)
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
KILLS = [("step", 1), ("step", 4), ("step", 8), ("in a checkpoint", 1), ("in a checkpoint", 3)]


class At(SilentProgress):
    """Does something in the middle of the step with that number, counted over both stages."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.act = step, act

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        def advance(n: int = 1, note: str = "") -> None:
            if name.startswith(("learn", "train")) and note:
                self.left -= n
                if not self.left:
                    self.act()

        yield advance


def train(request: TrainRequest, progress: SilentProgress | None = None) -> Path:
    return NativeTrainer("cpu", open_tiny).train(request, progress or SilentProgress())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_ask: Ask) -> Path:
    return train(tiny_ask(tmp_path_factory.mktemp("loras") / "v001"))


def assert_equal(first: Path, second: Path) -> None:
    for name in (WEIGHTS, TOKEN, TEXT_ENCODER):
        one, other = load_file(first / name), load_file(second / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/fd").is_dir(), reason="kills by fork")
def test_killed_anywhere_it_goes_on_to_the_same_weights(tmp_path: Path, trained: Path, tiny_ask: Ask) -> None:
    requests = [
        (where, number, tiny_ask(tmp_path / f"v{place:03d}")) for place, (where, number) in enumerate(KILLS)
    ]
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=pickle.dumps(requests), capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
    )  # fmt: skip
    assert child.stdout.decode().split() == [str(-signal.SIGKILL)] * len(KILLS), child.stderr.decode()
    for place in range(len(KILLS)):
        assert_equal(train(tiny_ask(tmp_path / f"v{place:03d}", resume=True)), trained)


def test_ctrl_c_finishes_the_step_and_saves(tmp_path: Path, trained: Path, tiny_ask: Ask) -> None:
    out = tmp_path / "v001"
    with pytest.raises(JobCancelled) as stopped:
        train(tiny_ask(out), At(5, lambda: signal.raise_signal(signal.SIGINT)))
    assert stopped.value.hint == "oblik train --resume"
    assert Checkpoints(out / "work").steps() == [2, 4, 5]
    assert_equal(train(tiny_ask(out, resume=True)), trained)
    lines = (out / METRICS).read_text().splitlines()
    assert len(lines) == 9


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, trained: Path, tiny_ask: Ask) -> None:
    out, before = tmp_path / "v001", resource.getrlimit(resource.RLIMIT_FSIZE)
    filling = At(5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1])))
    try:
        with pytest.raises(DiskFull) as stopped:
            train(tiny_ask(out), filling)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "oblik train --resume" in stopped.value.hint
    assert Checkpoints(out / "work").steps() == [2, 4]
    assert not list((out / "work").glob(".*"))
    assert_equal(train(tiny_ask(out, resume=True)), trained)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, trained: Path, tiny_ask: Ask
) -> None:
    out = tmp_path / "v001"
    with pytest.raises(JobCancelled):
        train(tiny_ask(out), At(6, lambda: signal.raise_signal(signal.SIGINT)))
    newest = sorted((out / "work").glob("step-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    assert_equal(train(tiny_ask(out, resume=True)), trained)


def test_a_stopped_run_keeps_its_rank(tmp_path: Path, tiny_ask: Ask) -> None:
    with pytest.raises(JobCancelled):
        train(tiny_ask(tmp_path), At(2, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(InvalidInput, match="rank"):
        train(tiny_ask(tmp_path, resume=True, rank=4))


def test_the_last_three_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3, 4, 5):
        if step in (2, 4):
            checkpoints.save_best(step, [torch.ones(step)])
        checkpoints.save(step, {}, best=2 if step < 4 else 4)
    assert checkpoints.steps() == [3, 4, 5]
    assert checkpoints.load_best(2) is None
    assert checkpoints.load_best(4) is not None
    checkpoints.forget_after(3)
    assert checkpoints.steps() == [3]
