"""Does a LoRA make a stranger recognisable, and only with the token?

Runs the whole flow with default settings on rendered people whom the pack never saw. Goals: the
median likeness of 8 portraits reaches the person's own threshold (FMR 1 %) for at least 10 of 12
people, and everybody's bleed score (the mean without the token) stays below it. Beside that, without a goal:
what the same prompts show when they keep the person's description (age, skin, hair) and lose the token alone.
Prints a table, then one JSON line; exit status 0 when all goals are met. ``--quick`` runs 2 people;
``--jobs 2`` runs two at a time, a share of the cores each; finished people are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from oblik import studio
from oblik.datasets.captions import without_token
from oblik.flows.generate import generate
from oblik.generation.record import FILE_NAME, read_record
from oblik.likeness.report import read_report
from oblik.paths import Home
from oblik.progress import RichProgress, SilentProgress
from oblik.settings import Settings
from oblik.studio.house import engine_of, now, pack_of
from oblik.training.artifact import latest_artifact, read_artifact

SEEDS = tuple(range(910_001, 910_013))
PASSING_SHARE = 10 / 12


@dataclass(frozen=True)
class Row:
    """One person's result; likeness figures are cosines."""

    seed: int
    likeness: float
    low: float
    high: float
    threshold: float
    without_token: float
    worst_without_token: float
    described: float
    faces_missed: int
    train_s: float
    chosen_step: int | None = None

    @property
    def recognised(self) -> bool:
        return self.likeness >= self.threshold

    @property
    def bled(self) -> bool:
        return self.without_token >= self.threshold


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="2 people instead of 12")
    words.add_argument("--out", type=Path, default=Path("build/likeness"), help="where the runs stay")
    words.add_argument("--jobs", type=int, default=1, help="how many people at a time")
    asked = words.parse_args()
    seeds = SEEDS[:2] if asked.quick else SEEDS
    threads = max(1, (os.cpu_count() or 1) // asked.jobs)
    with ProcessPoolExecutor(
        asked.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        rows = list(pool.map(measure, seeds, [asked.out] * len(seeds)))
    print(
        f"{'seed':>8} {'likeness':>9} {'interval':>16} {'threshold':>10} {'no token':>9} "
        f"{'described':>9} {'step':>6}  verdict"
    )
    for row in rows:
        verdict = ("recognised" if row.recognised else "not recognised") + (", BLED" if row.bled else "")
        interval = f"[{row.low:.2f}, {row.high:.2f}]"
        print(
            f"{row.seed:>8} {row.likeness:>9.2f} {interval:>16} {row.threshold:>10.2f} "
            f"{row.without_token:>9.2f} {row.described:>9.2f} {row.chosen_step or '':>6}  {verdict}"
        )
    recognised, bled = sum(row.recognised for row in rows), sum(row.bled for row in rows)
    goals = {"recognised": recognised >= PASSING_SHARE * len(rows), "no_bleed": bled == 0}
    figures = {
        "people": len(rows), "recognised": recognised, "bled": bled,
        "median_likeness": round(statistics.median(row.likeness for row in rows), 4),
        "median_bleed": round(statistics.median(row.without_token for row in rows), 4),
        "median_described": round(statistics.median(row.described for row in rows), 4),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
    print(json.dumps({"name": "likeness", "figures": figures, "goals": goals, "ok": all(goals.values())}))
    return 0 if all(goals.values()) else 1


def measure(seed: int, out: Path) -> Row:
    """The whole flow for one person."""
    result = studio.run_demo(Settings.load(), out / str(seed), seed=seed, progress=RichProgress())
    settings = Settings(home=result.home)
    folders = Home(result.home).persona(result.persona)
    report = read_report(folders.gallery / "demo" / "portraits")
    artifact = read_artifact(folders.loras / latest_artifact(folders.loras))
    without_token = [score.centroid or 0.0 for score in report.without_token]
    return Row(
        seed=seed,
        likeness=report.median.value,
        low=report.median.low,
        high=report.median.high,
        threshold=report.calibration.threshold,
        without_token=statistics.fmean(without_token),
        worst_without_token=max(without_token),
        described=statistics.fmean(described(settings, result.persona)),
        faces_missed=report.misses,
        train_s=artifact.seconds,
        chosen_step=artifact.chosen_step,
    )


def described(settings: Settings, slug: str) -> list[float]:
    """Scores of strangers in the words of the portraits: the token is gone, the description stays."""
    persona, home, pack = studio.show_persona(settings, slug), Home(settings.home), pack_of(settings)
    demo, engine = home.persona(slug).gallery / "demo", engine_of(settings, pack)
    for file in sorted((demo / "portraits").glob(f"*/{FILE_NAME}")):
        folder = demo / "described" / file.parent.name
        if not (folder / FILE_NAME).is_file():
            plan = read_record(file).plan
            plan = plan.model_copy(update={"prompt": without_token(plan.prompt, persona.trigger)})
            generate(
                persona, plan, home=home, pack=pack, engine=engine, progress=SilentProgress(),
                now=now(), folder=folder,
            )  # fmt: skip
    scores = studio.measure_likeness(settings, demo / "described", slug).report.scores
    return [score.centroid or 0.0 for score in scores]


if __name__ == "__main__":
    sys.exit(main())
