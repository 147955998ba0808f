"""One place for everything that was made of a person: to look at, to give away, to delete."""

from __future__ import annotations

import re
import shutil
import time
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from PIL import Image

from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.flows.calibrate import measure, open_ruler
from oblik.flows.gallery import INDEX, PREVIEWS, batches, chosen, delete, draw, export
from oblik.flows.generate import Order, generate, plan_order
from oblik.generation.plan import Edit
from oblik.generation.presets import find_preset
from oblik.generation.record import read_record, write_record
from oblik.paths import PersonaHome
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World


def make(world: World, name: str, text: str, hour: int = 0) -> Path:
    plan = plan_order(
        Order(text, {"seeds": (1, 2)}), world.persona, find_preset("fast"), world.pack, world.home
    )
    folder = world.home.persona("sitter").gallery / name
    generate(
        world.persona, plan, home=world.home, pack=world.pack, engine=world.engine, progress=SilentProgress(),
        now=world.now + timedelta(hours=hour), folder=folder,
    )  # fmt: skip
    return folder


@pytest.fixture
def folders(world: World) -> PersonaHome:
    world.dataset()
    world.artifact()
    make(world, "v001", "in a <park>")
    make(world, "orders/spring/001-item", "at night", 1)
    make(world, "orders/spring/002-item", "on a beach", 2)
    make(world, "best of #1 & 2", "in a room", 3)
    return world.home.persona("sitter")


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_batches_come_newest_first_and_half_finished_ones_do_not(folders: PersonaHome) -> None:
    shutil.copytree(folders.gallery / "v001", folders.gallery / "orders" / "spring" / "003-item.part")
    names = [batch.name for batch in batches(folders)]
    assert names == ["best of #1 & 2", "orders/spring/002-item", "orders/spring/001-item", "v001"]
    assert batches(PersonaHome(folders.root / "nowhere")) == []


def test_the_page_shows_every_picture_and_needs_nothing_from_elsewhere(
    world: World, folders: PersonaHome
) -> None:
    ruler = open_ruler(world.persona, home=world.home, pack=world.pack, stack=world.stack)
    measure(
        world.persona,
        folders.gallery / "best of #1 & 2",
        ruler,
        home=world.home,
        progress=SilentProgress(),
        now=world.now,
    )
    page = draw(folders, "sitter")
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert len(links.found) == 4 * (1 + 2 * 2)
    assert [link for link in links.found if not (folders.gallery / unquote(link)).is_file()] == []
    assert "in a &lt;park&gt;" in text
    assert re.search(r"mean\s+likeness 0\.9\d, threshold", text)
    assert text.count('class="chip pass"') == 2
    assert len(list((folders.gallery / PREVIEWS).rglob("*.jpg"))) == 8


def test_an_edit_is_called_one_with_its_size_and_what_was_not_measured_says_so(
    folders: PersonaHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    folder = folders.gallery / "v001"
    record = read_record(folder)
    record.plan = record.plan.model_copy(update={"edit": Edit(image="a.png", mask="b.png")})
    write_record(record, folder)
    for picture in record.pictures:
        Image.new("RGB", (96, 40)).save(folder / picture.file)
    text = draw(folders, "sitter").read_text(encoding="utf-8")
    monkeypatch.undo()
    time.tzset()
    assert "edit of a photo, 96 × 40 px" in text
    assert text.count('alt="Edited photo') == 2
    assert "Every picture is" not in text
    assert "<h2>2026-01-02 12:04</h2>" in text, "03:04 UTC, in the zone of gallery list"
    assert text.count("not measured") == 4


def test_previews_are_made_once_and_go_with_their_pictures(world: World, folders: PersonaHome) -> None:
    draw(folders, "sitter")
    before = {path: path.stat().st_mtime_ns for path in (folders.gallery / PREVIEWS).rglob("*.jpg")}
    delete(folders, chosen(folders, ["v001"]))
    (folders.gallery / "best of #1 & 2" / "01-seed1.png").write_bytes(b"damaged")
    draw(folders, "sitter")
    after = {path: path.stat().st_mtime_ns for path in (folders.gallery / PREVIEWS).rglob("*.jpg")}
    assert len(after) == 6
    assert after.items() <= before.items()


def test_pictures_leave_byte_for_byte_and_prompts_only_when_asked_for(
    folders: PersonaHome, tmp_path: Path
) -> None:
    copies = export(chosen(folders, ["orders/spring", "v001"]), tmp_path / "out")
    assert len(copies) == 3 * 3
    source, copy = folders.gallery / "v001" / "01-seed1.png", tmp_path / "out" / "v001" / "01-seed1.png"
    assert copy.read_bytes() == source.read_bytes()
    assert not list((tmp_path / "out").rglob("*.json"))
    with pytest.raises(Conflict, match="there already"):
        export(chosen(folders, ["best of #1 & 2", "v001"]), tmp_path / "out")
    assert not (tmp_path / "out" / "best of #1 & 2").exists(), "all or nothing"
    assert any(
        path.name == "record.json"
        for path in export(chosen(folders, ["best of #1 & 2"]), tmp_path, records=True)
    )
    with pytest.raises(InvalidInput):
        export(chosen(folders, ["v001"]), folders.gallery / "v001" / "copies")


def test_what_is_deleted_is_gone_with_its_previews_and_nothing_else_is(folders: PersonaHome) -> None:
    draw(folders, "sitter")
    assert delete(folders, chosen(folders, ["orders/spring/001-item"])) == 2
    assert (folders.gallery / "orders" / "spring" / "002-item").is_dir()
    assert not (folders.gallery / PREVIEWS / "orders" / "spring" / "001-item").exists()
    assert not (folders.gallery / INDEX).exists(), "a page that shows what is gone"
    assert delete(folders, chosen(folders, ["orders"])) == 2
    assert not (folders.gallery / "orders").exists()
    assert [batch.name for batch in batches(folders)] == ["best of #1 & 2", "v001"]
    (folders.gallery / "v001" / "record.json").write_text("{}")
    assert [batch.name for batch in batches(folders)] == ["best of #1 & 2"], (
        "one damaged record hides no other"
    )


@pytest.mark.parametrize("name", ["v003", "", "/", "..", "../loras/v001", "v00", ".", "orders/../.."])
def test_names_that_mean_no_batch_reach_nothing(folders: PersonaHome, name: str) -> None:
    with pytest.raises(NotFound, match="no batch"):
        chosen(folders, [name])


def test_a_link_is_not_followed(folders: PersonaHome, tmp_path: Path) -> None:
    shutil.move(folders.gallery / "v001", tmp_path / "elsewhere")
    (folders.gallery / "v001").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for batch in batches(folders):
        assert batch.name != "v001"
    assert (tmp_path / "elsewhere" / "record.json").is_file()


def test_an_empty_gallery_says_what_to_do(world: World) -> None:
    with pytest.raises(NotFound) as empty:
        draw(world.home.persona("sitter"), "sitter")
    assert "oblik generate" in empty.value.hint
