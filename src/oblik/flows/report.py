"""The report page of one whole flow: a single HTML file, readable without Oblik and without a network.

In: a `Story`. Out: HTML; the words stand in ``templates/story.html``. The same story gives the same
bytes: times come from the records, nothing is measured here. Knows nothing of how the stages work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from oblik import __version__
from oblik.datasets.manifest import Split, Status
from oblik.flows.charts import Marks, loss_chart, roc_chart, score_strip
from oblik.flows.judge import CHOICE
from oblik.flows.story import Shown, Story, shown_batch, shown_photo, shown_source
from oblik.images import data_uri
from oblik.likeness.findings import Verdict
from oblik.likeness.gate import MISS

TEMPLATES = Path(__file__).parent / "templates"
HEADLINES = {
    Verdict.recognised: "Recognised.",
    Verdict.borderline: "Recognised, narrowly.",
    Verdict.not_recognised: "Not recognised yet.",
}
NUMBERS = "No One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve".split()
FRAMES = 8


def tell(story: Story) -> str:
    """The page."""
    words = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    words.filters.update(duration=duration, percent=percent, count=count)
    return words.get_template("story.html").render(
        story=story,
        report=story.report,
        calibration=story.report.calibration,
        version=__version__,
        headline=HEADLINES[story.report.verdict],
        pair=_pair(story),
        splits={split.value: len(story.dataset.accepted(split)) for split in Split},
        photos=[shown_photo(story, photo) for photo in story.dataset.accepted()],
        aside=_aside(story),
        film=_film(story),
        choice=_choice(story),
        rows=[(batch, shown_batch(story, batch)) for batch in story.batches],
        **_charts(story),
    )


def summary(story: Story) -> str:
    """One line: likeness with its interval, threshold, verdict, bleed, and the time of training."""
    return f"{story.report.sentence}; LoRA trained in {duration(story.artifact.seconds)}"


def _pair(story: Story) -> tuple[Shown, Shown] | None:
    """A held-out photo, frontal if there is one, and the portrait in the middle of the ranking."""
    held = story.dataset.accepted(Split.validation) or story.dataset.accepted()
    shown = [entry for entry in shown_batch(story, story.batches[0]) if entry.score is not None]
    if not held or not shown:
        return None
    ranked = sorted(shown, key=lambda entry: entry.score or 0.0)
    frontal = next((photo for photo in held if photo.attributes.get("view", "").startswith("front")), held[0])
    return shown_photo(story, frontal), ranked[(len(ranked) - 1) // 2]


def _aside(story: Story) -> list[tuple[str, Shown]]:
    left = [photo for photo in story.dataset.photos if photo.status is not Status.accepted]
    return [(photo.reason, shown_source(story, photo)) for photo in left]


def _film(story: Story) -> list[Shown]:
    """At most `FRAMES` samples, the first and the last among them."""
    samples = [(step, story.artifact_dir / name) for step, name in sorted(story.log.samples.items())]
    samples = [(step, path) for step, path in samples if path.is_file()]
    if not samples:
        return []
    places = np.linspace(0, len(samples) - 1, min(FRAMES, len(samples))).round().astype(int)
    return [Shown(data_uri(samples[place][1]), f"step {samples[place][0]}") for place in places]


def _choice(story: Story) -> str:
    """The chart of the judged moments; empty when nobody judged."""
    chart = story.artifact_dir / CHOICE
    return data_uri(chart) if chart.is_file() else ""


def _charts(story: Story) -> dict[str, Any]:
    report, calibration, losses = story.report, story.report.calibration, story.log.losses
    groups = [
        Marks("held-out photos", "photo", tuple(report.genuine_scores)),
        Marks("hard photos", "hard", tuple(report.stress_scores)),
        *(Marks(batch.short, batch.kind, tuple(batch.likeness())) for batch in story.batches),
    ]
    band = (calibration.threshold_low, calibration.threshold_high)
    own_N = np.array(report.genuine_scores + report.stress_scores)
    made_N = np.array([MISS if score.centroid is None else score.centroid for score in report.scores])
    checks = [(point.step, point.validation) for point in losses if point.validation is not None]
    steps, trains = [point.step for point in losses], [point.train for point in losses]
    return {
        "strip": score_strip(story.impostors_N, groups, calibration.threshold, band),
        "roc": roc_chart((own_N, made_N), story.impostors_N, calibration.threshold, calibration.fmr),
        "loss": loss_chart(steps, trains, checks) if len(losses) > 1 else "",
        "has_validation": len(checks) > 1,
        "own_above": int((own_N >= calibration.threshold).sum()),
        "own_total": own_N.size,
    }


def duration(seconds: float) -> str:
    """94 s; 3.5 min."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def percent(share: float) -> str:
    """1 %."""
    return f"{share * 100:.3g} %"


def count(number: int, noun: str) -> str:
    """Eight portraits; 31 photos."""
    name = NUMBERS[number] if number < len(NUMBERS) else str(number)
    return f"{name} {noun}{'' if number == 1 else 's'}"
