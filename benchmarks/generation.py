"""How fast and how large the engine is, beside a plain call of diffusers' pipeline on the same work.

The bundled miniature pack, the same prompt, seeds, steps, guidance and type; each side in a process of its
own that is told when to draw, so that the two draw in turn and each one's memory is its own. A side's time is
that of a whole call: here text, denoising, decoding, pictures, grid and record; there text, denoising,
decoding. The ratio is the median of the rounds' ratios. Then 50 single pictures in a row, of which the first
ten do not count: how memory grows by least squares, and how the time of a picture grows, as a share of the
median, by the median of all pairs' slopes (Theil and Sen) with its 95 % interval, which a few slow pictures
on a busy machine do not move. Then what a first-block cache gains and what it does: mean difference of
pixels, and the cosine of the face vectors of the two pictures of a seed.

Goals: at least 1.3 times the pictures per second with a batch of 8, no picture more than 1 of 255 levels
away, no more memory, at most 0.2 MiB more for each picture, and no growth of more than 0.1 % of the time for
each picture (the lower end of the interval).

    python benchmarks/generation.py [--quick] [--compile]

Prints a table, then one JSON line; exit status 0 when all goals are met.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from scipy.stats import theilslopes

GOALS = {"speed": 1.3, "apart": 1, "memory": 1.0, "slope_mib": 0.2, "slope_time": 0.001}
SEEDS = tuple(range(11, 19))
PROMPT = "photo of a young woman with fair skin and red hair, smile, frontal, park, daylight"
STEPS, GUIDANCE, SIDE_PX = 30, 3.0, 128
CACHES = (0.1, 0.25)
SETTLED = 10
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Side:
    """A process that draws when it is told to."""

    def __init__(self, name: str, steps: int) -> None:
        words = [sys.executable, str(Path(__file__).resolve()), "--side", name, str(steps)]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        environment.pop("OMP_NUM_THREADS", None)  # all cores, as diffusers takes them by itself
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def ask(self, **what: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(what), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended with status {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="10 steps, 2 rounds, 20 pictures in a row")
    words.add_argument("--compile", action="store_true", help="compiled blocks as well (takes minutes)")
    words.add_argument("--side", nargs=2, metavar=("NAME", "STEPS"), help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.side:
        return answer(*asked.side)
    steps, rounds, row = (10, 2, 20) if asked.quick else (STEPS, 5, 50)
    with tempfile.TemporaryDirectory(prefix="oblik-generation-") as place:
        folder = Path(place)
        figures = beside(folder, steps, rounds)
        figures |= in_a_row(folder, steps, row)
        figures["cache"] = {str(each): cached(folder, steps, each) for each in CACHES}
        if asked.compile:
            figures["compiled"] = options(folder, steps, "compiled", compiled=True)
    print(json.dumps({"name": "generation", "figures": figures, "goals": GOALS, "ok": (ok := met(figures))}))
    return 0 if ok else 1


def met(figures: dict[str, Any]) -> bool:
    """Whether every goal is."""
    return bool(
        figures["speed"] >= GOALS["speed"] and figures["apart"] <= GOALS["apart"]
        and figures["memory"] <= GOALS["memory"] and figures["slope_mib"] <= GOALS["slope_mib"]
        and figures["slope_time_interval"][0] <= GOALS["slope_time"]
    )  # fmt: skip


def beside(folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Both sides in turn, after one batch each that is not counted."""
    sides = {name: Side(name, steps) for name in ("diffusers", "oblik")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            found[name].append(side.ask(seeds=SEEDS, folder=str(folder / name)))
            if number == 0:
                found[name].clear()
    for side in sides.values():
        side.close()
    apart = float(np.abs(pictures(folder / "diffusers") - pictures(folder / "oblik")).max())
    print(f"{'':<12}{'pictures/s':>12}{'s a batch':>12}{'CPU s':>8}{'MiB':>8}{'MiB in all':>12}")
    for name, each in found.items():
        wall, cpu = (statistics.median(one[key] for one in each) for key in ("wall_s", "cpu_s"))
        peak, before = each[-1]["peak_mib"], each[-1]["libraries_mib"]
        print(
            f"{name:<12}{len(SEEDS) / wall:>12.2f}{wall:>12.2f}{cpu:>8.2f}{peak - before:>8.0f}{peak:>12.0f}"
        )
    print(f"largest difference of a pixel: {apart:g} of 255", flush=True)
    theirs, ours = found["diffusers"], found["oblik"]
    return {
        "speed": ratio(theirs, ours, "wall_s"), "cpu_speed": ratio(theirs, ours, "cpu_s"), "apart": apart,
        "memory": round(ours[-1]["peak_mib"] / theirs[-1]["peak_mib"], 3), "threads": os.cpu_count(),
    }  # fmt: skip


def in_a_row(folder: Path, steps: int, count: int) -> dict[str, Any]:
    """Single pictures by one engine."""
    side = Side("oblik", steps)
    each = [side.ask(seeds=[seed], folder=str(folder / "row" / str(seed))) for seed in range(count)]
    side.close()
    settled = each[SETTLED:]
    slope = float(np.polyfit(range(len(settled)), [one["now_mib"] for one in settled], 1)[0])
    seconds = [one["wall_s"] for one in settled]
    time_slope, low, high = growth(seconds)
    print(
        f"{count} pictures in a row: {statistics.median(seconds):.2f} s each ({min(seconds):.2f} to "
        f"{max(seconds):.2f}), {slope:+.3f} MiB a picture, {settled[-1]['now_mib']:.0f} MiB at the end; "
        f"time {100 * time_slope:+.2f} % a picture [{100 * low:+.2f}, {100 * high:+.2f}]",
        flush=True,
    )
    return {
        "picture_s": round(statistics.median(seconds), 3), "slope_mib": round(slope, 3),
        "slope_time": round(time_slope, 5), "slope_time_interval": [round(low, 5), round(high, 5)],
    }  # fmt: skip


def growth(seconds: list[float]) -> tuple[float, float, float]:
    """How much longer each picture takes than the one before, as a share of the median, and its interval."""
    found, median = theilslopes(seconds), statistics.median(seconds)
    return float(found.slope) / median, float(found.low_slope) / median, float(found.high_slope) / median


def cached(folder: Path, steps: int, threshold: float) -> dict[str, float]:
    """What a first-block cache gains, and what it changes."""
    return options(folder, steps, f"cache {threshold}", cache_threshold=threshold)


def options(folder: Path, steps: int, name: str, **changed: Any) -> dict[str, float]:
    """An option beside none, in one process, in turn; two threads at once go with neither."""
    side, plain = Side("oblik", steps), {"guidance_at_once": False}
    asks: dict[str, Callable[[], dict[str, Any]]] = {
        "none": lambda: side.ask(seeds=SEEDS, folder=str(folder / "none"), **plain),
        name: lambda: side.ask(seeds=SEEDS, folder=str(folder / name), **plain, **changed),
    }
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in asks}
    if "compiled" in changed:  # each change opens the pipeline anew: all of one, then all of the other
        for key, ask in asks.items():
            found[key] = [ask() for _ in range(3)][1:]
    else:
        for _ in range(2):
            for key, ask in asks.items():
                found[key].append(ask())
    side.close()
    speed = ratio(found["none"], found[name], "wall_s")
    one, other = pictures(folder / "none"), pictures(folder / name)
    apart, alike = float(np.abs(one - other).mean()), likeness(one, other)
    print(
        f"{name}: {speed:.2f} times as fast, pixels {apart:.2f} of 255 apart in the mean, "
        f"faces alike {np.mean(alike):.3f} (least {min(alike):.3f}, of {len(alike)} seen in both)",
        flush=True,
    )
    return {"speed": speed, "mean_apart": round(apart, 3), "alike": round(float(np.mean(alike)), 3)}


