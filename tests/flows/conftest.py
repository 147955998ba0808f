"""A small scripted world for the flows: an engine that paints, a trainer that writes, faces as colours.

The "face" of a picture is the colours of its four quarters: a person is four colours, likeness is the
cosine of two such quadruples. A black picture has no face.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from oblik.datasets.manifest import Dataset, Photo, Split, Status
from oblik.datasets.sources import Beside
from oblik.errors import JobCancelled
from oblik.faces.stack import Face, Image_HW3, Unit_D
from oblik.flows.workshop import Workshop
from oblik.generation.engine import GRID, picture_name
from oblik.generation.plan import Plan
from oblik.generation.record import Record, keep_picture, write_record
from oblik.images import grid, save_clean_png
from oblik.labels import PLAIN
from oblik.likeness.pairs import Impostors
from oblik.packs.manifest import OpenPack, Pack
from oblik.paths import Home, atomic_write, private_dir, sha256_file
from oblik.personas.persona import Consent, Persona, Scope
from oblik.personas.store import PersonaStore, consent_sha256
from oblik.personas.trigger import write_tokenizer
from oblik.progress import Progress
from oblik.training.artifact import CURVES, MANIFEST, TOKENIZER, WEIGHTS, LoraArtifact, LossPoint, TrainingLog
from oblik.training.config import TrainConfig
from oblik.training.trainer import TrainRequest

Colours_43 = NDArray[np.float64]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
SIDE_PX = 64
SITTER = np.array([[200, 120, 60], [70, 160, 90], [120, 60, 150], [160, 170, 80]], float)
STRANGER = np.array([[60, 140, 190], [180, 90, 120], [90, 170, 70], [100, 100, 180]], float)


def painted(person_43: Colours_43, seed: int, spread: float = 6.0) -> Image.Image:
    """A picture of about these colours."""
    rng = np.random.default_rng(seed)
    colours = person_43 + rng.normal(0, spread, (4, 3))
    pixels = colours.reshape(2, 2, 3).repeat(SIDE_PX // 2, 0).repeat(SIDE_PX // 2, 1)
    pixels = pixels + rng.normal(0, 12, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


class HueStack:
    """Finds the colours of the four quarters."""

    name = "hue"

    def detect(self, image: Image_HW3) -> list[Face]:
        if image.max() < 8:
            return []
        height, width = image.shape[:2]
        places = [(0.35, 0.42), (0.65, 0.42), (0.5, 0.58), (0.38, 0.72), (0.62, 0.72)]
        landmarks = np.array([(x * width, y * height) for x, y in places], np.float32)
        return [Face((0.2 * width, 0.2 * height, 0.8 * width, 0.9 * height), landmarks, 0.99)]

    def embed(self, image: Image_HW3, face: Face) -> Unit_D:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        quarters = [image[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
        return direction(np.array([quarter.reshape(-1, 3).mean(0) for quarter in quarters]))


def direction(person_43: Colours_43) -> Unit_D:
    """Four colours as a unit vector: what is left of them without their brightness."""
    centred = (person_43 - person_43.mean()).ravel()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-9), np.float32)


class PaintingEngine:
    """Paints the sitter's colour when token and LoRA are there, a stranger's otherwise."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def run(
        self,
        plan: Plan,
        *,
        pack: OpenPack,
        artifact: Path | None,
        out_dir: Path,
        now: datetime,
        progress: Progress,
    ) -> Record:
        self.plans.append(plan)
        alike = artifact is not None and plan.lora_scale > 0 and "<oblik_" in plan.prompt
        weights = sha256_file(artifact / WEIGHTS) if artifact else None
        record = Record(
            plan=plan, asked=plan, started_at=now, token_ids=[7] if alike else [], prompt_ids=[1, 7, 2],
            lora_sha256=weights, pack_version=pack.manifest.version, libraries={"paint": "1"}, device="cpu",
            free_vram_bytes=None, seconds={"denoise": 0.1}, pictures=[],
        )  # fmt: skip
        images = []
        for place, seed in enumerate(plan.seeds, start=1):
            progress.check_cancelled()
            salt = int(hashlib.sha256(f"{plan.prompt}{seed}".encode()).hexdigest()[:8], 16)
            images.append(painted(SITTER if alike else STRANGER, salt))
            path = out_dir / picture_name(place, seed)
            record.pictures.append(keep_picture(images[-1], path, seed, plan, PLAIN))
        save_clean_png(grid(images, 4, cell_px=SIDE_PX), out_dir / GRID)
        record.grid = GRID
        write_record(record, out_dir)
        return record


