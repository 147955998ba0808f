"""Pictures of strangers for a dataset: an engine as the function that `oblik.datasets` paints with.

In: an engine and an open pack. Out: a `Painter`: prompt, seeds and size become pictures of the bare pack,
without LoRA and token; and whether the pack's advice to paint some is for this machine. Knows nothing of
datasets and faces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from PIL import Image

from oblik.datasets.extras import CLASS_IMAGES, NEGATIVES
from oblik.datasets.regularisation import Painter, cache_folder
from oblik.diffusion.device import pick_device
from oblik.diffusion.families.family import FAMILIES
from oblik.generation.engine import Engine
from oblik.generation.presets import find_preset, plan_from
from oblik.images import open_upright
from oblik.packs.manifest import OpenPack
from oblik.paths import Home
from oblik.progress import Progress, SilentProgress

PRESET, NOBODY = "fast", "nobody"


def why_unpainted(pack: OpenPack, device: str) -> str:
    """Why the pictures that the pack advises are painted only for somebody who asks; "" when they are."""
    if not any(pack.manifest.training.get(wanted) for wanted in (CLASS_IMAGES, NEGATIVES)):
        return ""
    if pack.manifest.family not in FAMILIES:
        return f"nothing here paints with the pack {pack.manifest.name!r}"
    return "" if pick_device(device).type != "cpu" else "without a graphics card they would take days"


def painter_of(
    pack: OpenPack, engine: Callable[[], Engine], *, home: Home, progress: Progress, now: datetime
) -> Painter:
    """A painter; the engine is opened when the first picture that is not in the cache is wanted."""
    opened: list[Engine] = []

    def paint(prompt: str, seeds: Sequence[int], size_px: tuple[int, int]) -> list[Image.Image]:
        if not opened:
            opened.append(engine())
        width_px, height_px = size_px
        asked = {"prompt": prompt, "seeds": tuple(seeds), "width_px": width_px, "height_px": height_px}
        plan = plan_from(
            find_preset(PRESET), pack.manifest, {**asked, "persona": NOBODY, "batch": len(seeds)}
        )
        plan = plan.model_copy(update={"persona": None})
        quiet = SilentProgress()
        progress.check_cancelled()
        with tempfile.TemporaryDirectory(prefix="oblik-strangers-") as place:
            record = opened[0].run(
                plan, pack=pack, artifact=None, out_dir=Path(place), now=now, progress=quiet
            )
            files = {picture.seed: picture.file for picture in record.pictures}
            return [open_upright(Path(place) / files[seed]) for seed in seeds]

    return Painter(paint, pack.manifest, cache_folder(home, pack.manifest))
