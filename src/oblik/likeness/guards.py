"""Two ways a good likeness can be bad: bleed and copying.

In: scores of pictures, the persona's own embeddings. Out: `Bleed`, `Copy`. Knows no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from oblik.likeness.intervals import (
    Interval,
    bootstrap_difference,
    largest_by_chance,
    mean_interval,
    one_more,
)
from oblik.likeness.pairs import References, Score, leave_one_out, nearest_scores

FEWEST_HELDOUT = 3
ONE_IN_TWENTY = 0.05


class Bleed(BaseModel):
    """Pictures made *without* the token: they must not look like the persona.

    ``above`` counts those at or over the threshold, of which ``by_chance`` (FMR times images) are to be
    expected. Misses are counted apart and lower nothing. ``passed`` is that none is above. A single one can
    be chance where prompts carry the person's hair, skin and age; ``mean`` is what all of them say together.
    """

    model_config = ConfigDict(extra="forbid")

    images: int
    misses: int
    median: float | None
    mean: float | None = None
    highest: float | None
    above: int
    by_chance: float
    passed: bool


class Copy(BaseModel):
    """Closeness to single training photos beyond what an honest new photo of the person shows.

    ``gap`` of a picture: cosine to its nearest training photo minus cosine to its nearest held-out
    photo; there are more training photos, so it is above 0 even for an honest one. ``genuine_gap`` is
    the mean gap of held-out photos, each against the others, and ``bound`` the largest gap to expect of
    one more such photo (one-sided 95 % prediction bound, normal model). A suspect has a gap beyond it and
    is closer to a training photo than held-out photos are on average (``genuine_nearest``): far from all
    photos, a gap is noise. ``passed`` is that there are no more suspects than one in twenty gives by chance.
    """

    model_config = ConfigDict(extra="forbid")

    gap: Interval
    genuine_gap: float
    genuine_nearest: float
    excess: Interval
    bound: float
    suspects: list[str]
    allowed: int
    passed: bool


def measure_bleed(without_token: Sequence[Score], threshold: float, fmr: float) -> Bleed | None:
    """Bleed of pictures made without the token, or None when there are none."""
    if not without_token:
        return None
    found = [s.centroid for s in without_token if s.centroid is not None]
    above = sum(score >= threshold for score in found)
    return Bleed(
        images=len(without_token),
        misses=len(without_token) - len(found),
        median=float(np.median(found)) if found else None,
        mean=float(np.mean(found)) if found else None,
        highest=max(found, default=None),
        above=above,
        by_chance=fmr * len(without_token),
        passed=above == 0,
    )


def bleed_words(bleed: Bleed | None) -> str:
    """What is said of bleed beside a likeness: that it was not measured, too."""
    if bleed is None:
        return "bleed not measured"
    return "no face without the token" if bleed.median is None else f"without the token {bleed.median:.2f}"


def copy_words(copying: Copy | None, faces: int) -> str:
    """What is said of copying beside the likeness of pictures with so many ``faces``."""
    if copying is None:
        return "copies not measured"
    if not copying.suspects:
        return "no copies"
    chance = ", no more than chance gives" if copying.passed else ""
    return f"{len(copying.suspects)} of {faces} too close to one training photo{chance}"


def measure_copying(
    scores: Sequence[Score], names: Sequence[str], references: References, rng: np.random.Generator
) -> Copy | None:
    """The copy guard, or None with fewer than 3 held-out photos, no training photo or no face."""
    heldout_ND, train_ND = references.heldout_ND, references.train_ND
    found = [(name, s.embedding) for name, s in zip(names, scores, strict=True) if s.embedding is not None]
    if len(heldout_ND) < FEWEST_HELDOUT or not len(train_ND) or not found:
        return None
    pictures_ND = np.stack([embedding for _, embedding in found])
    nearest_N, honest_N = nearest_scores(pictures_ND, train_ND), nearest_scores(heldout_ND, train_ND)
    gaps_N = nearest_N - nearest_scores(pictures_ND, heldout_ND)
    genuine_N = honest_N - leave_one_out(heldout_ND)[1]
    bound, usual = one_more(genuine_N), float(honest_N.mean())
    close_N = (gaps_N > bound) & (nearest_N > usual)
    suspects = [name for (name, _), close in zip(found, close_N, strict=True) if close]
    allowed = largest_by_chance(len(found), ONE_IN_TWENTY)
    return Copy(
        gap=mean_interval(gaps_N, rng),
        genuine_gap=float(genuine_N.mean()),
        genuine_nearest=usual,
        excess=bootstrap_difference(gaps_N, genuine_N, rng),
        bound=bound,
        suspects=suspects,
        allowed=allowed,
        passed=len(suspects) <= allowed,
    )
