"""A copy on a stick: found in each layout, checked like what comes from a hub, without asking any hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.packs.loopback_hub import BASE, EXTRA, QUANTS, LoopbackHub, blob_id, commit_of

from oblik.errors import InvalidInput, NotFound, PackBroken
from oblik.packs.pull import Pulled
from oblik.packs.store import open_pack, verify
from oblik.paths import Home

Get = Callable[..., Pulled]
CONTENT = {
    "maker/tiny": BASE,
    "quants/tiny-GGUF": {"tiny-Q4.gguf": QUANTS["tiny-Q4.gguf"]},
    "maker/tiny-edit": EXTRA,
}


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def as_cache(folder: Path) -> Path:
    """The layout of the hub client's cache, with links to blobs that are named by their hash."""
    for repository, files in CONTENT.items():
        root = folder / "hub" / f"models--{repository.replace('/', '--')}"
        snapshot = root / "snapshots" / commit_of(files)
        for name, content in files.items():
            large = name.endswith((".safetensors", ".gguf"))
            blob = root / "blobs" / (sha256(content).hexdigest() if large else blob_id(content))
            lay(blob.parent, {blob.name: content})
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).symlink_to(blob)
    return folder


def as_snapshots(folder: Path) -> Path:
    """What ``hf download --local-dir owner/name`` leaves, with its notes."""
    for repository, files in CONTENT.items():
        root = lay(folder / repository, files)
        for name, content in files.items():
            etag = (
                sha256(content).hexdigest() if name.endswith((".safetensors", ".gguf")) else blob_id(content)
            )
            note = f"{commit_of(files)}\n{etag}\n1700000000.0\n"
            lay(root / ".cache" / "huggingface" / "download", {f"{name}.metadata": note.encode()})
    return folder


def as_plain(folder: Path) -> Path:
    """Files and nothing else."""
    for repository, files in CONTENT.items():
        lay(folder / repository.replace("/", "--"), files)
    return folder


@pytest.mark.parametrize("layout", [as_cache, as_snapshots], ids=["cache", "snapshots"])
def test_a_copy_with_hashes_is_checked_by_them(
    layout: Callable[[Path], Path], get: Get, home: Home, tmp_path: Path
) -> None:
    stick = layout(tmp_path / "stick")
    pulled = get(copy=str(stick), options=("edit",))
    assert verify(open_pack("tiny", home)) == []
    assert pulled.unchecked == ()
    assert {file.revision for file in pulled.lock.files} == {commit_of(files) for files in CONTENT.values()}
    shutil.rmtree(home.packs)
    for file in stick.rglob("model.safetensors"):
        file.write_bytes(bytes(len(BASE["vae/model.safetensors"])))
    with pytest.raises(PackBroken, match=r"vae/model\.safetensors"):
        get(copy=str(stick))
    assert not (home.packs / "tiny").exists()


@pytest.mark.parametrize("place", [".", "tiny"], ids=["the pack itself", "a folder of packs"])
def test_a_pack_as_it_was_pulled_is_copied(
    place: str, hub: LoopbackHub, get: Get, home: Home, tmp_path: Path
) -> None:
    first = get(options=("edit",))
    stick = tmp_path / "stick"
    shutil.copytree(home.packs / "tiny", stick / place, dirs_exist_ok=True)
    other = Home(tmp_path / "other")
    hub.asked.clear()
    second = get(into=other, copy=str(stick), options=("edit",))
    assert second.lock.files == first.lock.files
    assert verify(open_pack("tiny", other)) == []
    assert hub.asked == []
    (stick / place / "edit" / "edit.safetensors").write_bytes(b"x" * len(EXTRA["edit.safetensors"]))
    with pytest.raises(PackBroken, match="edit"):
        get(into=Home(tmp_path / "third"), copy=str(stick), options=("edit",))


def test_a_plain_copy_is_checked_by_the_catalogue_where_it_can(
    get: Get, told: dict[str, Any], tmp_path: Path
) -> None:
    stick = as_plain(tmp_path / "stick")
    known = told["parts"][2]["files"][0]
    known["sha256"] = sha256(QUANTS["tiny-Q4.gguf"]).hexdigest()
    assert get(copy=str(stick)).unchecked == ("model_index.json", "vae/model.safetensors", "vae/config.json")
    known["sha256"] = "0" * 64
    with pytest.raises(PackBroken, match="Q4"):
        get(copy=str(stick), into=Home(tmp_path / "other"))


def test_another_revision_and_what_is_missing_are_named(
    get: Get, told: dict[str, Any], tmp_path: Path
) -> None:
    stick = as_snapshots(tmp_path / "stick")
    told["parts"][3]["revision"] = "f" * 40
    with pytest.raises(InvalidInput, match=r"holds maker/tiny at .* not ffffffffffff"):
        get(copy=str(stick))
    shutil.rmtree(stick / "maker")
    with pytest.raises(NotFound, match="no copy of maker/tiny"):
        get(copy=str(stick))
    with pytest.raises(NotFound, match="no folder"):
        get(copy=str(tmp_path / "unplugged"))


def test_a_lock_that_points_outside_its_folder_is_refused(
    hub: LoopbackHub, get: Get, home: Home, tmp_path: Path
) -> None:
    get()
    stick = Path(shutil.copytree(home.packs / "tiny", tmp_path / "stick"))
    lock = stick / "pack.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace("vae/config.json", "../../config.json"))
    with pytest.raises(PackBroken, match="not a pack lock"):
        get(into=Home(tmp_path / "other"), copy=str(stick))
