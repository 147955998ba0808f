"""Control images are drawn as the nets learned them, and what a pack lacks for them is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oblik.errors import BackendUnavailable, InvalidInput
from oblik.faces.stack import Face
from oblik.generation.control import (
    EYE_LEFT,
    EYE_RIGHT,
    NOSE,
    cut,
    depth_image,
    fitted,
    lack,
    net_folder,
    open_depth,
    pose_from,
    pose_image,
)
from oblik.generation.ladder import Heights, larger, on_face
from oblik.generation.plan import Control, Plan, Reference
from oblik.packs.manifest import OpenPack, Pack

MARKS = np.array([[40, 50], [88, 52], [70, 78], [48, 100], [84, 102]], np.float32)


def pack_of(folder: Path, family: str = "qwen_image", name: str = "p") -> OpenPack:
    manifest = Pack(name=name, version="1", family=family, native_size_px=128, side_multiple_px=16)
    return OpenPack(manifest=manifest, folder=folder)


def test_each_landmark_has_its_own_colour_where_it_lies() -> None:
    drawn = np.asarray(pose_image(MARKS, 128, 144))
    assert drawn.shape == (144, 128, 3)
    expected = (EYE_LEFT, EYE_RIGHT, NOSE, (255, 255, 255), (255, 255, 255))
    for (x, y), colour in zip(MARKS.astype(int), expected, strict=True):
        assert tuple(drawn[y, x]) == colour
    assert (drawn.reshape(-1, 3) == 0).all(1).mean() > 0.9


def test_the_pose_of_a_wide_photo_keeps_its_place_in_a_square_picture() -> None:
    face = Face(box=(0, 0, 1, 1), landmarks=MARKS + np.float32([200, 0]), score=1.0)
    photo = Image.new("RGB", (400, 144))
    drawn = np.asarray(pose_from(face, photo, (288, 288)))
    nose = np.argwhere((drawn == NOSE).all(-1)).mean(0)
    left, _, wide, high = cut((400, 144), (288, 288), tuple(face.landmarks.mean(0)))
    assert wide == high == 144
    assert np.allclose(nose[::-1], [(270 - left) * 2, 156], atol=1.5)
    with pytest.raises(InvalidInput, match="no face"):
        pose_from(None, photo, (288, 288))


def test_depth_is_white_where_it_is_near_and_black_where_there_is_nothing() -> None:
    drawn = np.asarray(depth_image(np.array([[0.0, 0.25], [0.5, 0.4]], np.float32)))
    assert drawn[..., 0].tolist() == [[0, 128], [255, 204]]
    assert (drawn == drawn[..., :1]).all()
    assert not np.asarray(depth_image(np.zeros((2, 2), np.float32))).any()


def test_a_finished_image_is_cut_to_the_shape_of_the_picture() -> None:
    stripes = Image.fromarray(np.repeat(np.arange(90, dtype=np.uint8)[None, :, None], 30, 0).repeat(3, 2))
    made = np.asarray(fitted(stripes, (60, 60)))
    assert made.shape == (60, 60, 3)
    assert 28 < made.min() < 34
    assert 56 < made.max() < 62


def test_a_pack_without_a_net_says_so_and_how_to_get_one(tmp_path: Path) -> None:
    bare = lack("pose", pack_of(tmp_path, name="qwen-image-16gb"))
    assert bare is not None
    assert "no controlnet" in bare.what
    assert bare.hint == "oblik pack pull qwen-image-16gb --with controlnet"
    stranger = lack("pose", pack_of(tmp_path, "flux"))
    assert stranger is not None
    assert stranger.hint == "oblik pack list"


def test_a_net_of_one_kind_serves_that_kind_only(tmp_path: Path) -> None:
    folder = tmp_path / "controlnet" / "depth"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    pack = pack_of(tmp_path)
    assert net_folder("depth", pack) == folder
    assert lack("depth", pack) is None
    assert lack("pose", pack) is not None


def test_depth_that_cannot_be_read_names_what_does_instead(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="depth") as refused:
        open_depth(pack_of(tmp_path))
    assert "--control" in refused.value.hint


def test_every_rung_keeps_the_control() -> None:
    control = Control(kind="pose", image="controls/a.png")
    plan = Plan(pack="p", persona="sitter", prompt="photo of a woman", seeds=(1,), controls=(control,))
    manifest = Pack(name="p", version="1", family="qwen_image", native_size_px=128, side_multiple_px=16)
    raised = larger(on_face(plan, (Reference(image="a.png"),)), Heights(), manifest)
    assert raised.controls == (control,)
    assert raised.references
