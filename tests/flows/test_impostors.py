"""Other people to calibrate with: a user's folder before the pack's, and where they come from is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.flows.conftest import painted

from oblik.errors import InvalidInput, NotFound
from oblik.flows.calibrate import open_ruler
from oblik.flows.class_images import painter_of
from oblik.flows.impostors import MOST_STRANGERS, from_folder, from_pack, impostors_file, open_impostors
from oblik.images import save_clean_png
from oblik.likeness.calibration import ENOUGH_SCORES
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World


def people(folder: Path, count: int, photos: int) -> Path:
    """``count`` sub-folders with ``photos`` pictures each, and one picture of a further person."""
    rng = np.random.default_rng(3)
    for place in range(count):
        colours = rng.uniform(40, 200, (4, 3))
        for photo in range(photos):
            save_clean_png(painted(colours, photo), folder / f"person {place}" / f"{photo}.png")
    save_clean_png(painted(rng.uniform(40, 200, (4, 3)), 0), folder / "alone.png")
    return folder


def test_a_folder_for_each_person_becomes_the_impostors(world: World, tmp_path: Path) -> None:
    world.dataset()
    folder = people(tmp_path / "others", 5, 3)
    save_clean_png(Image.new("RGB", (64, 64)), folder / "person 0" / "dark.png")
    (folder / "person 1" / "broken.jpg").write_bytes(b"not a picture")
    before = open_ruler(world.persona, home=world.home, pack=world.pack, stack=world.stack).calibration
    found = from_folder(folder, world.stack, world.home, SilentProgress())
    assert (found.impostors.identities, len(found.impostors.embeddings_MD), found.misses) == (6, 16, 2)
    assert found.impostors.source == "the folder others: 6 people, 16 pictures"
    assert found.separation is not None
    assert (found.separation.impostor_pairs, found.separation.genuine_pairs) == (105, 15)
    assert found.closest is not None
    assert set(found.closest) <= {"alone.png", *(f"person {place}" for place in range(5))}
    after = open_ruler(world.persona, home=world.home, pack=world.pack, stack=world.stack).calibration
    assert (before.source, before.impostor_identities) == ("painted", 310)
    assert (after.source, after.impostor_identities) == (found.impostors.source, 6)
    assert not after.can_claim


def test_they_belong_to_one_face_stack(world: World, tmp_path: Path) -> None:
    found = from_folder(people(tmp_path, 2, 1), world.stack, world.home, SilentProgress())
    assert impostors_file(world.home, world.pack, world.stack.name) == found.path
    taken = open_impostors(world.home, world.pack, world.stack.name)
    assert taken.source == found.impostors.source
    with pytest.raises(NotFound, match="for the face stack 'other/stack'") as missing:
        open_impostors(world.home, world.pack, "other/stack")
    assert missing.value.hint == "oblik likeness impostors FOLDER"
    assert str(tmp_path) not in found.impostors.source, "where somebody keeps photos is nobody's business"


def test_the_pack_can_paint_them_without_a_token(world: World) -> None:
    quiet = SilentProgress()
    painter = painter_of(world.pack, lambda: world.engine, home=world.home, progress=quiet, now=world.now)
    found = from_pack(painter, 10, world.stack, world.home, quiet)
    assert found.impostors.identities == 10
    assert found.impostors.source == "painted by paint 1 without a token: 10 people, 10 pictures"
    assert all(plan.lora is None and "<oblik_" not in plan.prompt for plan in world.engine.plans)
    assert MOST_STRANGERS >= ENOUGH_SCORES, "a claim can be painted"
    with pytest.raises(InvalidInput, match="5001 pictures"):
        from_pack(painter, MOST_STRANGERS + 1, world.stack, world.home, quiet)


def test_a_folder_without_faces_is_refused_and_nothing_is_replaced(world: World, tmp_path: Path) -> None:
    kept = from_folder(people(tmp_path / "a", 2, 1), world.stack, world.home, SilentProgress())
    save_clean_png(Image.new("RGB", (64, 64)), tmp_path / "b" / "dark.png")
    with pytest.raises(InvalidInput, match="no face in 1 pictures"):
        from_folder(tmp_path / "b", world.stack, world.home, SilentProgress())
    with pytest.raises(NotFound):
        from_folder(tmp_path / "c", world.stack, world.home, SilentProgress())
    assert kept.path.is_file()
