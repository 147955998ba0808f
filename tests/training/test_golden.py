"""Twenty steps of training are the same as ever: a refactor reproduces them.

The numbers in golden.json were recorded on one machine; other processors round differently, so they are
compared to half a percent. When a change is meant to alter training (or the pack), replace the file with
the trace that the failing test prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from oblik.progress import SilentProgress
from oblik.training.artifact import CURVES, TrainingLog
from oblik.training.backends.native import NativeTrainer
from oblik.training.trainer import TrainRequest

GOLDEN = Path(__file__).with_name("golden.json")


def test_twenty_steps_reproduce_the_golden_trace(tmp_path: Path, ask: Callable[..., TrainRequest]) -> None:
    NativeTrainer("cpu").train(
        ask(tmp_path, token_steps=8, steps=12, batch=4, validate_every=10), SilentProgress()
    )
    log = TrainingLog.model_validate_json((tmp_path / CURVES).read_text(encoding="utf-8"))
    trace = {
        "train": [round(point.train, 5) for point in log.losses],
        "validation": [round(point.validation, 5) for point in log.losses if point.validation is not None],
    }
    assert len(trace["train"]) == 20
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name, values in trace.items():
        assert values == pytest.approx(golden[name], rel=5e-3), f"the new trace:\n{json.dumps(trace)}"
