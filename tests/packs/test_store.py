"""Packs on disk: found by name or folder, verified byte by byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.packs.loopback_hub import LoopbackHub

from oblik.errors import Conflict, NotFound, PackBroken
from oblik.packs.pull import Pulled
from oblik.packs.store import alone, list_packs, open_pack, remove, verify
from oblik.paths import Home


def test_the_bundled_pack_is_whole(home: Home) -> None:
    pack = open_pack("miniature", home)
    assert verify(pack) == []
    assert pack.manifest.synthetic
    assert {"transformer", "text_encoder", "vae", "tokenizer", "scheduler"} <= pack.manifest.components.keys()
    assert [found.manifest.name for found in list_packs(home)] == ["miniature"]


def test_every_file_of_the_bundled_pack_is_in_its_manifest(home: Home) -> None:
    pack = open_pack("miniature", home)
    named = {file.path for component in pack.manifest.components.values() for file in component.files}
    lying = {path.relative_to(pack.folder).as_posix() for path in pack.folder.rglob("*") if path.is_file()}
    assert lying - named == {"pack.json"}
    assert sum(file.bytes for c in pack.manifest.components.values() for file in c.files) < 45e6


def test_no_file_of_the_bundled_pack_names_a_folder_of_a_machine(home: Home) -> None:
    pack = open_pack("miniature", home)
    for file in pack.folder.rglob("*.json"):
        assert "_name_or_path" not in file.read_text(encoding="utf-8"), file.name


def test_a_changed_or_missing_file_is_named(home: Home, tmp_path: Path) -> None:
    source = open_pack("miniature", home)
    folder = Path(shutil.copytree(source.folder, tmp_path / "copy"))
    (folder / "scheduler" / "scheduler_config.json").write_text("{}", encoding="utf-8")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    problems = verify(open_pack(str(folder), home))
    assert problems == [
        "tokenizer/tokenizer.json is missing",
        "scheduler/scheduler_config.json differs from its hash",
    ]


def test_a_broken_manifest_is_named(tmp_path: Path, home: Home) -> None:
    (tmp_path / "pack.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PackBroken, match=r"pack\.json"):
        open_pack(str(tmp_path), home)


def test_an_unknown_pack_is_refused_with_what_there_is(home: Home) -> None:
    with pytest.raises(NotFound) as refused:
        open_pack("nope", home)
    assert "miniature" in refused.value.hint


def test_a_pack_that_can_be_pulled_says_how(home: Home) -> None:
    with pytest.raises(NotFound) as refused:
        open_pack("sdxl", home)
    assert refused.value.hint == "oblik pack pull sdxl"


def test_the_lock_finds_a_changed_manifest(hub: LoopbackHub, get: Callable[..., Pulled], home: Home) -> None:
    manifest = get().pack.folder / "pack.json"
    manifest.write_text(
        manifest.read_text(encoding="utf-8").replace('"commercial_use": true', '"commercial_use": false')
    )
    assert verify(open_pack("tiny", home)) == ["pack.json differs from its hash"]
    (manifest.parent / "vae" / "config.json").unlink()
    heard: list[str] = []
    assert verify(open_pack("tiny", home), heard.append)[1:] == ["vae/config.json is missing"]
    assert len(heard) == 4


def test_removing_leaves_nothing_and_refuses_the_bundled_pack(
    hub: LoopbackHub, get: Callable[..., Pulled], home: Home
) -> None:
    folder = get().pack.folder
    (home.packs / ".tiny.part").mkdir()
    with alone(folder), pytest.raises(Conflict, match="another process"):
        remove("tiny", home)
    remove("tiny", home)
    assert [path.name for path in home.packs.iterdir() if path.is_dir()] == []
    for name in ("tiny", "..", "", ".tiny.lock", "nowhere"):
        with pytest.raises(NotFound):
            remove(name, home)
    with pytest.raises(Conflict, match="bundled"):
        remove("miniature", home)
    assert verify(open_pack("miniature", home)) == []


def test_half_a_pull_is_no_pack(hub: LoopbackHub, get: Callable[..., Pulled], home: Home) -> None:
    get().pack.folder.rename(home.packs / ".tiny.part")
    assert [pack.manifest.name for pack in list_packs(home)] == ["miniature"]
    with pytest.raises(NotFound):
        open_pack("tiny", home)
