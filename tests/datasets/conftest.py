"""A pretend phone folder and a face stack that answers from a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oblik.faces.stack import Face
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.personas.enrol import make_persona, synthetic_consent
from oblik.personas.persona import Persona

F32 = NDArray[np.float32]
NOW = datetime(2026, 6, 1, 9, tzinfo=timezone.utc)
NOON = datetime(2026, 5, 1, 12)
POINTS = np.array([[-0.5, -0.35], [0.5, -0.35], [0, 0.2], [-0.36, 0.72], [0.36, 0.72]])


def points(x: float, y: float, unit: float, turn: float = 0.0) -> F32:
    """Five landmarks around (x, y); ``turn`` moves the nose."""
    return np.asarray(POINTS * unit + (x, y) + np.eye(5, 1, -2) * (turn * unit, 0), np.float32)


def embedding(person: int, photo: int) -> F32:
    """A unit vector near the person's own direction."""
    direction = np.random.default_rng([person, 1]).normal(size=32)
    noise = np.random.default_rng([person, photo, 2]).normal(size=32)
    vector = direction / np.linalg.norm(direction) + 0.4 * noise / np.linalg.norm(noise)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


@dataclass
class ScriptedStack:
    """Recognises pictures by their thumbnail and returns the faces that were learned for them."""

    name: str = "scripted"
    shown: list[tuple[F32, int, list[tuple[Face, F32]]]] = field(default_factory=list)
    detections: int = 0

    def learn(self, image: NDArray[np.uint8], faces: list[tuple[Face, F32]]) -> None:
        self.shown.append((self._thumb(image), image.shape[1], faces))

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        self.detections += 1
        scale, faces = self._known(image)
        return [Face((0, 0, 1, 1), np.asarray(f.landmarks * scale, np.float32), f.score) for f, _ in faces]

    def embed(self, image: NDArray[np.uint8], face: Face) -> F32:
        scale, faces = self._known(image)
        return min(faces, key=lambda known: float(abs(known[0].landmarks * scale - face.landmarks).sum()))[1]

    def _known(self, image: NDArray[np.uint8]) -> tuple[float, list[tuple[Face, F32]]]:
        thumb = self._thumb(image)
        _, width, faces = min(self.shown, key=lambda known: float(abs(known[0] - thumb).mean()))
        return image.shape[1] / width, faces

    @staticmethod
    def _thumb(image: NDArray[np.uint8]) -> F32:
        return np.asarray(cv2.resize(image, (12, 12), interpolation=cv2.INTER_AREA), np.float32)


@dataclass
class Phone:
    """A folder of photos and the stack that knows them."""

    folder: Path
    stack: ScriptedStack = field(default_factory=ScriptedStack)

    def shoot(
        self, name: str, *, person: int = 1, photo: int = 0, turn: float = 0.0, score: float = 0.95,
        at: datetime | None = None, width: int = 320, height: int = 240, unit: float = 40.0, faces: int = 1,
        blur: float = 0.0, place: int | None = None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        """Write one photo with EXIF (time, GPS) and learn its faces; the persona's is the last.

        Every photo is of another place unless one is given.
        """
        rng = np.random.default_rng([person, photo])
        scene = rng if place is None else np.random.default_rng(place)
        coarse = cv2.resize(scene.integers(90, 220, (5, 7, 3), dtype=np.uint8), (width, height))
        image = np.clip(coarse + rng.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8) if blur else image
        seen = [
            (Face((0, 0, 1, 1), points(width * (i + 1) / (faces + 1), height / 2, unit, turn), score),
             embedding(person if i == faces - 1 else 70 + i, photo))
            for i in range(faces)
        ]  # fmt: skip
        self.stack.learn(image, seen)
        exif = Image.Exif()
        exif[0x010E] = "Subject at home"
        exif.get_ifd(0x8769)[0x9003] = (at or NOON + timedelta(hours=photo)).strftime("%Y:%m:%d %H:%M:%S")
        exif.get_ifd(0x8825)[1] = "N"
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, exif=exif, quality=95, comment=b"private")
        return image


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    """16 good photos of person 1: frontal, three-quarter, two profiles."""
    phone = Phone(tmp_path / "photos")
    for i in range(16):
        phone.shoot(f"IMG_{i:02d}.jpg", photo=i, turn=(0.0, 0.3, -0.3, 0.05)[i % 4] if i < 14 else 1.5)
    return phone


@pytest.fixture
def persona() -> Persona:
    words = {"gender": "woman", "age": "young", "hair_color": "brown", "hair_style": "long"}
    consent = synthetic_consent(date(2026, 5, 31))
    return make_persona("subject", consent, NOW, trigger=None, descriptors=words)


@pytest.fixture
def pack() -> Pack:
    return Pack(
        name="small", version="1", family="qwen_image", native_size_px=128, side_multiple_px=16,
        training={"buckets": ["1:1"]},
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def another_phone(tmp_path: Path) -> Callable[[str], Phone]:
    """Makes an empty phone folder."""
    return lambda name: Phone(tmp_path / name)
