"""The whole flow on a rendered stranger: photos to a page that one opens.

In: a seed, an output folder, the tools of every stage. Out: ``report.html``, a summary, and a home
folder that every other command can be pointed at. Finished stages are not done again; a stopped
training goes on. Knows nothing of how a stage works.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from oblik.datasets.build import build_dataset
from oblik.datasets.extras import Wishes
from oblik.datasets.manifest import read_dataset
from oblik.flows.calibrate import measure, note_scores, open_ruler, pictures_in
from oblik.flows.generate import Order, generate, plan_order
from oblik.flows.impostors import open_impostors
from oblik.flows.judge import judge_of
from oblik.flows.ledger import Ledger, Result, fingerprint, folder_sha256
from oblik.flows.report import summary, tell
from oblik.flows.story import Batch, Story
from oblik.flows.train import TrainOrder, config_for, train
from oblik.flows.workshop import Workshop, sitter
from oblik.generation.engine import Engine
from oblik.generation.presets import find_preset
from oblik.generation.record import FILE_NAME, read_record
from oblik.likeness.calibration import ENOUGH_SCORES
from oblik.likeness.pairs import References, impostor_scores
from oblik.likeness.report import read_report
from oblik.paths import Home, atomic_write, private_dir, sha256_file
from oblik.personas.store import PersonaStore, consent_sha256
from oblik.progress import Progress, Unseen
from oblik.training.artifact import CURVES, MANIFEST, TrainingLog, read_artifact

PORTRAITS = (
    "serious, frontal view, close-up, in a studio, studio light",
    "smiling, frontal view, head and shoulders, in a park, daylight",
    "navy clothes, three-quarter view, head and shoulders, on a street, daylight",
    "wearing glasses, frontal view, head and shoulders, in an office, studio light",
    "laughing, frontal view, close-up, on a beach, daylight",
    "white clothes, three-quarter view, head and shoulders, in a room, warm light",
    "serious, frontal view, close-up, in a studio, side light",
    "black clothes, smiling, frontal view, head and shoulders, in a room, daylight",
)
SEED = 900_007
"""A person whom no pack was trained on: packs are made from lower seeds."""
KINDS = {
    "portraits": ("portraits", "With token and LoRA", "What this page is about."),
    "without_lora": (
        "without LoRA",
        "Without the LoRA",
        "The learned word is still in the prompt; the LoRA’s weights are switched off.",
    ),
    "without_token": (
        "without token",
        "Without the token",
        "The LoRA is on, but the prompt speaks of a stranger: the person should be gone.",
    ),
}


@dataclass(frozen=True)
class DemoOrder:
    """What to run. ``train`` and ``plan`` override the pack's settings and the preset; None there is
    ignored."""

    out: Path
    seed: int = SEED
    photos: int = 48
    portraits: int = len(PORTRAITS)
    train: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoResult:
    """Where the page is, what it says in a line, and which stages were found finished."""

    page: Path
    summary: str
    persona: str
    home: Path
    reused: tuple[str, ...]
    done: tuple[str, ...]


def run_demo(order: DemoOrder, workshop: Workshop, *, progress: Progress, now: datetime) -> DemoResult:
    """Run every stage that is not finished, write the page, say what came out."""
    demo = _Demo(order, workshop, progress, now)
    demo.photos()
    demo.dataset()
    demo.train()
    for kind in KINDS:
        demo.generate(kind)
    demo.measure()
    story = demo.story()
    page = order.out / "report.html"
    atomic_write(page, tell(story))
    ledger = demo.ledger
    return DemoResult(
        page, summary(story), demo.persona.slug, demo.home.root, tuple(ledger.reused), tuple(ledger.done)
    )


class _Demo:
    """One run: the stages in order, each looking up the ledger first."""

    def __init__(self, order: DemoOrder, workshop: Workshop, progress: Progress, now: datetime) -> None:
        self.order, self.workshop, self.progress, self.now = order, workshop, progress, now
        self.pack = workshop.pack
        self.home = Home(private_dir(order.out.absolute() / "home"))
        self.persona = sitter(PersonaStore(self.home), order.seed, workshop, now)
        self.folders = self.home.persona(self.persona.slug)
        self.photos_dir = order.out / "photos" / self.persona.slug
        self.ledger = Ledger(order.out / "stages" / f"{self.persona.slug}.json")
        self.pack_sha256 = fingerprint(self.pack.manifest.model_dump(mode="json"))

    def photos(self) -> None:
        inputs = {"seed": self.order.seed, "photos": self.order.photos, "pack": self.pack.manifest.name}

        def shoot() -> Result:
            shutil.rmtree(self.photos_dir, ignore_errors=True)
            with self.progress.stage("shoot the sitter"):
                self.workshop.shoot(self.order.seed, self.order.photos, private_dir(self.photos_dir))
            return {"sha256": folder_sha256(self.photos_dir)}

        self.shot = self.ledger.once(
            "photos", inputs, shoot,
            intact=lambda result: folder_sha256(self.photos_dir) == result["sha256"],
        )  # fmt: skip

    def dataset(self) -> None:
        inputs = {
            "photos": self.shot["sha256"],
            "persona": [self.persona.slug, self.persona.trigger, self.persona.descriptors],
            "consent": consent_sha256(self.persona.consent),
            "pack": self.pack_sha256,
        }

        def build() -> Result:
            stack = self.workshop.stack()
            dataset = build_dataset(
                self.persona, self.photos_dir, home=self.home, stack=stack,
                pack=self.pack.manifest, now=self.now, progress=self.progress,
                impostors_MD=open_impostors(self.home, self.pack, stack.name).embeddings_MD,
                wishes=Wishes(source=self.workshop.captions()),
            )  # fmt: skip
            return {"version": dataset.version, "sha256": sha256_file(self._dataset_file(dataset.version))}

        self.built = self.ledger.once(
            "dataset", inputs, build,
            intact=lambda result: _has(self._dataset_file(result["version"]), result["sha256"]),
        )  # fmt: skip

    def train(self) -> None:
        config = config_for(self.pack.manifest, self.order.train)
        inputs = {
            "dataset": self.built["sha256"],
            "config": config.model_dump(mode="json"),
            "pack": self.pack_sha256,
        }
        stopped = self.ledger.interrupted("train", inputs) and self._unfinished()

        def learn() -> Result:
            asked = TrainOrder(self.built["version"], self.order.train, resume=stopped)
            folder = train(
                self.persona, asked, home=self.home, pack=self.pack, trainer=self.workshop.trainer(),
                progress=self.progress, now=self.now,
                judges=judge_of(self.persona, home=self.home, pack=self.pack, stack=self.workshop.stack),
            )  # fmt: skip
            return {"version": folder.name, "weights": read_artifact(folder).weights_sha256}

        self.learned = self.ledger.once(
            "train",
            inputs,
            learn,
            intact=lambda result: (self.folders.loras / result["version"] / MANIFEST).is_file(),
        )

    def generate(self, kind: str) -> None:
        fast, words = find_preset("fast"), PORTRAITS[: self.order.portraits]
        preset = fast.model_copy(update={"plan": {**fast.plan, **self.order.plan}})
        orders = [
            Order(
                text=text,
                asked={"seeds": (place,), "lora": self.learned["version"]},
                lora=kind != "without_lora",
                token=kind != "without_token",
            )
            for place, text in enumerate(words, start=1)
        ]
        plans = [plan_order(order, self.persona, preset, self.pack, self.home) for order in orders]
        inputs = {
            "plans": [plan.model_dump(mode="json") for plan in plans],
            "weights": self.learned["weights"],
            "pack": self.pack_sha256,
        }

        def make() -> Result:
            shutil.rmtree(self.batch_dir(kind), ignore_errors=True)
            engine, pictures = self._engine, {}
            with self.progress.stage(kind.replace("_", " "), total=len(plans)) as advance:
                for place, plan in enumerate(plans, start=1):
                    folder = self.batch_dir(kind) / f"{place:02d}"
                    record, _ = generate(
                        self.persona, plan, home=self.home, pack=self.pack, engine=engine,
                        progress=Unseen(self.progress), now=self.now, folder=folder,
                    )  # fmt: skip
                    pictures.update(
                        {f"{folder.name}/{picture.file}": picture.sha256 for picture in record.pictures}
                    )
                    advance()
            return {"pictures": pictures}

        self.ledger.once(kind, inputs, make, intact=lambda result: self._pictures(kind) == result["pictures"])

    def measure(self) -> None:
        inputs = {
            "pictures": {kind: self._pictures(kind) for kind in KINDS},
            "dataset": self.built["sha256"],
            "pack": self.pack_sha256,
        }

        def score() -> Result:
            ruler = open_ruler(
                self.persona,
                home=self.home,
                pack=self.pack,
                stack=self.workshop.stack(),
                dataset=self.built["version"],
            )
            report = measure(
                self.persona, self.batch_dir("portraits"), ruler, home=self.home, progress=self.progress,
                now=self.now, without_token=self.batch_dir("without_token"),
            )  # fmt: skip
            for kind in ("without_lora", "without_token"):
                pictures = pictures_in(self.batch_dir(kind))
                scores = dict(zip(pictures, ruler.score(pictures, self.progress), strict=True))
                note_scores(self.batch_dir(kind), scores, ruler)
            return {"verdict": report.verdict.value}

        self.ledger.once("likeness", inputs, score, intact=lambda _: self._scored())

    def story(self) -> Story:
        dataset_dir = self.folders.datasets / self.built["version"]
        artifact_dir = self.folders.loras / self.learned["version"]
        dataset = read_dataset(dataset_dir)
        references = References.load(dataset, dataset_dir)
        impostors = open_impostors(self.home, self.pack, dataset.face_stack)
        record = next(iter(sorted(self.batch_dir("portraits").glob(f"*/{FILE_NAME}"))))
        return Story(
            persona=self.persona,
            pack=self.pack.manifest,
            dataset=dataset,
            dataset_dir=dataset_dir,
            photos_dir=self.photos_dir,
            artifact=read_artifact(artifact_dir),
            artifact_dir=artifact_dir,
            log=TrainingLog.model_validate_json((artifact_dir / CURVES).read_bytes()),
            batches=tuple(self._batch(kind) for kind in KINDS),
            report=read_report(self.batch_dir("portraits")),
            impostors_N=impostor_scores(impostors, references.heldout_ND, at_least=ENOUGH_SCORES).centroid_S,
            home=_short(self.home.root),
            record_path=_short(record),
            seconds=self.ledger.seconds,
        )

    def batch_dir(self, kind: str) -> Path:
        return self.folders.gallery / "demo" / kind

    def _batch(self, kind: str) -> Batch:
        records = sorted(self.batch_dir(kind).glob(f"*/{FILE_NAME}"))
        return Batch(kind, *KINDS[kind], tuple((read_record(path), path.parent) for path in records))

    def _scored(self) -> bool:
        """Whether the report is there and no record lost its scores by being made again."""
        records = [
            read_record(path) for kind in KINDS for path in self.batch_dir(kind).glob(f"*/{FILE_NAME}")
        ]
        report = self.batch_dir("portraits") / "likeness.json"
        return report.is_file() and all(record.threshold is not None for record in records)

    def _pictures(self, kind: str) -> dict[str, str]:
        folder = self.batch_dir(kind)
        return (
            {path.relative_to(folder).as_posix(): sha256_file(path) for path in pictures_in(folder)}
            if folder.is_dir()
            else {}
        )

    @cached_property
    def _engine(self) -> Engine:
        return self.workshop.engine()

    def _dataset_file(self, version: str) -> Path:
        return self.folders.datasets / version / "dataset.json"

    def _unfinished(self) -> bool:
        return any(not (folder / MANIFEST).is_file() for folder in self.folders.loras.glob("v*"))


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _short(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    here = Path.cwd()
    return (
        path.absolute().relative_to(here).as_posix()
        if path.absolute().is_relative_to(here)
        else path.as_posix()
    )
