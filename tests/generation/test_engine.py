"""Broken pictures are thrown away; engines are found by name."""

from __future__ import annotations

import numpy as np
import pytest

from oblik.errors import BackendError, NotFound
from oblik.generation.engine import flaw, open_engine, picture_name, refuse_flawed

RNG = np.random.default_rng(0)
FINE = RNG.random((8, 8, 3))


def test_a_picture_is_fine() -> None:
    assert flaw(FINE) is None


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.where(FINE > 0.9, np.nan, FINE), "not numbers"),
        (np.zeros((8, 8, 3)), "black"),
        (np.full((8, 8, 3), 0.01), "black"),
        (np.full((8, 8, 3), (0.7, 0.5, 0.5)), "flat"),
    ],
)
def test_broken_pictures_are_named(picture: np.ndarray, words: str) -> None:
    assert words in str(flaw(picture))


def test_what_was_thrown_away_is_raised_at_the_end_with_what_is_kept() -> None:
    refuse_flawed({}, 3)
    with pytest.raises(
        BackendError, match=r"^the picture of seed 7 thrown away: it is black; 2 others"
    ) as one:
        refuse_flawed({7: "it is black"}, 2)
    assert "float32" in one.value.hint
    with pytest.raises(BackendError, match=r"^the pictures of seeds 7, 9 thrown away: it is black$") as two:
        refuse_flawed({7: "it is black", 9: "it is black"}, 0, "sage")
    assert two.value.hint.endswith("--attention native")


def test_names_sort_in_the_order_of_the_batch() -> None:
    assert [picture_name(place, seed) for place, seed in ((2, 9), (10, 1))] == [
        "02-seed9.png",
        "10-seed1.png",
    ]


def test_an_unknown_engine_is_not_found() -> None:
    with pytest.raises(NotFound, match="no engine is called"):
        open_engine("oil")
