"""The chart of the choice: its words follow the numbers, its labels never lie on each other."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from oblik.likeness import choice_chart
from oblik.likeness.charts import canvas
from oblik.likeness.choice_chart import draw_choice
from oblik.training.judge import Judgement, best


def judgements(*without: float) -> list[Judgement]:
    return [
        Judgement(
            step=50 * place, likeness=0.3 + 0.05 * place, low=0.2 + 0.05 * place, high=0.4 + 0.05 * place,
            without=value, copied=0.5 * (value > 0.6), allowed_copy=0.25, misses=0, passes=value < 0.4,
            threshold=0.4,
        )
        for place, value in enumerate(without, start=1)
    ]  # fmt: skip


LOSSES = [(step, 1 / step) for step in range(1, 201)]


def texts(thing: Any) -> list[str]:
    return [text.get_text() for text in thing.texts]


def test_the_title_names_the_step_that_is_chosen() -> None:
    found = judgements(0.1, 0.2, 0.45, 0.7)
    title, subtitle = choice_chart._words(found, best(found))
    assert title == "Step 100 is chosen by likeness"
    assert subtitle == (
        "likeness 0.40 [0.30, 0.50]; threshold 0.40; without the token 0.20; 2 of 4 checkpoints fail a guard"
    )
    assert choice_chart._words(found[2:], None)[0] == "No step is chosen"


def test_what_a_checkpoint_fails_stands_above_the_panel() -> None:
    axis = canvas(6, 4).subplots(1, 1)
    choice_chart._failures(axis, judgements(0.1, 0.45, 0.7))
    assert texts(axis) == ["✕ bleeds at 100, 150; copies at 150"]
    axis = canvas(6, 4).subplots(1, 1)
    choice_chart._failures(axis, judgements(*[0.5] * 7))
    assert texts(axis) == ["✕ bleeds at 7 checkpoints, first 50"]


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5], [0.99, 1.0, 1.0], [0.0, 0.0, 0.01], [0.2, 0.9, 0.21]])
def test_labels_beside_a_panel_are_moved_apart(values: list[float]) -> None:
    figure: Figure = canvas(9, 7)
    axis = figure.subplots(3, 1)[0]
    axis.set_ylim(0, 1)
    choice_chart._beside(axis, [(value, str(value), "black") for value in values])
    heights = sorted(text.get_position()[1] for text in axis.texts)
    assert all(above - below > 0.07 for below, above in itertools.pairwise(heights))
    assert heights[-1] <= 1
    assert heights[0] > -0.01


def test_the_same_numbers_give_the_same_bytes() -> None:
    found = judgements(0.1, 0.2, 0.5)
    first = draw_choice(found, best(found), LOSSES, [(50, 0.2), (100, 0.1)])
    assert first == draw_choice(list(reversed(found)), best(found), LOSSES, [(50, 0.2), (100, 0.1)])
    with Image.open(io.BytesIO(first)) as image:
        assert min(image.size) > 800
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_that_was_hardly_judged_can_be_drawn(count: int) -> None:
    found = judgements(0.1)[:count]
    assert draw_choice(found, best(found), LOSSES[:3]) != draw_choice(found, best(found), [])
