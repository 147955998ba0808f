"""What sd-scripts prints, read: progress, losses, held-out losses, and the traceback of a crash.

In: lines, as ``train_network.py`` (v0.8 to v0.10) and ``accelerate launch`` write them; the progress bars are
tqdm's. Out: how far it is, a short note, the curve, the last words. Knows nothing of processes and files.

    steps:  12%|█▏        | 120/1000 [01:00<07:20,  2.00it/s, avr_loss=0.123]
    validation steps: 100%|██████████| 8/8 [00:03<00:00,  2.51it/s, val_avg_loss=0.134, timestep=799]
"""

from __future__ import annotations

import re
from collections import deque

from oblik.training.artifact import LossPoint

STEPS, VALIDATION = "steps", "validation steps"
TAIL_LINES = 200
SHOWN_LINES = 15
_BAR = re.compile(
    r"^(?P<name>[^:|]+):\s+\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)\s+"
    r"\[(?P<spent>[^<\]]*)<(?P<left>[^,\]]*),\s*(?P<rate>[^,\]]*)(?P<rest>[^\]]*)\]"
)
_LOSS = re.compile(r"\bavr_loss=(?P<value>[^,\s]+)")
_HELD_OUT = re.compile(r"\bval_avg_loss=(?P<value>[^,\s]+)")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""A bar below another one goes back up with them."""
_TRACEBACK = "Traceback (most recent call last)"
_ACCELERATES_OWN = "CalledProcessError"


class Output:
    """What was read so far. ``loss`` is sd-scripts' moving average; nan when the training diverged."""

    def __init__(self) -> None:
        self.done = 0
        self.loss: float | None = None
        self.note = ""
        self.held_out: dict[int, float] = {}
        self._losses: dict[int, float] = {}
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def read(self, line: str) -> int:
        """Take one line in; the number of steps that were done since the last one."""
        line = _ESCAPES.sub("", line).rstrip()
        bar = _BAR.match(line.lstrip())
        if bar is None:
            if line:
                self._tail.append(line)
            return 0
        if bar["name"] == VALIDATION and (measured := _number(_HELD_OUT, bar["rest"])) is not None:
            self.held_out[self.done] = measured
        if bar["name"] != STEPS:
            return 0
        before, self.done = self.done, max(self.done, int(bar["done"]))
        loss = _number(_LOSS, bar["rest"])
        if loss is not None:
            self.loss = self._losses[self.done] = loss
            held_out = self.held_out.get(max(self.held_out, default=0))
            words = f"loss {loss:.3f}" + (f", held out {held_out:.3f}" if held_out is not None else "")
            self.note = f"{words}, {bar['rate'].strip()}, {bar['left'].strip()} left"
        return self.done - before

    @property
    def losses(self) -> list[LossPoint]:
        """The curve; a step whose bar was never drawn is not in it."""
        return [
            LossPoint(step=step, train=loss, validation=self.held_out.get(step))
            for step, loss in sorted(self._losses.items())
            if step > 0
        ]

    def last_words(self) -> list[str]:
        """The end of a crash: the script's own traceback, without the one that accelerate adds to it."""
        lines = list(self._tail)
        begins = [n for n, line in enumerate(lines) if line.startswith(_TRACEBACK)]
        if begins and any(_ACCELERATES_OWN in line for line in lines[begins[-1] :]):
            lines = lines[: begins[-1]]
        return lines[-SHOWN_LINES:]


def _number(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    try:
        return float(found["value"]) if found else None
    except ValueError:
        return None
