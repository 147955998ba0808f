"""A dataset of one rendered person, written by hand: training is tested without curation."""

from __future__ import annotations

import zlib
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.training.tiny import qwen_pack

from oblik.datasets.manifest import Dataset, Extra, Kind, Photo, Split, Status, read_dataset
from oblik.faces.stack import FaceStack, open_stack
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot
from oblik.packs.manifest import OpenPack
from oblik.packs.store import open_pack
from oblik.paths import Home, sha256_file
from oblik.personas.persona import Consent, Persona, Scope
from oblik.training.config import TrainConfig
from oblik.training.judge import Judge
from oblik.training.trainer import TrainRequest

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
SEED = 700_001
CONFIG = TrainConfig(
    rank=4, alpha=4.0, learning_rate=1e-3, token_learning_rate=1e-2, token_steps=4, steps=6, batch=2,
    text_layers=0, warmup_steps=2, checkpoint_every=2, validate_every=5, dtype="float32",
)  # fmt: skip


class Ask(Protocol):
    """Builds a request for an artifact folder."""

    def __call__(self, out: Path, *, resume: bool = False, **changed: Any) -> TrainRequest: ...


@pytest.fixture(scope="session")
def ask(pack: OpenPack, persona: Persona, dataset_dir: Path) -> Ask:
    def build(out: Path, *, resume: bool = False, **changed: Any) -> TrainRequest:
        return TrainRequest(
            pack=pack, persona=persona, dataset=read_dataset(dataset_dir), dataset_dir=dataset_dir,
            out_dir=out, config=CONFIG.model_copy(update=changed), now=NOW, resume=resume,
        )  # fmt: skip

    return build


@pytest.fixture(scope="session")
def pack() -> OpenPack:
    return open_pack("miniature", Home(Path("nowhere")))


@pytest.fixture(scope="session")
def persona() -> Persona:
    consent = Consent(
        kind="synthetic", signed_by="seed", signed_on=date(2026, 1, 1), scopes=frozenset({Scope.portraits})
    )
    return Persona(slug="s", trigger="<oblik_s>", class_noun="person", consent=consent, created_at=NOW)


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory, persona: Persona, pack: OpenPack) -> Path:
    folder, stack = tmp_path_factory.mktemp("dataset"), open_stack("onnx", folder=pack.faces_folder)
    photos = [_photo(folder, index) for index in range(8)]
    dataset = Dataset(
        persona=persona.slug, version="v001", trigger=persona.trigger, class_noun=persona.class_noun,
        created_at=NOW, consent_sha256="0" * 64, face_stack=stack.name, short_side_px=128,
        embeddings="faces.npz", photos=photos,
    )  # fmt: skip
    vectors: dict[str, Any] = {
        photo.source_sha256: _vector(stack, folder / str(photo.path)) for photo in photos
    }
    np.savez(folder / dataset.embeddings, **vectors)
    (folder / "dataset.json").write_text(dataset.model_dump_json(), encoding="utf-8")
    return folder


def _vector(stack: FaceStack, file: Path) -> NDArray[np.float32]:
    image = np.asarray(Image.open(file).convert("RGB"))
    return stack.embed(image, stack.detect(image)[0])


def _photo(folder: Path, index: int) -> Photo:
    photo = render(Person.from_seed(SEED), Shot.portrait(np.random.default_rng(index)), 128)
    image, mask = folder / f"{index}.png", folder / f"{index}-mask.png"
    Image.fromarray(photo.image).save(image)
    Image.fromarray(photo.face_mask).save(mask)
    return Photo(
        source=image.name, source_sha256=str(index), status=Status.accepted, path=image.name,
        sha256=sha256_file(image), mask=mask.name, width_px=128, height_px=128, bucket="128x128",
        split=Split.train if index < 6 else Split.validation,
        caption="photo of <oblik_s> person, frontal view",
    )  # fmt: skip


TINY = TrainConfig(
    rank=2, alpha=2.0, text_rank=2, text_layers=1, token_start="noun", learning_rate=1e-3, token_steps=3,
    token_learning_rate=1e-2, text_learning_rate=1e-2, steps=6, batch=4, warmup_steps=2, dtype="float32",
    checkpoint_every=2, validate_every=3, schedule="constant",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> OpenPack:
    return qwen_pack(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_ask(tmp_path_factory: pytest.TempPathFactory, persona: Persona, tiny_pack: OpenPack) -> AskTiny:
    """Requests for a base model with random weights; ``folder`` and ``pack`` are another dataset and pack."""
    own = tmp_path_factory.mktemp("pictures")
    write_pictures(own, persona)

    def build(
        out: Path, *, folder: Path = own, pack: OpenPack = tiny_pack, resume: bool = False,
        caches: Path | None = None, judge: Judge | None = None, **changed: Any,
    ) -> TrainRequest:  # fmt: skip
        return TrainRequest(
            pack=pack, persona=persona, dataset=read_dataset(folder), dataset_dir=folder, out_dir=out,
            config=TINY.model_copy(update=changed), now=NOW, resume=resume, caches=caches, judge=judge,
        )  # fmt: skip

    return build


class AskTiny(Protocol):
    """Builds a request for a tiny base model."""

    def __call__(self, out: Path, **changed: Any) -> TrainRequest: ...


def write_pictures(
    folder: Path,
    persona: Persona,
    sizes: tuple[tuple[int, int], ...] = ((32, 32),),
    extras: tuple[Kind, ...] = (),
) -> None:
    """A dataset of noise: in each size six photos to learn, two held out; two pictures of each extra kind."""
    photos = [
        _noise_photo(folder, f"{width}x{height}-{place}", (width, height), place < 6)
        for width, height in sizes
        for place in range(8)
    ]
    beside = [
        Extra(
            kind=kind, path=(name := _noise(folder, f"{kind.value}-{place}", sizes[0])),
            sha256=sha256_file(folder / name), width_px=sizes[0][0], height_px=sizes[0][1], bucket="b",
            caption="photo of a person", origin="noise",
        )
        for kind in extras
        for place in range(2)
    ]  # fmt: skip
    dataset = Dataset(
        persona=persona.slug, version="v001", trigger=persona.trigger, class_noun=persona.class_noun,
        created_at=NOW, consent_sha256="0" * 64, face_stack="none", short_side_px=32, embeddings="faces.npz",
        photos=photos, extras=beside,
    )  # fmt: skip
    (folder / "dataset.json").write_text(dataset.model_dump_json(), encoding="utf-8")


def _noise_photo(folder: Path, name: str, size: tuple[int, int], teaches: bool) -> Photo:
    file, mask = _noise(folder, name, size), f"{name}-mask.png"
    Image.new("L", size, 128).save(folder / mask)
    return Photo(
        source=file, source_sha256=name, status=Status.accepted, path=file, sha256=sha256_file(folder / file),
        mask=mask, width_px=size[0], height_px=size[1], bucket="b",
        split=Split.train if teaches else Split.validation, caption=f"photo of <oblik_s> person, {name[-1]}",
    )  # fmt: skip


def _noise(folder: Path, name: str, size: tuple[int, int]) -> str:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)).resize(size)
    coarse.save(folder / f"{name}.png")
    return f"{name}.png"
