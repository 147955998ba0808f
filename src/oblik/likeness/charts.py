"""Two pictures: how scores are spread, and what each threshold costs.

In: a `LikenessReport`, impostor scores, ROC curves. Out: PNG bytes. matplotlib is imported when a
picture is drawn; the same input gives the same bytes.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from oblik.likeness.findings import LikenessReport
from oblik.likeness.intervals import Rate, rate
from oblik.likeness.pairs import Scores_N
from oblik.likeness.roc import Roc

IMPOSTOR, GENUINE, STRESS, GENERATED, BARE = "#9aa5b1", "#2f7d5b", "#74a892", "#d9772b", "#6b5b95"
THRESHOLD = "#b3261e"
INK, SOFT, PAPER, GRID = "#1f2933", "#616e7c", "#ffffff", "#e4e7eb"
DPI = 150
MARGINS = {"left": 0.19, "right": 0.97, "top": 0.82, "bottom": 0.11}


def draw_scores(report: LikenessReport, impostor_S: Scores_N) -> bytes:
    """Impostors as a histogram; below it, one row of dots each for photos, pictures, and no token."""
    figure = canvas(8.0, 5.2)
    spread, rows = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2], "hspace": 0.06, **MARGINS}
    )
    title(figure, f"Likeness of {report.persona}", report.sentence)
    spread.hist(
        impostor_S, bins=bins(impostor_S), density=True, color=IMPOSTOR, edgecolor=PAPER, linewidth=0.4
    )
    people = f"{len(impostor_S):,} scores of\n{report.calibration.impostor_identities:,} other people"
    spread.text(0.99, 0.94, people, color=SOFT, transform=spread.transAxes, va="top", ha="right", fontsize=9)
    spread.set_ylabel("density")
    for axis in (spread, rows):
        _threshold(axis, report)
        plain(axis)
    spread.text(
        report.calibration.threshold,
        1.015,
        f"threshold {report.calibration.threshold:.2f} "
        f"[{report.calibration.threshold_low:.2f}, {report.calibration.threshold_high:.2f}]",
        transform=spread.get_xaxis_transform(),
        color=THRESHOLD,
        ha="center",
        fontsize=9,
    )
    spread.tick_params(labelbottom=False, bottom=False)
    _dots(rows, report)
    rows.set_xlabel("cosine to the centroid of the held-out photos")
    rows.set_xlim(min(-0.3, float(impostor_S.min())) - 0.03, 1.03)
    return png(figure)


def draw_roc(report: LikenessReport, genuine: Roc | None, generated: Roc, said: str | None = None) -> bytes:
    """TPR against FMR on a logarithmic axis, with the operating point; ``said`` stands below the title."""
    figure = canvas(6.4, 5.2)
    axis = figure.subplots(1, 1, gridspec_kw={**MARGINS, "left": 0.12, "right": 0.96})
    fmr = report.calibration.fmr
    title(figure, f"ROC of {report.persona}", said or _operating_point(report))
    floor = 0.5 / max(generated.impostors, 1)
    drawn = [(generated, GENERATED, "generated pictures", report.recognised)]
    if genuine is not None:
        drawn.insert(0, (genuine, GENUINE, "own photos, held out and stress", _own(report)))
    for beside, (curve, colour, label, share) in zip((1.06, 1 / 1.06), drawn, strict=False):
        x, y = np.maximum(curve.fmr, floor), np.array(curve.tpr)
        text = f"{label}: {curve.genuine}, AUC {curve.auc:.3f}"
        axis.step(x, y, where="post", color=colour, linewidth=2, label=text)
        error = [[share.value - share.low], [share.high - share.value]]
        point = {"color": colour, "markersize": 7, "markeredgecolor": PAPER, "capsize": 3, "linewidth": 1.2}
        axis.errorbar(fmr * beside, share.value, yerr=error, fmt="o", zorder=5, **point)
    guess = np.geomspace(floor, 1, 100)
    axis.plot(guess, guess, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), label="guessing", zorder=1)
    axis.axvline(fmr, color=THRESHOLD, linewidth=1.2, zorder=1)
    axis.text(fmr, 1.045, f"FMR {100 * fmr:g} %", color=THRESHOLD, fontsize=9, ha="center")
    axis.set(xscale="log", xlim=(floor, 1), ylim=(-0.02, 1.03))
    axis.set_xlabel("false match rate (other people taken for the person)")
    axis.set_ylabel("true positive rate (the person recognised)")
    axis.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g} %")
    axis.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    axis.grid(color=GRID, linewidth=0.6)
    axis.legend(loc="lower right", frameon=True, facecolor=PAPER, edgecolor=GRID, fontsize=8.5)
    plain(axis)
    return png(figure)


def _dots(axis: Any, report: LikenessReport) -> None:
    made, bare = ([s.centroid for s in side] for side in (report.scores, report.without_token))
    rows = [
        ("held-out photos", report.genuine_scores, GENUINE),
        ("stress photos", report.stress_scores, STRESS),
        ("generated", [score for score in made if score is not None], GENERATED),
        ("without the token", [score for score in bare if score is not None], BARE),
    ]
    shown = [row for row in rows if row[1]]
    for height, (_, values, colour) in enumerate(reversed(shown)):
        wiggle = ((np.arange(len(values)) * 0.6180339887) % 1.0 - 0.5) * 0.36
        axis.scatter(
            values, height + wiggle, s=34, color=colour, alpha=0.75, edgecolor=PAPER, linewidth=0.6, zorder=3
        )
        axis.plot(
            [np.median(values)] * 2, [height - 0.3, height + 0.3], color=colour, linewidth=2.4, zorder=4
        )
    axis.set_yticks(range(len(shown)), [f"{label} ({len(values)})" for label, values, _ in reversed(shown)])
    for tick, (_, _, colour) in zip(axis.get_yticklabels(), reversed(shown), strict=True):
        tick.set_color(colour)
    axis.set_ylim(-0.6, max(len(shown), 1) - 0.4)
    axis.tick_params(left=False)


def _threshold(axis: Any, report: LikenessReport) -> None:
    calibration = report.calibration
    axis.axvspan(
        calibration.threshold_low, calibration.threshold_high, color=THRESHOLD, alpha=0.13, linewidth=0
    )
    axis.axvline(calibration.threshold, color=THRESHOLD, linewidth=1.4)


def _own(report: LikenessReport) -> Rate:
    """Held-out and stress photos together at the threshold."""
    shares = [share for share in (report.genuine, report.stress) if share is not None]
    return rate(sum(share.successes for share in shares), sum(share.trials for share in shares))


def _operating_point(report: LikenessReport) -> str:
    share = report.recognised
    return (
        f"at threshold {report.calibration.threshold:.2f}: {share.successes} of {share.trials} pictures "
        f"recognised (at least {100 * share.low:.0f} % with 95 % confidence)"
    )


def bins(scores_S: Scores_N) -> Any:
    """Sixty equal bins over all scores, as their 61 edges."""
    return np.linspace(float(scores_S.min()) - 0.01, float(scores_S.max()) + 0.01, 61)


def canvas(width_in: float, height_in: float) -> Any:
    """An empty figure that no window belongs to."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def title(figure: Any, text: str, subtitle: str) -> None:
    """What the picture shows, and what it says."""
    figure.text(0.03, 0.945, text, color=INK, fontsize=15, fontweight="bold")
    figure.text(0.03, 0.895, subtitle, color=SOFT, fontsize=9.5)


def plain(axis: Any) -> None:
    """Two quiet axes, no box."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(GRID)
    axis.tick_params(colors=SOFT, labelsize=9)
    axis.xaxis.label.set(color=INK, size=9.5)
    axis.yaxis.label.set(color=INK, size=9.5)
    axis.set_axisbelow(True)


def png(figure: Any) -> bytes:
    """The figure as a file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()
