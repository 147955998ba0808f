"""What the rungs of the reliable mode gain, what a cache costs, and how a LoRA holds under hard conditions.

Goes on from `benchmarks/likeness.py`: the same 12 rendered people, whom the pack never saw, and their LoRAs
(``--out`` is its folder; who is missing there is trained first). For each person the same six seeds of one
prompt by the fast plan, by that plan raised by rung 1, by rungs 1 and 2, by all three, and by the fast plan
with a first-block cache; and the twelve hard conditions of `oblik likeness accept`, fast and reliable (there
rung 1). A rung's gain is that over the rung below it, the cache's that over the fast plan; intervals are
bootstraps over people. Goals: rung 1 gains on average, and its interval lies above 0. Prints a table, then
one JSON line; exit status 0 when the goals are met. ``--quick`` takes 2 people; ``--jobs 2`` two at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from oblik import studio
from oblik.flows.generate import Order, generate, plan_order
from oblik.flows.reliable import dataset_behind, reference_photos
from oblik.generation.ladder import ladder, raise_by
from oblik.generation.presets import find_preset
from oblik.likeness.intervals import Interval, mean_interval, rate
from oblik.progress import RichProgress, SilentProgress
from oblik.settings import Settings
from oblik.studio.house import engine_of, home_of, now, pack_of
from oblik.training.artifact import MANIFEST

PEOPLE = tuple(range(910_001, 910_013))
PROMPT = "smiling, three-quarter view, head and shoulders, in a park, daylight"
SEEDS = (1, 2, 3, 4, 5, 6)
RUNGS = (0, 1, 2, 3)
CACHE, MODES = 0.1, ("fast", "reliable")


@dataclass(frozen=True)
class Row:
    """One person: mean likeness by rung (0: fast) and with a cache, and how many of so many hard pictures
    were recognised, by mode."""

    seed: int
    threshold: float
    likeness: list[float]
    cached: float
    hard: int
    recognised: dict[str, int]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="2 people instead of 12")
    words.add_argument("--out", type=Path, default=Path("build/likeness"), help="where the people are")
    words.add_argument("--jobs", type=int, default=1, help="how many people at a time")
    asked = words.parse_args()
    people = PEOPLE[:2] if asked.quick else PEOPLE
    threads = max(1, (os.cpu_count() or 1) // asked.jobs)
    with ProcessPoolExecutor(
        asked.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        rows = list(pool.map(measure, people, [asked.out] * len(people)))
    rungs = "".join(f"{f'rung {rung}':>8}" for rung in RUNGS[1:])
    print(f"{'seed':>8} {'threshold':>10} {'fast':>6}{rungs} {'cached':>7}  hard: {', '.join(MODES)}")
    for row in rows:
        figures = "".join(f"{value:>8.2f}" for value in row.likeness[1:])
        hard = f"{', '.join(map(str, row.recognised.values()))} of {row.hard}"
        means = f"{row.likeness[0]:>6.2f}{figures} {row.cached:>7.2f}"
        print(f"{row.seed:>8} {row.threshold:>10.2f} {means}  {hard}")
    gains = [_gain([row.likeness[rung] - row.likeness[rung - 1] for row in rows]) for rung in RUNGS[1:]]
    cached = _gain([row.cached - row.likeness[0] for row in rows])
    fast = sum(row.likeness[0] >= row.threshold for row in rows)
    climbed = sum(max(row.likeness) >= row.threshold for row in rows)
    tested = sum(row.hard for row in rows)
    tpr = {mode: rate(sum(row.recognised[mode] for row in rows), tested) for mode in MODES}
    for rung, gain in zip(RUNGS[1:], gains, strict=True):
        print(f"rung {rung} gains {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    print(f"first-block cache at {CACHE:g}: {cached.value:+.3f} [{cached.low:+.3f}, {cached.high:+.3f}]")
    print(f"at or above the threshold: {fast} of {len(rows)} fast, {climbed} of {len(rows)} after the ladder")
    for mode, share in tpr.items():
        print(
            f"hard conditions, {mode}: TPR at FMR 1 % {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
        )
    found = {
        "people": len(rows), "fast": fast, "climbed": climbed,
        "gains": [gain.model_dump() for gain in gains], "cached": cached.model_dump(),
        "tpr": {mode: share.model_dump() for mode, share in tpr.items()},
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    goals = {"rung 1 gains": gains[0].value > 0, "beyond chance": gains[0].low > 0}
    print(json.dumps({"name": "ladder", "figures": found, "goals": goals, "ok": all(goals.values())}))
    return 0 if all(goals.values()) else 1


def measure(seed: int, out: Path) -> Row:
    """Every rung for one person."""
    settings = Settings(home=out / str(seed) / "home")
    if not any(settings.home.glob(f"personas/*/loras/v*/{MANIFEST}")):
        studio.run_demo(Settings.load(), out / str(seed), seed=seed, progress=RichProgress())
    (persona,) = studio.list_personas(settings)
    home, pack = home_of(settings), pack_of(settings)
    engine, slug, likeness, threshold = engine_of(settings, pack), persona.slug, [], 0.0
    presets = home.root / "presets"
    plan = plan_order(Order(PROMPT, {"seeds": SEEDS}), persona, find_preset("fast", presets), pack, home)
    version = dataset_behind(plan, home)
    assert version is not None
    heights = find_preset("reliable", presets).ladder[pack.manifest.family]
    rungs = ladder(pack, reference_photos(home, slug, version), heights).rungs
    plans = [plan]
    for rung in rungs:
        plans.append(raise_by(rung, plans[-1]))
    for each in (*plans, plan.model_copy(update={"cache_threshold": CACHE})):
        _, folder = generate(
            persona, each, home=home, pack=pack, engine=engine, progress=SilentProgress(), now=now()
        )
        report = studio.measure_likeness(settings, folder, slug).report
        likeness.append(float(np.mean([score.centroid or 0.0 for score in report.scores])))
        threshold = report.calibration.threshold
    *by_rung, cached = likeness
    tested = {mode: studio.accept(settings, slug, mode=mode).acceptance for mode in MODES}
    recognised = {mode: sum(each.recognised for each in found.conditions) for mode, found in tested.items()}
    return Row(seed, threshold, by_rung, cached, tested["fast"].images, recognised)


def _gain(gained: list[float]) -> Interval:
    return mean_interval(np.array(gained), np.random.default_rng(0))


if __name__ == "__main__":
    sys.exit(main())
