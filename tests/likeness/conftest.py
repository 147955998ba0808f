"""People as clouds of unit vectors: an identity is a direction, a photo is a noisy copy of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.likeness.pairs import Impostors, References, unit

Draw = Callable[..., NDArray[np.float32]]
DIMS = 64


@pytest.fixture
def draw() -> Draw:
    """``draw(seed, people, photos, noise)`` -> (people, photos, D); the same seed gives the same people."""

    def people_of(seed: int, people: int, photos: int, noise: float = 0.7) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        identity = rng.normal(size=(people, 1, DIMS))
        return unit(identity + noise * rng.normal(size=(people, photos, DIMS)))

    return people_of


@pytest.fixture
def impostors(draw: Draw) -> Impostors:
    """310 people with 10 photos each: just enough to claim."""
    photos = draw(1, 310, 10)
    return Impostors(photos.reshape(-1, DIMS), np.repeat(np.arange(310), 10), "clouds", "310 clouds")


@pytest.fixture
def references(draw: Draw) -> References:
    """One person: 6 held-out, 20 training and 12 stress photos."""
    photos = draw(2, 1, 38)[0]
    return References(photos[:6], photos[6:26], photos[26:], 0, "clouds")
