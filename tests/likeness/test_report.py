"""Five files, the same bytes for the same numbers, and pictures that show what they claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oblik.errors import NotFound
from oblik.likeness.calibration import calibrate
from oblik.likeness.findings import LikenessReport
from oblik.likeness.gate import judge
from oblik.likeness.pairs import Impostors, References, score_embedding
from oblik.likeness.report import read_report, write_report

Draw = Callable[..., NDArray[np.float32]]


@pytest.fixture
def report(draw: Draw, impostors: Impostors, references: References) -> LikenessReport:
    heldout = references.heldout_ND
    scores = [score_embedding(v, 1, heldout) for v in draw(2, 1, 60)[0, 40:47]]
    bare = [score_embedding(v, 1, heldout) for v in draw(8, 6, 1)[:, 0]]
    calibration = calibrate(impostors, heldout, rng=np.random.default_rng(0), draws=200)
    scores.append(score_embedding(None, 0, heldout))
    rng = np.random.default_rng(0)
    return judge(scores, calibration, references, persona="subject", rng=rng, without_token=bare)


def test_the_folder(
    tmp_path: Path, report: LikenessReport, impostors: Impostors, references: References
) -> None:
    files = write_report(report, impostors, references, tmp_path / "likeness")
    assert read_report(tmp_path / "likeness") == report
    for path in (files.roc_png, files.scores_png):
        with Image.open(path) as image:
            assert min(image.size) > 600
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50
            assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
            assert not image.info.get("Software")
    curves = json.loads(files.roc.read_text(encoding="utf-8"))
    assert curves["generated"]["misses"] == 1
    assert curves["generated"]["impostors"] == 3100
    at = np.searchsorted(-np.array(curves["generated"]["thresholds"]), -report.calibration.threshold)
    assert curves["generated"]["fmr"][at] == pytest.approx(0.01, abs=0.003)
    spread = json.loads(files.scores.read_text(encoding="utf-8"))
    assert sum(spread["impostors_in_bin"]) == 3100
    assert len(spread["bin_edges"]) == len(spread["impostors_in_bin"]) + 1
    assert (len(spread["generated"]), len(spread["without_token"])) == (7, 6)
    again = write_report(report, impostors, references, tmp_path / "again")
    for name in ("likeness", "roc", "roc_png", "scores", "scores_png"):
        assert getattr(files, name).read_bytes() == getattr(again, name).read_bytes()


def test_a_persona_without_further_photos(
    tmp_path: Path, report: LikenessReport, impostors: Impostors, references: References
) -> None:
    bare = report.model_copy(
        update={
            "genuine": None,
            "genuine_scores": [],
            "stress": None,
            "stress_scores": [],
            "without_token": [],
        }
    )
    one = References(references.heldout_ND[:1], references.train_ND[:0], references.stress_ND[:0])
    files = write_report(bare, impostors, one, tmp_path)
    assert json.loads(files.roc.read_text(encoding="utf-8"))["own_photos"] is None


def test_no_report_yet(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no likeness report"):
        read_report(tmp_path)
