"""Probes are judged, and the best of them becomes the artifact."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.training.test_resume import At, train

from oblik.errors import JobCancelled
from oblik.training.artifact import CURVES, WEIGHTS, TrainingLog, read_artifact
from oblik.training.judge import Judgement
from oblik.training.trainer import TrainRequest

Ask = Callable[..., TrainRequest]
Weights = dict[str, torch.Tensor]
PROBED = {"sample_every": 3, "probe_images": 2, "validate_every": 100}


@pytest.fixture(scope="module")
def until_six(tmp_path_factory: pytest.TempPathFactory, tiny_ask: Ask) -> Weights:
    """The weights after step 6: of a run that ends there, its learning rate being constant."""
    return load_file(train(tiny_ask(tmp_path_factory.mktemp("six"), steps=3)) / WEIGHTS)


class Scripted:
    """Likeness by step; steps that are not in the table do not pass."""

    def __init__(self, table: dict[int, float]) -> None:
        self.table, self.asked = table, list[int]()

    def __call__(self, step: int, probes: Path) -> Judgement:
        self.asked.append(step)
        for name in ("with", "without"):
            pictures = sorted(file.name for file in (probes / name).iterdir())
            assert pictures == ["00.png", "01.png"]
        low = self.table.get(step, 0.9)
        return Judgement(
            step=step, likeness=low + 0.1, low=low, high=low + 0.2, without=0.0, copied=0.0, allowed_copy=0.1,
            misses=0, passes=step in self.table,
        )  # fmt: skip


def test_the_best_that_passes_becomes_the_artifact(tmp_path: Path, tiny_ask: Ask, until_six: Weights) -> None:
    judge = Scripted({6: 0.5, 9: 0.4})
    best = train(tiny_ask(tmp_path / "v001", judge=judge, **PROBED))
    assert judge.asked == [6, 9]
    assert (read_artifact(best).chosen_step, read_artifact(best).passed) == (6, True)
    weights = load_file(best / WEIGHTS)
    assert all(torch.equal(weights[key], until_six[key]) for key in until_six)
    log = TrainingLog.model_validate_json((best / CURVES).read_text())
    assert [judgement.step for judgement in log.judgements] == [6, 9]
    assert log.samples[6] == "probes/step_00006/grid.png"
    with Image.open(best / log.samples[6]) as sheet:
        assert sheet.width > sheet.height / 2


def test_when_none_passes_the_last_weights_are_kept(tmp_path: Path, tiny_ask: Ask) -> None:
    judged = train(tiny_ask(tmp_path / "v001", judge=Scripted({}), **PROBED))
    plain = train(tiny_ask(tmp_path / "v002"))
    assert (read_artifact(judged).chosen_step, read_artifact(judged).passed) == (None, False)
    assert read_artifact(plain).passed is None
    one, other = load_file(judged / WEIGHTS), load_file(plain / WEIGHTS)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_stopped_run_remembers_its_best(tmp_path: Path, tiny_ask: Ask, until_six: Weights) -> None:
    out, judge = tmp_path / "v001", Scripted({6: 0.5, 9: 0.4})
    with pytest.raises(JobCancelled):
        train(tiny_ask(out, judge=judge, **PROBED), At(7, lambda: signal.raise_signal(signal.SIGINT)))
    later = Scripted(judge.table)
    train(tiny_ask(out, judge=later, resume=True, **PROBED))
    assert (judge.asked, later.asked) == ([6], [9])
    assert read_artifact(out).chosen_step == 6
    weights = load_file(out / WEIGHTS)
    assert all(torch.equal(weights[key], until_six[key]) for key in until_six)