def ratio(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], key: str) -> float:
    ratios = [float(a[key]) / float(b[key]) for a, b in zip(theirs, ours, strict=True)]
    return round(statistics.median(ratios), 2)


def pictures(folder: Path) -> Any:
    files = sorted(folder.glob("*-seed*.png"))
    return np.stack([np.asarray(Image.open(file).convert("RGB"), np.int64) for file in files])


def likeness(one_BHW3: Any, other_BHW3: Any) -> list[float]:
    """Cosines of the face vectors of two pictures of a seed, by the pack's own face stack."""
    from oblik.faces.stack import open_stack
    from oblik.generation.adapters import best_face
    from oblik.packs.store import BUNDLED

    stack = open_stack("onnx", folder=BUNDLED / "miniature" / "faces")
    found = []
    for pair in zip(one_BHW3.astype(np.uint8), other_BHW3.astype(np.uint8), strict=True):
        vectors = [stack.embed(image, face) for image in pair if (face := best_face(stack, image))]
        if len(vectors) == 2:
            found.append(float(vectors[0] @ vectors[1]))
    return found or [0.0]


def answer(name: str, steps: str) -> int:
    """One side: a line of JSON for each line that comes in."""
    import warnings

    warnings.simplefilter("ignore")
    draw = {"diffusers": plain_side, "oblik": our_side}[name](int(steps))
    libraries_mib = draw.libraries_mib
    for line in sys.stdin:
        what = json.loads(line)
        started_s, cpu_s = time.perf_counter(), time.process_time()
        draw(**what)
        told = {
            "wall_s": time.perf_counter() - started_s, "cpu_s": time.process_time() - cpu_s,
            "now_mib": psutil.Process().memory_info().rss / 2**20,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "libraries_mib": libraries_mib,
        }  # fmt: skip
        draw.after(what)
        print(json.dumps(told), flush=True)
    return 0


