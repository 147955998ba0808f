"""Charts of the report page as SVG that takes its colours from the page.

In: numbers. Out: strings of SVG, drawn with the page's CSS classes (``.area .line .rule .dot``...),
so that they follow light and dark. Knows nothing of personas; texts come in as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Scores_N = NDArray[np.float64]
WIDTH, HEIGHT = 1000, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 34, 40


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start_px + share * (self.end_px - self.start_px), 2)


@dataclass(frozen=True)
class Marks:
    """One group of scores drawn as marks on a line of their own; ``kind`` is the CSS class."""

    label: str
    kind: str
    values: tuple[float, ...]


def score_strip(
    impostors_N: Scores_N, rows: Sequence[Marks], threshold: float, band: tuple[float, float]
) -> str:
    """Other people's scores as an area; below it one row of marks for each group; the threshold across."""
    row_px, area_px = 40, 150
    height = TOP + area_px + row_px * len(rows) + BOTTOM
    everything = [*impostors_N.tolist(), *(value for row in rows for value in row.values)]
    low = math.floor(min(-0.4, *everything) * 5) / 5
    x = Scale(low, 1.0, LEFT + 132, WIDTH - RIGHT)
    parts = [_ticks_x(x, _steps(low, 1.0, 0.2), TOP, height - BOTTOM, "{:.1f}")]
    parts.append(_band(x, band, TOP, height - BOTTOM))
    parts.append(_impostor_area(impostors_N, x, TOP, TOP + area_px))
    parts.append(_side_label("other people", TOP + area_px - 14))
    for place, row in enumerate(rows):
        middle = TOP + area_px + row_px * place + row_px / 2 + 4
        parts.append(_side_label(row.label, middle + 4))
        parts.append(f'<line class="grid" x1="{x.start_px}" x2="{x.end_px}" y1="{middle}" y2="{middle}"/>')
        parts += [
            f'<circle class="dot {row.kind}" cx="{x(value)}" cy="{middle}" r="6.5"/>' for value in row.values
        ]
    parts.append(_threshold(x, threshold, TOP, height - BOTTOM))
    return _svg(WIDTH, height, parts, "Scores of other people, of the sitter's photos and of the portraits")


