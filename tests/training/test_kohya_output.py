"""What sd-scripts prints, and how a program and all that it started come to an end."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import psutil
import pytest

from oblik.errors import BackendUnavailable
from oblik.training.backends.kohya_output import Output
from oblik.training.backends.program import running

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def read(*lines: str) -> Output:
    output = Output()
    for line in lines:
        output.read(line)
    return output


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


def test_a_bar_is_steps_a_loss_and_the_time_that_is_left() -> None:
    output = read("steps:   0%|          | 0/1000 [00:00<?, ?it/s]")
    assert (output.done, output.loss) == (0, None)
    assert output.read("steps:  12%|█▏        | 120/1000 [01:00<07:20,  2.00it/s, avr_loss=0.123]") == 120
    assert output.read("steps:  12%|█▏        | 120/1000 [01:00<07:20,  2.00it/s, avr_loss=0.123]") == 0
    assert output.read("steps:  12%|█▏        | 121/1000 [1:01:00<2:07:20, 1.50s/it, avr_loss=9.1e-05]") == 1
    assert output.note == "loss 0.000, 1.50s/it, 2:07:20 left"
    assert [(point.step, point.train) for point in output.losses] == [(120, 0.123), (121, 9.1e-05)]


def test_other_bars_are_not_steps() -> None:
    output = read(
        "read caption: 100%|██████████| 4/4 [00:00<00:00, 8004.4it/s]", "100%|███| 4/4 [00:00<00:00, 1it/s]"
    )
    assert (output.done, output.losses) == (0, [])


def test_held_out_losses_belong_to_the_step_before_them() -> None:
    """The last of the running means counts; the bar below the other one goes back up by an escape."""
    output = read(
        "steps:  50%|█████     | 2/4 [00:52<00:52, 26.3s/it, avr_loss=0.2]",
        "validation steps:  50%|█  | 1/2 [00:14<00:14, 14.8s/it, val_avg_loss=0.9, timestep=200]\x1b[A",
        "\x1b[Avalidation steps: 100%|██| 2/2 [00:29<00:00, 14.8s/it, val_avg_loss=0.4, timestep=400]\x1b[A",
        "steps:  75%|███████▌  | 3/4 [02:52<00:52, 26.3s/it, avr_loss=0.1]",
    )
    assert output.held_out == {2: 0.4}
    assert output.note.startswith("loss 0.100, held out 0.400, ")
    assert [point.validation for point in output.losses] == [0.4, None]


def test_a_loss_that_is_no_number() -> None:
    loss = read("steps:  50%|█████     | 2/4 [00:52<00:52, 26.3s/it, avr_loss=nan]").loss
    assert loss is not None
    assert math.isnan(loss)


def test_last_words_are_the_scripts_own() -> None:
    script = ["Traceback (most recent call last):", '  File "train_network.py"', "ValueError: no"]
    accelerates = [
        "Traceback (most recent call last):",
        "subprocess.CalledProcessError: Command '[...]' returned 1",
    ]
    assert read("loading", *script, *accelerates).last_words() == ["loading", *script]
    assert read(*script).last_words() == script
    assert len(read(*(str(n) for n in range(500))).last_words()) == 15


@posix
def test_a_program_that_will_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    began = time.monotonic()
    with running([sys.executable, "-c", code], folder=tmp_path, environment={}, grace_s=0.3) as program:
        child = int(next(line for line in program.lines() if line))
    assert program.status < 0
    assert time.monotonic() - began < 30
    assert ended(child)


@posix
def test_a_child_that_outlives_the_program_does_not_hold_us(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; print('done')\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
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
