"""Likeness on paper: ``likeness.json``, ``roc`` and ``scores`` as JSON and as PNG in one folder.

In: a `LikenessReport`, the impostors and references it rests on. Out: files. Knows no HTML.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oblik.errors import NotFound
from oblik.likeness.calibration import ENOUGH_SCORES
from oblik.likeness.charts import bins, draw_roc, draw_scores
from oblik.likeness.findings import LikenessReport
from oblik.likeness.pairs import Impostors, References, Scores_N, impostor_scores
from oblik.likeness.roc import Roc, roc
from oblik.paths import atomic_write, private_dir


@dataclass(frozen=True)
class ReportFiles:
    """Where the parts of a report lie."""

    likeness: Path
    roc: Path
    roc_png: Path
    scores: Path
    scores_png: Path


def write_report(
    report: LikenessReport, impostors: Impostors, references: References, folder: Path
) -> ReportFiles:
    """Write all five files (atomically, owner-only) and say where they are.

    Impostors and references are those of the calibration; their scores are worked out again, not kept.
    """
    private_dir(folder)
    names = ("likeness.json", "roc.json", "roc.png", "scores.json", "scores.png")
    files = ReportFiles(*(folder / name for name in names))
    impostor_S = impostor_scores(impostors, references.heldout_ND, at_least=ENOUGH_SCORES).centroid_S
    own, generated = curves(report, references, impostor_S)
    atomic_write(files.likeness, report.model_dump_json(indent=1))
    drawn = {"own_photos": own.model_dump() if own else None, "generated": generated.model_dump()}
    atomic_write(files.roc, json.dumps(drawn, indent=1))
    atomic_write(files.scores, json.dumps(histogram(report, impostor_S), indent=1))
    atomic_write(files.roc_png, draw_roc(report, own, generated))
    atomic_write(files.scores_png, draw_scores(report, impostor_S))
    return files


def curves(report: LikenessReport, references: References, impostor_S: Scores_N) -> tuple[Roc | None, Roc]:
    """The ROC of the person's own photos (None when there are none) and that of the pictures."""
    own_G = np.array(report.genuine_scores + report.stress_scores)
    misses = references.stress_misses
    own = roc(impostor_S, own_G, misses=misses) if len(own_G) + misses else None
    made_G = np.array([s.centroid for s in report.scores if s.centroid is not None])
    return own, roc(impostor_S, made_G, misses=report.misses)


def histogram(report: LikenessReport, impostor_S: Scores_N) -> dict[str, list[float] | list[int]]:
    """How scores are spread: impostors counted in bins, all others one by one (a miss is not among them)."""
    counts, edges = np.histogram(impostor_S, bins=bins(impostor_S))
    return {
        "bin_edges": edges.round(4).tolist(),
        "impostors_in_bin": counts.tolist(),
        "held_out_photos": report.genuine_scores,
        "stress_photos": report.stress_scores,
        "generated": [score.centroid for score in report.scores if score.centroid is not None],
        "without_token": [score.centroid for score in report.without_token if score.centroid is not None],
    }


def read_report(folder: Path) -> LikenessReport:
    """Read ``folder/likeness.json``. Raises NotFound with the command that makes one."""
    path = folder / "likeness.json"
    if not path.is_file():
        raise NotFound(f"no likeness report in {folder}", hint="oblik likeness")
    return LikenessReport.model_validate_json(path.read_text(encoding="utf-8"))