class WritingTrainer:
    """Writes an artifact as if it had learned; stops once where it is told to."""

    def __init__(self, *, stop_once: bool = False) -> None:
        self.requests: list[TrainRequest] = []
        self._stop = stop_once

    def train(self, request: TrainRequest, progress: Progress) -> Path:
        self.requests.append(request)
        if self._stop:
            self._stop = False
            raise JobCancelled("stopped")
        return fill_artifact(request.out_dir, request.persona, request.pack, request.config.steps)


@dataclass
class World:
    """A home with one persona and one pack; nothing is trained or generated yet."""

    home: Home
    pack: OpenPack
    persona: Persona
    photos_dir: Path
    engine: PaintingEngine = field(default_factory=PaintingEngine)
    stack: HueStack = field(default_factory=HueStack)
    trainer: WritingTrainer = field(default_factory=WritingTrainer)
    now: datetime = NOW

    def dataset(self, count: int = 12) -> Dataset:
        return make_dataset(self.home, self.persona, self.photos_dir, count)

    def artifact(self, version: str = "v001", steps: int = 40) -> Path:
        return make_artifact(self.home, self.persona, self.pack, version, steps)

    def sign(self, slug: str, **consent: object) -> Persona:
        """Another persona, whose consent differs in what is named."""
        return make_persona(self.home, slug, **consent)

    def workshop(self) -> Workshop:
        """The tools of the whole flow, all scripted."""
        words = {"gender": "woman", "hair_color": "red", "beard": "none"}
        return Workshop(
            pack=self.pack,
            stack=lambda: self.stack,
            captions=Beside,
            trainer=lambda: self.trainer,
            engine=lambda: self.engine,
            shoot=shoot,
            descriptors=lambda _: words,
        )


@pytest.fixture
def world(tmp_path: Path, home: Home) -> World:
    return World(home, make_pack(tmp_path / "pack"), make_persona(home), tmp_path / "photos")


