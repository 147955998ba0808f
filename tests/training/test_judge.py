"""The choice among checkpoints: the lower end decides, and only among those that pass."""

from __future__ import annotations

import pytest

from oblik.training.judge import Judgement, best


def judgement(step: int, low: float, *, likeness: float | None = None, passes: bool = True) -> Judgement:
    return Judgement(
        step=step, likeness=low + 0.1 if likeness is None else likeness, low=low, high=low + 0.2, without=0.1,
        copied=0.0, allowed_copy=0.25, misses=0, passes=passes, threshold=0.4,
    )  # fmt: skip


def test_the_lower_end_decides_not_the_mean() -> None:
    lucky, steady = judgement(100, 0.30, likeness=0.80), judgement(200, 0.50, likeness=0.60)
    assert best([lucky, steady]) == steady


def test_a_checkpoint_that_fails_a_guard_is_never_chosen() -> None:
    alike = judgement(300, 0.9, passes=False)
    assert best([judgement(100, 0.2), alike]) == judgement(100, 0.2)
    assert best([alike]) is None
    assert best([]) is None


def test_of_two_equal_ones_the_earlier_is_kept_whatever_the_order() -> None:
    early, late = judgement(100, 0.5), judgement(200, 0.5)
    assert best([late, early]) == best([early, late]) == early


@pytest.mark.parametrize(
    ("without", "copied", "bleeds", "copies"),
    [(0.39, 0.25, False, False), (0.4, 0.25, True, False), (0.39, 0.26, False, True)],
)
def test_both_guards_can_be_read_off_the_numbers(
    without: float, copied: float, bleeds: bool, copies: bool
) -> None:
    found = judgement(1, 0.5).model_copy(update={"without": without, "copied": copied})
    assert (found.bleeds, found.copies) == (bleeds, copies)
