"""An adapter that is trained here is the one that rung 1 reads, and a run that was stopped goes on."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from oblik.diffusion.families.family import open_family
from oblik.diffusion.identity import FILE, read_name
from oblik.diffusion.load import open_pipeline
from oblik.errors import BackendUnavailable, InvalidInput, JobCancelled, NotFound
from oblik.faces.stack import FaceStack, open_stack
from oblik.flows.adapter import (
    AdapterOrder,
    Seen,
    list_adapters,
    portraits_of,
    remove_adapter,
    train_adapter,
)
from oblik.generation.adapters import Sight
from oblik.generation.backends.references import References
from oblik.generation.plan import Plan
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot
from oblik.packs.manifest import OpenPack, Pack
from oblik.packs.store import open_pack
from oblik.paths import Home
from oblik.progress import SilentProgress
from oblik.training.adapter import WORD, AdapterConfig, Portrait
from oblik.training.backends import projector

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
CONFIG = AdapterConfig(steps=9, batch=4, checkpoint_every=3, learning_rate=3e-3)
SITTERS = (0, 1, 2)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def stack() -> FaceStack:
    return open_stack("onnx", folder=open_pack("miniature", Home(Path("nowhere"))).faces_folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people with three photos each, one with a single photo, and a landscape."""
    root = tmp_path_factory.mktemp("people")
    for seed in (*SITTERS, 3):
        (root / f"p{seed}").mkdir()
        for place in range(3 if seed != 3 else 1):
            image = render(Person.from_seed(seed), Shot(yaw_deg=6.0 * place, seed=place), (200, 160)).image
            Image.fromarray(image).save(root / f"p{seed}" / f"{place}.png")
    Image.new("RGB", (200, 160), (90, 120, 90)).save(root / "p0" / "landscape.png")
    return root


def train(
    home: Home, stack: FaceStack, order: AdapterOrder, progress: SilentProgress | None = None
) -> OpenPack:
    pack = open_pack("miniature", home)
    train_adapter(
        order, home=home, pack=pack, stack=stack, device="cpu", progress=progress or SilentProgress(), now=NOW
    )
    return pack


def portraits(folder: Path, stack: FaceStack) -> tuple[list[Portrait], int]:
    seen = (
        Seen(path.parent.name, Image.open(path), f"photo of {WORD} person") for path in folder.glob("*/*")
    )
    return portraits_of(seen, stack, 128)


def test_a_portrait_is_told_by_the_persons_other_photos(folder: Path, stack: FaceStack) -> None:
    found, people = portraits(folder, stack)
    assert (people, len(found)) == (3, 9)
    for portrait in found:
        assert portrait.pixels_HW3.shape == (128, 128, 3)
        face = stack.detect(portrait.pixels_HW3)[0]
        assert np.abs(face.landmarks - portrait.landmarks).mean() < 4
        own = stack.embed(portrait.pixels_HW3, face)
        assert np.linalg.norm(portrait.vector_D) == pytest.approx(1)
        assert 0.2 < own @ portrait.vector_D < 0.999, "like the person's, and not the photo's own"


def test_training_makes_the_faces_likelier(folder: Path, stack: FaceStack, home: Home) -> None:
    found, _ = portraits(folder, stack)
    pack = open_pack("miniature", home)
    pipeline = open_pipeline(pack, None, dtype=torch.float32, device=torch.device("cpu"))
    pipeline.tokenizer.add_tokens([WORD])
    family = open_family("qwen_image", pipeline)
    lessons = projector._lessons(found, family, CONFIG, SilentProgress())
    run = projector._Run(family, None, lessons, CONFIG, "person")
    first = read_weights(run)
    before = np.mean([run.backward(step) for step in range(100, 103)])
    run.optimiser.zero_grad()
    losses = run.go(home.root / "adapter.pt", "key", SilentProgress())
    after = np.mean([run.backward(step) for step in range(100, 103)])
    assert after < before
    assert list(losses) == [3, 6, 9]
    assert not torch.equal(first, read_weights(run))
    frozen = [*family.network.parameters(), *pipeline.text_encoder.parameters()]
    assert all(each.grad is None for each in frozen)


def read_weights(run: projector._Run) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in run.net.parameters()])


class StopsAfter(SilentProgress):
    """Asks to stop once so many steps were announced."""

    def __init__(self, checks: int) -> None:
        self.left = checks

    def check_cancelled(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise JobCancelled("stopped")


def test_a_stopped_run_goes_on_to_the_same_weights_and_rung_one_reads_them(
    folder: Path, stack: FaceStack, tmp_path: Path
) -> None:
    order = AdapterOrder(folder, config=CONFIG)
    whole, broken = Home(tmp_path / "whole"), Home(tmp_path / "broken")
    train(whole, stack, order)
    with pytest.raises(JobCancelled):
        train(broken, stack, order, StopsAfter(11 + 9 + 5))  # reads 11 files, encodes 9, does 5 steps
    assert not open_pack("miniature", broken).find(str(FILE)).is_relative_to(broken.root)
    with pytest.raises(InvalidInput, match="other settings"):
        train(broken, stack, AdapterOrder(folder, config=CONFIG.model_copy(update={"seed": 1})))
    train(broken, stack, order)
    files = [open_pack("miniature", each).find(str(FILE)) for each in (whole, broken)]
    assert [file.is_relative_to(tmp_path) for file in files] == [True, True]
    one, other = (load_file(file) for file in files)
    assert all(torch.equal(one[name], other[name]) for name in one)

    made = list_adapters(broken)[0]
    assert (made.pack, made.people, made.pictures) == ("miniature", 3, 9)
    assert made.source == f"the folder {folder.name}"
    vectors = portraits(folder, stack)[0][0].vector_D[None]
    pack = open_pack("miniature", broken)
    assert read_name(pack.find(str(FILE)), vectors, stack.name) is not None
    photo = broken.persona("p").root / "a.png"
    photo.parent.mkdir(parents=True)
    Image.open(folder / "p0" / "0.png").save(photo)
    for adapter in ("identity-tokens", "edit-reference"):  # both read the word
        plan = Plan.model_validate({
            "pack": "miniature", "persona": "p", "prompt": "photo of a person", "seeds": (1,),
            "references": [{"image": "a.png", "adapter": adapter}],
        })  # fmt: skip
        referred = References.of(plan, pack, Sight(broken.personas, lambda: stack), {})
        assert referred is not None
        assert referred._sha256["projector.safetensors"] == made.sha256, "the record says whose it was"

    remove_adapter("miniature", broken)
    assert open_pack("miniature", broken).find(str(FILE)).is_relative_to(pack.folder)
    with pytest.raises(NotFound):
        remove_adapter("miniature", broken)


def test_what_cannot_be_trained_is_refused(
    folder: Path, stack: FaceStack, home: Home, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="1 people"):
        train(home, stack, AdapterOrder(rendered=1, config=CONFIG))
    manifest = Pack(name="p", version="1", family="stable_diffusion", native_size_px=64, side_multiple_px=8)
    with pytest.raises(BackendUnavailable, match="for Qwen-Image"):
        train_adapter(
            AdapterOrder(folder), home=home, pack=OpenPack(manifest=manifest, folder=tmp_path), stack=stack,
            device="cpu", progress=SilentProgress(), now=NOW,
        )  # fmt: skip