def roc_chart(groups: Sequence[Scores_N], impostors_N: Scores_N, threshold: float, fmr: float) -> str:
    """True match rate of one or two groups over false match rate (log scale), with the working point."""
    width, height = 480, 330
    x = Scale(math.log10(0.001), 0.0, LEFT, width - RIGHT)
    y = Scale(0.0, 1.0, height - BOTTOM, TOP)
    cuts = np.quantile(impostors_N, 1 - np.logspace(-3, 0, 200))
    parts = [_ticks_x(x, (-3, -2, -1, 0), TOP, height - BOTTOM, "", ("0.1 %", "1 %", "10 %", "100 %"))]
    parts.append(_ticks_y(y, (0, 0.25, 0.5, 0.75, 1), LEFT, width - RIGHT, ("0", "25", "50", "75", "100 %")))
    at = x(math.log10(fmr))
    parts.append(f'<line class="rule" x1="{at}" x2="{at}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    for scores_N, second in zip(groups, (" second", ""), strict=False):
        curve = [
            (x(math.log10(max(0.001, _share(impostors_N, cut)))), y(_share(scores_N, cut))) for cut in cuts
        ]
        here = y(_share(scores_N, threshold))
        parts.append(f'<polyline class="line{second}" points="{_points(curve)}"/>')
        parts.append(f'<circle class="dot{second}" cx="{at}" cy="{here}" r="6"/>')
    return _svg(width, height, parts, "Share accepted against share of strangers let through")


def loss_chart(steps: Sequence[int], losses: Sequence[float], checks: Sequence[tuple[int, float]]) -> str:
    """Training loss, smoothed over the raw trace, and the validation loss where it was measured."""
    width, height = WIDTH, 260
    smooth = _smoothed(losses, max(1, len(losses) // 40))
    shown = [*smooth, *(value for _, value in checks)]
    low, high = _padded(min(shown), max(shown))
    x = Scale(min(steps), max(*steps, min(steps) + 1), LEFT, width - RIGHT)
    y = Scale(low, high, height - BOTTOM, TOP)
    held = [min(high, max(low, value)) for value in losses]
    parts = [_ticks_x(x, _nice(x.high), TOP, height - BOTTOM, "{:.0f}")]
    ticks = tuple(low + (high - low) * share for share in (0, 0.5, 1))
    parts.append(_ticks_y(y, ticks, LEFT, width - RIGHT, tuple(f"{tick:.2f}" for tick in ticks)))
    parts.append(f'<polyline class="line faint" points="{_points(_xy(steps, held, x, y))}"/>')
    parts.append(f'<polyline class="line" points="{_points(_xy(steps, smooth, x, y))}"/>')
    if checks:
        at, values = zip(*checks, strict=True)
        parts.append(f'<polyline class="line second" points="{_points(_xy(at, values, x, y))}"/>')
    return _svg(width, height, parts, "Loss over training steps")


def day_strip(rows: Sequence[Marks], thresholds: Sequence[float | None]) -> str:
    """One row of marks for each person, each with a threshold of its own where there is one."""
    row_px = 46
    height = TOP + row_px * len(rows) + BOTTOM
    values = [value for row in rows for value in row.values]
    low = math.floor(min(0.0, *values, 0.0) * 5) / 5
    x = Scale(low, 1.0, LEFT + 132, WIDTH - RIGHT)
    parts = [_ticks_x(x, _steps(low, 1.0, 0.2), TOP, height - BOTTOM, "{:.1f}")]
    for place, (row, threshold) in enumerate(zip(rows, thresholds, strict=True)):
        middle = TOP + row_px * (place + 0.5)
        parts.append(_side_label(row.label, middle + 4))
        if threshold is not None:
            at, top, bottom = x(threshold), middle - row_px / 2 + 4, middle + row_px / 2 - 4
            parts.append(f'<line class="rule" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        parts += [
            f'<circle class="dot {row.kind}" cx="{x(value)}" cy="{middle}" r="6.5"/>' for value in row.values
        ]
    return _svg(WIDTH, height, parts, "Likeness of the day's pictures, a row for each person")


def climb_chart(likeness: Sequence[float], names: Sequence[str], threshold: float | None) -> str:
    """Mean likeness of the first pictures and after each rung, beside the threshold."""
    width, height = 480, 210
    shown = [*likeness, *([threshold] if threshold is not None else [])]
    low, high = (math.floor(min(shown) * 10 - 0.5) / 10, math.ceil(max(shown) * 10 + 0.5) / 10)
    x = Scale(-0.4, len(likeness) - 0.6 + 0.2, LEFT, width - RIGHT)
    y = Scale(low, high, height - BOTTOM, TOP)
    ticks = (low, (low + high) / 2, high)
    parts = [_ticks_y(y, ticks, LEFT, width - RIGHT, tuple(f"{tick:.2f}" for tick in ticks))]
    if threshold is not None:
        at = y(threshold)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{width - RIGHT}" y1="{at}" y2="{at}"/>')
        key = f"threshold {threshold:.2f}"
        parts.append(f'<text class="key" x="{width - RIGHT}" y="{at - 7}" text-anchor="end">{key}</text>')
    points = [(x(place), y(value)) for place, value in enumerate(likeness)]
    parts.append(f'<polyline class="line" points="{_points(points)}"/>')
    for (across, down), name, value in zip(points, names, likeness, strict=True):
        parts.append(f'<circle class="dot" cx="{across}" cy="{down}" r="6"/>')
        parts.append(
            f'<text class="label" x="{across}" y="{down + 22}" text-anchor="middle">{value:.2f}</text>'
            f'<text class="tick" x="{across}" y="{height - 12}" text-anchor="middle">{escape(name)}</text>'
        )
    return _svg(width, height, parts, "Mean likeness before the first rung and after each")


def trend_chart(names: Sequence[str], counts: Sequence[int], means: Sequence[float | None]) -> str:
    """Pictures of each day as bars, and above them the mean likeness where one was measured."""
    height = 280
    known = [mean for mean in means if mean is not None]
    x = Scale(-0.5, len(names) - 0.5, LEFT, WIDTH - RIGHT)
    y = Scale(min(0.0, *known, 0.0), 1.0, height - BOTTOM, TOP)
    bars = Scale(0, max(1, *counts), y(y.low), TOP + (height - BOTTOM - TOP) * 0.6)
    parts = [_ticks_y(y, (0, 0.5, 1), LEFT, WIDTH - RIGHT, ("0", "0.5", "1"))]
    for place, (name, count) in enumerate(zip(names, counts, strict=True)):
        left, top, width_px = x(place - 0.34), bars(count), x(place + 0.34) - x(place - 0.34)
        size = f'width="{width_px:.2f}" height="{bars(0) - top:.2f}"'
        parts.append(f'<rect class="area" x="{left}" y="{top}" {size}/>')
        parts.append(
            f'<text class="tick" x="{x(place)}" y="{height - BOTTOM + 22}" text-anchor="middle">{name}</text>'
        )
        if count:
            parts.append(
                f'<text class="tick" x="{x(place)}" y="{top - 6}" text-anchor="middle">{count}</text>'
            )
    points = [(x(place), y(mean)) for place, mean in enumerate(means) if mean is not None]
    parts.append(f'<polyline class="line" points="{_points(points)}"/>')
    parts += [f'<circle class="dot" cx="{at:.1f}" cy="{top:.1f}" r="5"/>' for at, top in points]
    return _svg(WIDTH, height, parts, "Pictures and mean likeness, day by day")


def _impostor_area(scores_N: Scores_N, x: Scale, top_px: float, bottom_px: float) -> str:
    counts, edges = np.histogram(scores_N, bins=60, range=(x.low, x.high))
    y = Scale(0, max(1, int(counts.max())), bottom_px, top_px + 10)
    outline = [(x(x.low), bottom_px)]
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        outline += [(x(float(left)), y(int(count))), (x(float(right)), y(int(count)))]
    outline.append((x(x.high), bottom_px))
    return f'<polygon class="area" points="{_points(outline)}"/>'


def _threshold(x: Scale, threshold: float, top_px: float, bottom_px: float) -> str:
    at = x(threshold)
    return (
        f'<line class="rule" x1="{at}" x2="{at}" y1="{top_px - 8}" y2="{bottom_px}"/>'
        f'<text class="key" x="{at}" y="{top_px - 16}" text-anchor="middle">threshold {threshold:.2f}</text>'
    )


def _band(x: Scale, band: tuple[float, float], top_px: float, bottom_px: float) -> str:
    left, width = x(band[0]), x(band[1]) - x(band[0])
    return f'<rect class="band" x="{left}" y="{top_px}" width="{width:.2f}" height="{bottom_px - top_px}"/>'


def _side_label(text: str, y_px: float) -> str:
    return f'<text class="label" x="0" y="{y_px}">{escape(text)}</text>'


def _ticks_x(
    x: Scale, at: Sequence[float], top_px: float, bottom_px: float, form: str, names: Sequence[str] = ()
) -> str:
    parts = []
    for place, value in enumerate(at):
        name = names[place] if names else form.format(value + 0.0)
        parts.append(f'<line class="grid" x1="{x(value)}" x2="{x(value)}" y1="{top_px}" y2="{bottom_px}"/>')
        parts.append(
            f'<text class="tick" x="{x(value)}" y="{bottom_px + 22}" text-anchor="middle">{name}</text>'
        )
    return "".join(parts)


def _ticks_y(y: Scale, at: Sequence[float], left_px: float, right_px: float, names: Sequence[str]) -> str:
    parts = []
    for value, name in zip(at, names, strict=True):
        parts.append(f'<line class="grid" x1="{left_px}" x2="{right_px}" y1="{y(value)}" y2="{y(value)}"/>')
        parts.append(
            f'<text class="tick" x="{left_px - 8}" y="{y(value) + 4}" text-anchor="end">{name}</text>'
        )
    return "".join(parts)


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _share(scores_N: Scores_N, cut: float) -> float:
    return float((scores_N >= cut).mean()) if scores_N.size else 0.0


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _xy(steps: Sequence[int], values: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    return [(x(step), y(value)) for step, value in zip(steps, values, strict=True)]


def _smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Mean over ``reach`` neighbours on either side, fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    index = np.arange(len(values))
    low, high = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    smoothed: list[float] = ((total[high] - total[low]) / (high - low)).tolist()
    return smoothed


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = max((high - low) * 0.15, 0.01)
    return max(0.0, low - margin), high + margin


def _steps(low: float, high: float, step: float) -> list[float]:
    return [round(low + step * place, 6) for place in range(round((high - low) / step) + 1)]


def _nice(highest: float) -> list[float]:
    """Round step numbers from 0, about five of them."""
    rough = max(highest / 5, 1)
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [step * place for place in range(int(highest // step) + 1) if step * place >= 1] or [highest]