def _rss_mib() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def plain_side(steps: int) -> Any:
    """diffusers' pipeline as its documentation calls it; pictures are written after the clock has stopped."""
    import torch
    from diffusers import QwenImagePipeline
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils.logging import disable_progress_bar as disable_transformers_bar

    from oblik.packs.store import BUNDLED

    disable_progress_bar()
    disable_transformers_bar()

    class Plain:
        libraries_mib = _rss_mib()
        images: Any = None

        def __init__(self) -> None:
            self.pipeline = QwenImagePipeline.from_pretrained(
                BUNDLED / "miniature", dtype=torch.float32, local_files_only=True
            )
            self.pipeline.set_progress_bar_config(disable=True)

        def __call__(self, seeds: list[int], folder: str) -> None:
            self.images = self.pipeline(
                PROMPT, negative_prompt=" ", true_cfg_scale=GUIDANCE, num_inference_steps=steps,
                width=SIDE_PX, height=SIDE_PX, num_images_per_prompt=len(seeds),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images  # fmt: skip

        def after(self, what: dict[str, Any]) -> None:
            folder = Path(what["folder"])
            folder.mkdir(parents=True, exist_ok=True)
            for place, (image, seed) in enumerate(zip(self.images, what["seeds"], strict=True), 1):
                image.save(folder / f"{place:02d}-seed{seed}.png")

    return Plain()


def our_side(steps: int) -> Any:
    """The engine, as `oblik generate` runs it."""
    from oblik.generation.engine import open_engine
    from oblik.generation.plan import Plan
    from oblik.packs.store import open_pack
    from oblik.paths import Home
    from oblik.progress import SilentProgress

    engine = open_engine(device="cpu")

    class Ours:
        libraries_mib = _rss_mib()
        pack = open_pack("miniature", Home(Path("nowhere")))

        def __call__(self, seeds: list[int], folder: str, **changed: Any) -> None:
            plan = Plan(
                pack="miniature", persona=None, prompt=PROMPT, seeds=tuple(seeds), batch=len(seeds),
                steps=steps, guidance=GUIDANCE, width_px=SIDE_PX, height_px=SIDE_PX, dtype="float32",
                **changed,
            )  # fmt: skip
            engine.run(
                plan, pack=self.pack, artifact=None, out_dir=Path(folder), now=NOW,
                progress=SilentProgress(),
            )  # fmt: skip

        def after(self, what: dict[str, Any]) -> None:
            """Everything is written."""

    return Ours()


if __name__ == "__main__":
    sys.exit(main())
