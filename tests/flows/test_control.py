"""A control image is made once, kept in the persona's folder by its hash, and named by the plan."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oblik.errors import BackendUnavailable, ConsentError, InvalidInput
from oblik.faces.stack import Face
from oblik.flows.control import controlled
from oblik.generation.plan import Control, Plan
from oblik.packs.manifest import OpenPack, Pack
from oblik.paths import Home
from oblik.personas.enrol import synthetic_consent
from oblik.personas.persona import Persona

TODAY = datetime(2026, 6, 1, tzinfo=timezone.utc)
MARKS = np.array([[40, 50], [88, 52], [70, 78], [48, 100], [84, 102]], np.float32)


class Stack:
    name = "faces-1"

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def detect(self, image: object) -> list[Face]:
        return self.faces

    def embed(self, image: object, face: Face) -> np.ndarray:
        raise AssertionError("nobody is recognised")


def plan_of(
    home: Home, kind: str, file: Path, *, net: bool = True, faces: int = 1, revoked_on: date | None = None
) -> Plan:
    folder = home.packs / "p"
    (folder / "controlnet").mkdir(parents=True, exist_ok=True)
    if net:
        (folder / "controlnet" / "config.json").write_text("{}")
    manifest = Pack(name="p", version="1", family="qwen_image", native_size_px=128, side_multiple_px=16)
    wish = Control(kind=kind, image=str(file.absolute()), weight=0.7)
    plan = Plan(
        pack="p", persona="sitter", prompt="photo of a woman", seeds=(1,), width_px=128, height_px=160,
        controls=(wish,),
    )  # fmt: skip
    stack = Stack(*[Face(box=(0, 0, 1, 1), landmarks=MARKS, score=1.0)] * faces)
    consent = synthetic_consent(TODAY.date()).model_copy(update={"revoked_on": revoked_on})
    persona = Persona(
        slug="sitter", trigger="<oblik_sitter>", class_noun="woman", descriptors={}, consent=consent,
        created_at=TODAY,
    )  # fmt: skip
    pack = OpenPack(manifest=manifest, folder=folder)
    return controlled(persona, plan, home=home, pack=pack, stack=lambda: stack, now=TODAY)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (128, 160), (200, 10, 10)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_plan_names_the_image_that_was_kept(home: Home, photo: Path) -> None:
    posed, again, given = (plan_of(home, kind, photo) for kind in ("pose", "pose", "given"))
    assert posed == again
    control, finished = posed.controls[0], given.controls[0]
    assert (control.kind, control.weight) == ("pose", 0.7)
    assert control.image is not None
    assert finished.image is not None
    files = sorted((home.personas / "sitter" / "controls").iterdir())
    assert sorted(f"controls/{file.name}" for file in files) == sorted({control.image, finished.image})
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    drawn = np.asarray(Image.open(home.personas / "sitter" / control.image))
    assert drawn.shape == (160, 128, 3)
    assert tuple(drawn[78, 70]) == (255, 0, 0), "the pose is drawn, and nothing of the photo is kept"
    assert not (drawn == (200, 10, 10)).all(-1).any()


def test_without_consent_no_photo_is_read_and_nothing_is_kept(home: Home) -> None:
    with pytest.raises(ConsentError, match="revoked"):
        plan_of(home, "pose", Path("not-there.png"), revoked_on=date(2026, 5, 1))
    assert not (home.personas / "sitter").exists()


def test_what_is_missing_is_said_with_what_does_instead(home: Home, photo: Path) -> None:
    with pytest.raises(BackendUnavailable, match="has no controlnet") as refused:
        plan_of(home, "pose", photo, net=False)
    assert "say the view" in refused.value.hint
    with pytest.raises(BackendUnavailable, match="depth") as refused:
        plan_of(home, "depth", photo)
    assert "--control" in refused.value.hint
    with pytest.raises(InvalidInput, match="no face"):
        plan_of(home, "pose", photo, faces=0)
