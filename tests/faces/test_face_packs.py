"""A pulled face pack can be used at once: its ``faces.json``, the setting, the default, the licence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.contracts.dot_networks import embedder, scrfd, yunet
from tests.contracts.test_face_stack import picture

from oblik import studio
from oblik.errors import NotFound, PackBroken
from oblik.packs.catalogue import Entry, find_entry
from oblik.packs.manifest import OpenPack, Pack
from oblik.packs.pull import Wish
from oblik.packs.store import verify
from oblik.settings import Settings

LICENCE = "InsightFace-non-commercial"


def settings_of(home: Path, face_stack: str = "pack") -> Settings:
    return Settings.load(home=home, face_stack=face_stack)


def pull(home: Path, stick: Path, name: str) -> OpenPack:
    """The catalogue's entry with networks of dots for the real files, hence without their hashes."""
    entry = find_entry(name)
    assert entry.faces is not None
    for part in entry.parts:
        for file in part.files:
            file.bytes = file.sha256 = None
            place = stick / part.repository / file.file
            place.parent.mkdir(parents=True, exist_ok=True)
            detector = scrfd if entry.faces.detector.kind == "scrfd" else yunet
            net = detector(640) if part.component == "detector" else embedder(entry.faces.embedder.dims, "n")
            onnx.save(net, str(place))
        part.revision = None
    wish = Wish(Entry.model_validate(entry.model_dump()), name, accepted=(LICENCE,), copy=str(stick))
    return studio.pull_pack(settings_of(home), wish).pack


def bare(tmp_path: Path) -> OpenPack:
    """A base model without face networks, as Stable Diffusion is."""
    pack = Pack(name="plain", version="1", family="sd15", native_size_px=512, side_multiple_px=8)
    return OpenPack(manifest=pack, folder=tmp_path / "plain")


@pytest.mark.parametrize("name", ["auraface", "buffalo_l", "yunet-sface"])
def test_a_pulled_face_pack_is_a_face_stack(tmp_path: Path, name: str) -> None:
    pack = pull(tmp_path / "home", tmp_path / "stick", name)
    assert verify(pack) == []
    settings = settings_of(tmp_path / "home", name)
    base = studio.pack_of(settings)
    stack = studio.face_stack_of(base, settings)
    image, points = picture(640, 480, (300.0, 200.0, 1.5))
    (face,) = stack.detect(image)
    assert np.abs(face.landmarks - points[0]).max() < 0.3
    assert stack.embed(image, face).shape == ((128,) if name == "yunet-sface" else (512,))
    caution = studio.face_caution(base, settings)
    assert (LICENCE in caution) == (name == "buffalo_l")
    (pack.faces_folder / "faces.json").write_text("{}", encoding="utf-8")
    assert verify(pack) == ["faces/faces.json differs from its hash"]
    with pytest.raises(PackBroken):
        studio.face_stack_of(base, settings)


def test_stacks_have_different_names() -> None:
    entries = [find_entry(name).faces for name in ("auraface", "buffalo_l", "yunet-sface")]
    assert len({faces.name for faces in entries if faces}) == 3


def test_a_face_pack_that_is_not_there_names_the_pull(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "buffalo_l")
    with pytest.raises(NotFound, match="buffalo_l") as refused:
        studio.face_stack_of(studio.pack_of(settings), settings)
    assert refused.value.hint == "oblik pack pull buffalo_l"
    for name in ("onnx", "nonesuch"):
        settings = settings_of(tmp_path, name)
        with pytest.raises(NotFound, match=name):
            studio.face_stack_of(studio.pack_of(settings), settings)
    assert studio.face_caution(bare(tmp_path), settings) == ""


def test_a_model_without_faces_uses_auraface(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home")
    with pytest.raises(NotFound, match="plain brings no face networks") as refused:
        studio.face_stack_of(bare(tmp_path), settings)
    assert refused.value.hint == "oblik pack pull auraface"
    pull(tmp_path / "home", tmp_path / "stick", "auraface")
    assert studio.face_stack_of(bare(tmp_path), settings).name.startswith("auraface")


def test_the_miniature_keeps_its_own(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert studio.face_stack_of(studio.pack_of(settings), settings).name.startswith("oblik-miniature")


def test_a_pack_without_faces_json_is_pulled_again(tmp_path: Path) -> None:
    pack = pull(tmp_path / "home", tmp_path / "stick", "auraface")
    (pack.faces_folder / "faces.json").unlink()
    settings = settings_of(tmp_path / "home", "auraface")
    with pytest.raises(PackBroken) as broken:
        studio.face_stack_of(studio.pack_of(settings), settings)
    assert broken.value.hint == "oblik pack pull auraface"
