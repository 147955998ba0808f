"""Charts of the dataset report, drawn as inline SVG: no scripts, colours from the page.

In: counts, and the turn of each head. Out: SVG with a title that a screen reader reads. Knows nothing of
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LABEL, NUMBER, ROW = 340, 138, 30, 27
STRIP_WIDTH, STRIP_TOP, DOT = 1000, 30, 8.0
TURN_MOST = 90.0
MARKS = ("profile", "three-quarter", "frontal", "three-quarter", "profile")


def bars(counts: Mapping[str, int], total: int, wanted: Mapping[str, int] | None = None) -> str:
    """One bar for each word, in order; a dashed frame shows how many there should be."""
    wanted = wanted or {}
    most = max([*counts.values(), *wanted.values(), 1])
    room = WIDTH - LABEL - NUMBER
    rows = []
    for at, (word, count) in enumerate(counts.items()):
        y, want = at * ROW, wanted.get(word, 0)
        rows.append(f'<text x="0" y="{y + 17}">{escape(_short(word))}</text>')
        rows.append(_bar("track", LABEL, y + 8, room))
        if count:
            rows.append(_bar("bar", LABEL, y + 8, room * count / most))
        if want > count:
            rows.append(_bar("bar want", LABEL, y + 8, room * want / most))
        rows.append(f'<text class="faint" x="{WIDTH}" y="{y + 17}" text-anchor="end">{count}</text>')
    said = ", ".join(f"{word} {count}" for word, count in counts.items())
    return _svg(WIDTH, max(1, len(counts)) * ROW, f"of {total} photos: {said}", "".join(rows))


def turns(photos: Sequence[tuple[float, str]]) -> str:
    """A dot for every photo at the turn of its head, in degrees, in the colour of its split; stacked."""
    step = 2 * DOT + 2
    columns: dict[int, list[str]] = {}
    for degrees, split in sorted(photos):
        place = max(-TURN_MOST, min(TURN_MOST, degrees)) / TURN_MOST
        columns.setdefault(round((place + 1) / 2 * (STRIP_WIDTH - step) / step), []).append(split)
    tallest = max((len(column) for column in columns.values()), default=1)
    squeeze = min(step, 190 / tallest)
    floor = STRIP_TOP + tallest * squeeze
    dots = [
        f'<circle class="{escape(split)}" cx="{step / 2 + place * step:.1f}" '
        f'cy="{floor - DOT - height * squeeze:.1f}" r="{DOT:.0f}"/>'
        for place, column in sorted(columns.items())
        for height, split in enumerate(column)
    ]
    axis = [f'<line class="axis" x1="0" x2="{STRIP_WIDTH}" y1="{floor + 4:.1f}" y2="{floor + 4:.1f}"/>']
    title = f"the turn of the head in {len(photos)} photos, left to right"
    words = "".join(f"<span>{word}</span>" for word in MARKS)
    return _svg(STRIP_WIDTH, floor + 8, title, "".join(axis + dots)) + f"<div class=marks>{words}</div>"


def _bar(kind: str, x: float, y: float, width: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{max(width, 2):.1f}" height="11" rx="5.5"/>'


def _short(word: str) -> str:
    return word if len(word) <= 21 else word[:20] + "…"


def _svg(width: float, height: float, title: str, inside: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )
