"""Packs on disk: found by name or folder, verified byte by byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oblik.errors import NotFound, PackBroken
from oblik.packs.store import list_packs, open_pack, verify
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
