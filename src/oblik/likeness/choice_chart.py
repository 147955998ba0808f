"""One picture of why a checkpoint was chosen: likeness, bleed, copies and loss over the steps.

In: judgements, the chosen one, losses. Out: PNG bytes; the same input gives the same bytes. Knows nothing of
how they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oblik.likeness.charts import (
    BARE,
    GENERATED,
    GENUINE,
    GRID,
    INK,
    PAPER,
    SOFT,
    THRESHOLD,
    canvas,
    plain,
    png,
    title,
)
from oblik.training.judge import Judgement

Losses = Sequence[tuple[int, float]]
COPIED = "#3f6fb5"
CHOSEN = "#fdf1e4"
PANELS = {
    "height_ratios": [3.4, 1.1, 1.5],
    "hspace": 0.16,
    "left": 0.09,
    "right": 0.81,
    "top": 0.85,
    "bottom": 0.085,
}
LINE_APART = 0.075
"""How far apart two labels beside a panel stand at least, in heights of the panel."""
MOST_NAMED = 4
SHOWN_SPREAD = 2.5
"""Losses are shown up to so many times their median: the first steps would flatten the rest."""


def draw_choice(
    judgements: Sequence[Judgement], chosen: Judgement | None, losses: Losses, held_out: Losses = ()
) -> bytes:
    """Three panels over the steps: cosines with the threshold, copied pictures, loss.

    The chosen step is marked through all of them; a checkpoint that fails a guard is crossed out and says
    which. Without judgements the panels are empty, but the loss is drawn.
    """
    ordered = sorted(judgements, key=lambda judgement: judgement.step)
    figure = canvas(9.0, 7.0)
    alike, copied, loss = figure.subplots(3, 1, sharex=True, gridspec_kw=PANELS)
    title(figure, *_words(ordered, chosen))
    _alike(alike, ordered, chosen)
    _copied(copied, ordered)
    _loss(loss, losses, held_out)
    for axis in (alike, copied, loss):
        plain(axis)
        axis.grid(axis="y", color=GRID, linewidth=0.6)
        if chosen is not None:
            axis.axvline(chosen.step, color=GENERATED, linewidth=9, alpha=0.14, zorder=0)
    steps = [judgement.step for judgement in ordered] + [step for step, _ in losses]
    last = max(steps, default=1)
    loss.set_xlim(min(min(steps, default=0), 0) - 0.015 * last, 1.015 * last)
    loss.set_xlabel("step")
    figure.align_ylabels([alike, copied, loss])
    return png(figure)


def _words(ordered: Sequence[Judgement], chosen: Judgement | None) -> tuple[str, str]:
    failed = sum(not judgement.passes for judgement in ordered)
    guards = (
        f"{failed} of {len(ordered)} checkpoints fail a guard"
        if failed
        else "all checkpoints pass both guards"
    )
    if chosen is None:
        return "No step is chosen", f"{failed} of {len(ordered)} checkpoints fail a guard"
    interval = f"{chosen.likeness:.2f} [{chosen.low:.2f}, {chosen.high:.2f}]"
    parts = [
        f"likeness {interval}",
        f"threshold {chosen.threshold:.2f}",
        f"without the token {chosen.without:.2f}",
    ]
    return f"Step {chosen.step} is chosen by likeness", "; ".join([*parts, guards])


def _alike(axis: Any, ordered: Sequence[Judgement], chosen: Judgement | None) -> None:
    """Likeness with its interval, and the probes without the token, against the threshold."""
    axis.set_ylabel("cosine to held-out photos")
    if not ordered:
        return
    steps, low, high = _columns(ordered, "step", "low", "high")
    (values, without) = _columns(ordered, "likeness", "without")
    threshold = ordered[-1].threshold
    axis.fill_between(steps, low, high, color=GENERATED, alpha=0.16, linewidth=0)
    axis.vlines(steps, low, high, color=GENERATED, alpha=0.45, linewidth=1.2)
    axis.plot(steps, values, color=GENERATED, linewidth=2)
    axis.plot(steps, without, color=BARE, linewidth=2)
    axis.axhline(threshold, color=THRESHOLD, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    for judgement in ordered:
        mark = {"marker": "o", "s": 38, "linewidth": 1.4, "zorder": 4}
        face = GENERATED if judgement.passes else PAPER
        axis.scatter(judgement.step, judgement.likeness, color=face, edgecolor=GENERATED, **mark)
        face = PAPER if judgement.bleeds else BARE
        axis.scatter(judgement.step, judgement.without, color=face, edgecolor=BARE, **mark)
        if not judgement.passes:
            axis.scatter(
                judgement.step, judgement.likeness, marker="x", s=95, color=INK, linewidth=1.6, zorder=5
            )
    bottom, top = min(0.0, *low, *without), max(1.0, *high)
    axis.set_ylim(bottom - 0.02, top + 0.02)
    beside = [(values[-1], "with the token, 95 %", GENERATED), (without[-1], "without the token", BARE)]
    _beside(axis, [*beside, (threshold, f"threshold {threshold:.2f}", THRESHOLD)])
    _failures(axis, ordered)
    if chosen is not None:
        ring = {"s": 210, "facecolor": "none", "edgecolor": GENERATED, "linewidth": 2.2, "zorder": 6}
        axis.scatter(chosen.step, chosen.likeness, **ring)
        late = chosen.step > 0.8 * ordered[-1].step
        side = {"ha": "right", "xytext": (-9, 0)} if late else {"ha": "left", "xytext": (9, 0)}
        axis.annotate(
            f"step {chosen.step}", (chosen.step, 0.95), xycoords=axis.get_xaxis_transform(),
            textcoords="offset points", color=GENERATED, fontsize=9.5, fontweight="bold", **side,
        )  # fmt: skip


def _failures(axis: Any, ordered: Sequence[Judgement]) -> None:
    """Above the panel: which checkpoints are crossed out, and why."""
    bled = _places("bleeds", [judgement.step for judgement in ordered if judgement.bleeds])
    copied = _places("copies", [judgement.step for judgement in ordered if judgement.copies])
    why = "; ".join(text for text in (bled, copied) if text)
    if why:
        axis.text(
            1, 1.02, f"✕ {why}", transform=axis.transAxes, color=INK, fontsize=9, ha="right", va="bottom"
        )


def _places(what: str, steps: Sequence[int]) -> str:
    if not steps:
        return ""
    if len(steps) > MOST_NAMED:
        return f"{what} at {len(steps)} checkpoints, first {steps[0]}"
    return f"{what} at {', '.join(map(str, steps))}"


def _copied(axis: Any, ordered: Sequence[Judgement]) -> None:
    """The share of pictures that repeat a training photo, and what chance allows."""
    axis.set_ylabel("copied")
    axis.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    if not ordered:
        return
    steps, shares, allowed = _columns(ordered, "step", "copied", "allowed_copy")
    axis.vlines(steps, 0, shares, color=COPIED, linewidth=2.2)
    for judgement in ordered:
        face = PAPER if judgement.copies else COPIED
        axis.scatter(
            judgement.step, judgement.copied, s=34, color=face, edgecolor=COPIED, linewidth=1.4, zorder=4
        )
    axis.plot(steps, allowed, color=THRESHOLD, linewidth=1.2, linestyle=(0, (5, 3)), marker="_")
    top = max(0.5, 1.25 * max(*shares, *allowed))
    axis.set_ylim(-0.06 * top, top)
    _beside(
        axis, [(shares[-1], "copied pictures", COPIED), (allowed[-1], "allowed by chance", THRESHOLD)], 0.2
    )


def _loss(axis: Any, losses: Losses, held_out: Losses) -> None:
    """Training loss, raw and smoothed, and that of held-out photos."""
    axis.set_ylabel("loss")
    if not losses:
        return
    steps, values = (np.array(column, float) for column in zip(*losses, strict=True))
    smooth = _smoothed(values, max(1, len(values) // 40))
    axis.plot(steps, values, color=SOFT, linewidth=0.6, alpha=0.35)
    axis.plot(steps, smooth, color=SOFT, linewidth=1.8)
    labels = [(float(smooth[-1]), "training", SOFT)]
    shown = [*smooth]
    if held_out:
        at, checked = zip(*held_out, strict=True)
        axis.plot(at, checked, color=GENUINE, linewidth=1.8, marker="o", markersize=3.5)
        labels.append((checked[-1], "held-out photos", GENUINE))
        shown += checked
    highest = min(max(shown), SHOWN_SPREAD * float(np.median(shown)))
    axis.set_ylim(0.9 * min(shown), 1.08 * highest)
    _beside(axis, labels, 0.16)


def _beside(axis: Any, labels: Sequence[tuple[float, str, str]], apart: float = LINE_APART) -> None:
    """Names at the right end of lines, moved apart where they would overlap."""
    low, high = axis.get_ylim()
    order = sorted(labels, key=lambda label: label[0])
    heights = [min(1.0, max(0.0, (value - low) / (high - low))) for value, _, _ in order]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + apart)
    over = max(0.0, heights[-1] - 1.0)
    for (_, text, colour), height in zip(order, heights, strict=True):
        axis.text(1.015, height - over, text, transform=axis.transAxes, color=colour, fontsize=9, va="center")


def _columns(ordered: Sequence[Judgement], *names: str) -> list[list[float]]:
    return [[float(getattr(judgement, name)) for judgement in ordered] for name in names]


def _smoothed(values_N: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean over ``reach`` neighbours on either side, fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values_N)])
    index = np.arange(len(values_N))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values_N))
    return np.asarray((total[high] - total[low]) / (high - low), np.float64)