def shoot(seed: int, photos: int, folder: Path) -> None:
    """A folder of painted pictures: the sitter's, two of a stranger, a copy, a damaged file."""
    rng = np.random.default_rng(seed)
    for place in range(photos - 2):
        person = STRANGER if place in (3, 9) else SITTER
        image = np.asarray(painted(person, seed + place).resize((320, 320)), float)
        coarse = Image.fromarray(rng.integers(0, 255, (6, 6), dtype=np.uint8)).resize((320, 320))
        fine = rng.normal(0, 14, (320, 320, 1))
        mixed = np.clip(image + (np.asarray(coarse, float)[..., None] - 128) * 0.25 + fine, 0, 255)
        Image.fromarray(mixed.astype(np.uint8)).save(folder / f"IMG_{place:04d}.jpg", quality=92)
    (folder / "copy.jpg").write_bytes((folder / "IMG_0000.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes((folder / "IMG_0001.jpg").read_bytes()[:200])


def make_pack(folder: Path) -> OpenPack:
    """A pack without weights: a tokenizer of single characters and strangers in every other colour."""
    words = [chr(code) for code in range(32, 127)]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    private_dir(folder / "tokenizer")
    atomic_write(folder / "tokenizer" / "tokenizer.json", tokenizer.to_str())
    rng = np.random.default_rng(5)
    strangers = [direction(rng.normal(0, 1, (4, 3))) for _ in range(3100)]
    faces = private_dir(folder / "faces")
    Impostors(np.stack(strangers), np.arange(3100) // 10, "hue", "painted").save(faces / "impostors.npz")
    manifest = Pack(
        name="paint", version="1", family="qwen_image", native_size_px=SIDE_PX, side_multiple_px=16,
        defaults={"width_px": SIDE_PX, "height_px": SIDE_PX, "dtype": "float32", "steps": 4},
        training={"steps": 3, "buckets": ["1:1"]}, synthetic=True, limits="It is paint.",
    )  # fmt: skip
    return OpenPack(manifest=manifest, folder=folder)


def make_persona(home: Home, slug: str = "sitter", **consent: object) -> Persona:
    """A persona in the store; keyword arguments replace parts of the consent."""
    terms = {
        "kind": "synthetic", "signed_by": "nobody", "signed_on": date(2026, 1, 1),
        "scopes": frozenset({Scope.portraits}),
    } | consent  # fmt: skip
    persona = Persona(
        slug=slug, trigger=f"<oblik_{slug}>", class_noun="woman", descriptors={"hair_color": "red"},
        consent=Consent.model_validate(terms), created_at=NOW,
    )  # fmt: skip
    PersonaStore(home).create(persona)
    return persona


def make_dataset(home: Home, persona: Persona, photos_dir: Path, count: int = 12) -> Dataset:
    """A finished dataset: teaching, held-out and hard photos, one stranger and one unreadable file."""
    folder = private_dir(home.persona(persona.slug).datasets / "v001" / "images")
    private_dir(photos_dir)
    splits = [Split.validation, Split.train, Split.train, Split.stress]
    photos, embeddings, stack = [], {}, HueStack()
    for place in range(count):
        name, key = f"IMG_{place:04d}.png", f"{place:064x}"
        image = painted(SITTER, place, spread=4)
        save_clean_png(image, folder / name)
        save_clean_png(image, photos_dir / name)
        embeddings[key] = stack.embed(pixels := np.asarray(image), stack.detect(pixels)[0])
        photos.append(
            Photo(
                source=name,
                source_sha256=key,
                status=Status.accepted,
                path=f"images/{name}",
                split=splits[place % 4],
                caption=f"photo of {persona.trigger} woman",
                attributes={"view": "front"},
            )
        )
    save_clean_png(painted(STRANGER, 99), photos_dir / "stranger.png")
    (photos_dir / "broken.jpg").write_bytes(b"not a picture")
    for name, status, reason in (
        ("stranger.png", Status.set_aside, "somebody else"),
        ("broken.jpg", Status.refused, "cannot be read"),
    ):
        photos.append(Photo(source=name, source_sha256=f"{len(photos):064x}", status=status, reason=reason))
    dataset = Dataset(
        persona=persona.slug, version="v001", trigger=persona.trigger, class_noun="woman", created_at=NOW,
        consent_sha256=consent_sha256(persona.consent), face_stack="hue", short_side_px=SIDE_PX,
        embeddings="faces.npz", photos=photos,
    )  # fmt: skip
    np.savez(folder.parent / "faces.npz", **embeddings)  # type: ignore[arg-type]
    atomic_write(folder.parent / "dataset.json", dataset.model_dump_json())
    return dataset


def make_artifact(
    home: Home, persona: Persona, pack: OpenPack, version: str = "v001", steps: int = 40
) -> Path:
    """A finished artifact of dataset v001 in the persona's home."""
    return fill_artifact(home.persona(persona.slug).loras / version, persona, pack, steps)


def fill_artifact(folder: Path, persona: Persona, pack: OpenPack, steps: int) -> Path:
    """An artifact with a loss curve and samples."""
    version = private_dir(folder).name
    token_id = write_tokenizer(pack.tokenizer_file.parent, (folder / TOKENIZER).parent, persona.trigger)
    assert (folder / TOKENIZER).is_file()
    atomic_write(folder / WEIGHTS, b"weights")
    private_dir(folder / "samples")
    samples = {}
    for step in range(0, steps + 1, max(1, steps // 4)):
        samples[step] = f"samples/{step:05d}.png"
        save_clean_png(painted(SITTER, step, 40), folder / samples[step])
    losses = [
        LossPoint(step=step, train=0.6 / (1 + step / 20), validation=0.5 if step % 10 == 0 else None)
        for step in range(1, steps + 1)
    ]
    atomic_write(folder / CURVES, TrainingLog(losses=losses, samples=samples).model_dump_json())
    artifact = LoraArtifact(
        persona=persona.slug, version=version, pack=pack.manifest.name, pack_version=pack.manifest.version,
        dataset="v001", dataset_sha256="0" * 64, consent_sha256=consent_sha256(persona.consent),
        trigger=persona.trigger, token_id=token_id, class_noun=persona.class_noun, rank=16, alpha=16.0,
        targets=("to_q",), steps=steps, config=TrainConfig(steps=steps), created_at=NOW, seconds=94.0,
        weights_sha256=sha256_file(folder / WEIGHTS), token_sha256="0" * 64, libraries={"paint": "1"},
    )  # fmt: skip
    atomic_write(folder / MANIFEST, artifact.model_dump_json())
    return folder
