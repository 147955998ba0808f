"""Charts are well-formed SVG whose marks lie where the numbers say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np

from oblik.flows.charts import Marks, Scale, loss_chart, roc_chart, score_strip

RNG = np.random.default_rng(0)
IMPOSTORS = RNG.normal(0.05, 0.2, 3000)


def circles(svg: str) -> list[float]:
    return [float(found) for found in re.findall(r'cx="([\d.]+)"', svg)]


def test_a_scale_maps_its_ends() -> None:
    scale = Scale(-1, 1, 100, 300)
    assert (scale(-1), scale(0), scale(1)) == (100, 200, 300)


def test_the_strip_holds_a_mark_for_each_score_in_order() -> None:
    svg = score_strip(IMPOSTORS, [Marks("a & b", "portrait", (0.1, 0.5, 0.9))], 0.6, (0.55, 0.65))
    ElementTree.fromstring(svg)
    places = circles(svg)
    assert len(places) == 3
    assert places == sorted(places)
    assert "a &amp; b" in svg
    assert "threshold 0.60" in svg


def test_scores_outside_the_usual_range_stay_on_the_page() -> None:
    svg = score_strip(IMPOSTORS, [Marks("x", "portrait", (-0.97, 1.0))], 0.6, (0.55, 0.65))
    assert min(circles(svg)) >= 0
    assert max(circles(svg)) <= 1000


def test_a_perfect_group_lies_at_the_top_of_the_roc() -> None:
    svg = roc_chart((np.full(5, 0.99), np.full(5, -1.0)), IMPOSTORS, 0.6, 0.01)
    ElementTree.fromstring(svg)
    high, low = (float(found) for found in re.findall(r'cy="([\d.]+)"', svg))
    assert high < low


def test_a_loss_curve_of_two_points_and_none_held_out() -> None:
    ElementTree.fromstring(loss_chart([1, 2], [0.5, 0.4], []))
    svg = loss_chart(list(range(1, 401)), np.linspace(0.6, 0.3, 400).tolist(), [(100, 0.5), (400, 0.4)])
    ElementTree.fromstring(svg)
    assert svg.count("<polyline") == 3
