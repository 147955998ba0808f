"""After a training: test pictures under hard conditions, and whether the LoRA may be called good.

In: a persona and a version of its LoRA, an engine, the one face stack. Out: an `Acceptance`, and in the
artifact's folder ``acceptance.json``, ``acceptance.png`` (the ROC and the line), and under ``acceptance/``
the pictures, each beside the held-out photo nearest to it (``pairs.png``), and the files of
`oblik.likeness.report`; of a test in the reliable mode, ``acceptance-reliable.json`` and so on. What was
trained is not touched. Knows nothing of training.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from oblik.datasets.manifest import Dataset, Split, read_dataset
from oblik.errors import NotFound, OblikError
from oblik.faces.stack import FaceStack
from oblik.flows.calibrate import Ruler, measure, open_ruler
from oblik.flows.generate import Order, plan_order
from oblik.flows.reliable import Climbing, generate_in_mode
from oblik.generation.engine import Engine
from oblik.generation.ladder import Heights
from oblik.generation.presets import find_preset
from oblik.generation.record import read_record
from oblik.images import grid, open_upright
from oblik.labels import PLAIN, Label, Labeller, Source
from oblik.likeness.acceptance import (
    FAST,
    RELIABLE,
    SUMMARY,
    Acceptance,
    by_condition,
    of_mode,
    read_acceptance,
    weigh,
)
from oblik.likeness.calibration import ENOUGH_SCORES
from oblik.likeness.charts import draw_roc
from oblik.likeness.pairs import impostor_scores
from oblik.likeness.report import curves
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, atomic_write, private_dir
from oblik.personas.persona import Persona
from oblik.progress import Progress, SilentProgress, Unseen
from oblik.training.artifact import MANIFEST, latest_artifact, read_artifact

CONDITIONS = {
    "portrait": "smiling, frontal view, head and shoulders, in a park, daylight",
    "close-up": "serious, frontal view, close-up, in a studio, studio light",
    "three-quarter": "navy clothes, three-quarter view, head and shoulders, on a street, daylight",
    "laughing": "laughing, frontal view, head and shoulders, on a beach, daylight",
    "profile": "profile view, head and shoulders, in a studio, studio light",
    "glasses": "wearing glasses, frontal view, head and shoulders, in an office, studio light",
    "sunglasses": "wearing sunglasses, frontal view, head and shoulders, on a beach, daylight",
    "hat": "wearing hat, three-quarter view, head and shoulders, on a street, daylight",
    "scarf": "wearing scarf, frontal view, head and shoulders, in a park, daylight",
    "hand": "hand at face, frontal view, close-up, in a room, warm light",
    "dim light": "frontal view, head and shoulders, at night, dim light",
    "far away": "white clothes, frontal view, half length, in a room, side light",
}
"""What each test prompt is hard by; the words are those of captions."""
BARE = 4
"""Of the first conditions, where faces are plain to see, strangers are made too: bleed."""
CHART, FOLDER, PAIRS = "acceptance.png", "acceptance", "pairs.png"
SHOWN, STRANGERS = "with", "without"
CELL_PX = 192


def accept(
    persona: Persona,
    version: str | None = None,
    *,
    home: Home,
    pack: OpenPack,
    engine: Engine,
    stack: FaceStack,
    progress: Progress,
    now: datetime,
    images: int = len(CONDITIONS),
    labels: Labeller = PLAIN,
    mode: str = FAST,
) -> Acceptance:
    """Test the LoRA ``version`` (default: the one in use) with ``images`` pictures, over all conditions.

    At least one picture of each condition is made; 200 are needed for a claim. An earlier test in the same
    ``mode`` is replaced; in the reliable one every picture takes the first rung at once.

    Raises:
        ConsentError: the persona's consent does not cover portraits today.
        NotFound: there is no such LoRA, or nobody to calibrate with.
        InvalidInput: the LoRA belongs to another pack, or its dataset to another face stack.
    """
    began_s = time.monotonic()
    loras = home.persona(persona.slug).loras
    folder = loras / (version or latest_artifact(loras))
    if not (folder / MANIFEST).is_file():
        raise NotFound(f"persona {persona.slug!r} has no LoRA {folder.name}", hint="oblik train")
    artifact = read_artifact(folder)
    ruler = open_ruler(persona, home=home, pack=pack, stack=stack, dataset=artifact.dataset)
    shutil.rmtree(folder / of_mode(FOLDER, mode), ignore_errors=True)
    place = private_dir(folder / of_mode(FOLDER, mode))
    orders, quiet = list(_orders(folder.name, images, place)), Unseen(progress)
    presets = home.root / "presets"
    heights = find_preset(RELIABLE, presets).ladder.get(pack.manifest.family, Heights())
    climbing = Climbing(auto=False, heights=heights)
    with progress.stage("test pictures", total=len(orders)) as advance:
        for order, out_dir in orders:
            progress.check_cancelled()
            plan = plan_order(order, persona, find_preset(mode if order.token else FAST, presets), pack, home)
            generate_in_mode(
                persona, plan, climbing, home=home, pack=pack, engine=engine, stack=lambda: stack,
                progress=quiet, now=now, folder=out_dir,
            )  # fmt: skip
            advance()
    report = measure(
        persona, place / SHOWN, ruler, home=home, progress=progress, now=now, without_token=place / STRANGERS
    )
    impostors = impostor_scores(ruler.impostors, ruler.references.heldout_ND, at_least=ENOUGH_SCORES)
    names = list(CONDITIONS)
    condition_of = {score.name: names[int(Path(score.name).parts[0]) - 1] for score in report.scores}
    conditions = by_condition(report, CONDITIONS, condition_of)
    scale = read_record(place / SHOWN / "01").plan.lora_scale
    found = weigh(report, conditions, impostors.centroid_S, artifact, scale, now, mode)
    datasets = home.persona(persona.slug).datasets
    pairs = _pairs(place / SHOWN, ruler, datasets / artifact.dataset)
    label = Label(source=Source.edited, record=f"../{of_mode(SUMMARY, mode)}")
    labels.save(pairs, place / PAIRS, label)
    own, generated = curves(report, ruler.references, impostors.centroid_S)
    atomic_write(folder / of_mode(CHART, mode), draw_roc(report, own, generated, found.line))
    found.seconds = round(time.monotonic() - began_s, 1)
    atomic_write(folder / of_mode(SUMMARY, mode), found.model_dump_json(indent=1) + "\n")
    return found


def usual_mode(loras: Path, version: str | None = None) -> tuple[str, str]:
    """The mode of pictures when nobody names one, and why: reliable once the LoRA is known to fall short.

    ``version`` is the LoRA's (default: the one in use). Untested is not short.
    """
    try:
        found = read_acceptance(loras / (version or latest_artifact(loras)))
    except OblikError:
        return FAST, ""
    why = found.shortfall
    return (RELIABLE, f"the test of LoRA {found.version} found {why}") if why else (FAST, "")


def _orders(lora: str, images: int, place: Path) -> Iterator[tuple[Order, Path]]:
    """One order for each condition, with seeds of its own; for the first ones the same without the token."""
    for number, text in enumerate(CONDITIONS.values(), start=1):
        count = max(1, images // len(CONDITIONS) + (number <= images % len(CONDITIONS)))
        seeds = tuple(1000 * number + n for n in range(count))
        yield Order(text, {"seeds": seeds, "lora": lora}), place / SHOWN / f"{number:02d}"
        if number <= BARE:
            bare = Order(text, {"seeds": seeds[:1], "lora": lora}, token=False)
            yield bare, place / STRANGERS / f"{number:02d}"


def _pairs(shown: Path, ruler: Ruler, dataset_dir: Path) -> Image.Image:
    """The first picture of each condition beside the held-out photo nearest to it, with their cosine."""
    photos = _held_out(read_dataset(dataset_dir), dataset_dir)
    pictures = [min(folder.glob("*seed*.png")) for folder in sorted(shown.glob("[0-9]*"))]
    cells: list[Image.Image] = []
    labels: list[str] = []
    scores = ruler.score(pictures, SilentProgress())
    for name, picture, score in zip(CONDITIONS, pictures, scores, strict=True):
        cells.append(open_upright(picture))
        if score.embedding is None:
            cells.append(Image.new("RGB", cells[-1].size, "white"))
            labels += [f"{name}: no face", ""]
            continue
        cosines_N = ruler.references.heldout_ND @ score.embedding
        nearest = int(np.argmax(cosines_N))
        cells.append(open_upright(photos[nearest]))
        labels += [f"{name} {score.centroid:.2f}", f"photo {nearest + 1}: {cosines_N[nearest]:.2f}"]
    return grid(cells, columns=6, labels=labels, cell_px=CELL_PX)


def _held_out(dataset: Dataset, folder: Path) -> list[Path]:
    """Files of the held-out photos with a face, in the order of `References.heldout_ND`."""
    with np.load(folder / dataset.embeddings, allow_pickle=False) as arrays:
        known = set(arrays.files)
    found = [photo for photo in dataset.accepted(Split.validation) if photo.source_sha256 in known]
    return [folder / (photo.path or "") for photo in found]
