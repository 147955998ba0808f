"""The catalogue as it is shipped: each entry can be read and chosen from, and its names were seen."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

from oblik.datasets.buckets import buckets_of_training
from oblik.errors import InvalidInput, NotFound, PackBroken
from oblik.generation.plan import Plan
from oblik.packs.catalogue import CATALOGUE, Entry, catalogue, find_entry
from oblik.training.config import TrainConfig

ENTRIES = catalogue()
QWEN = ("qwen-image-16gb", "qwen-image-fp8")


def test_what_was_promised_can_be_pulled() -> None:
    assert ENTRIES.keys() == {*QWEN, "sdxl", "sd15", "auraface", "buffalo_l", "yunet-sface"}
    assert {path.stem for path in CATALOGUE.glob("*.json")} == ENTRIES.keys()


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_names_are_sourced_and_paths_do_not_collide(entry: Entry) -> None:
    for part in entry.parts:
        assert part.seen, part.component
        assert part.licence_url.startswith("https://")
        assert part.variant in (None, *entry.variants)
        assert part.option in (None, *entry.options)
        assert part.revision is None or re.fullmatch(r"[0-9a-f]{40}", part.revision)
        for file in part.files:
            assert file.confirmed or file.note, f"{file.file} is not confirmed and nobody says why"
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        folders = {PurePosixPath(file.path).parent for file in part.files}
        assert {PurePosixPath(path).parent for path in part.settings} <= folders
    for variant in entry.variants or [None]:
        parts = entry.select(variant, entry.options)
        paths = [path for part in parts for path in (*part.settings, *(file.path for file in part.files))]
        assert len(paths) == len(set(paths))
        assert not {"pack.json", "pack.lock"} & set(paths)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_the_tables_of_a_pack_are_ones_that_plans_and_training_know(entry: Entry) -> None:
    pack = entry.pack
    Plan.model_validate({"pack": pack.name, "persona": None, "prompt": "x", "seeds": [1], **pack.defaults})
    of_datasets = {"buckets", "resolutions_px", "class_images", "negatives"}
    TrainConfig.model_validate({k: v for k, v in pack.training.items() if k not in of_datasets})
    if pack.training:
        assert buckets_of_training(pack.native_size_px, pack.side_multiple_px, pack.training)
    assert pack.native_size_px % pack.side_multiple_px == 0


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("option", [None, "edit", "controlnet", "depth", "lightning", "lightning-8"])
def test_a_qwen_pack_is_a_whole_pipeline_with_one_transformer(name: str, option: str | None) -> None:
    entry = ENTRIES[name]
    for variant in entry.variants or [None]:
        parts = entry.select(variant, [option] if option else [])
        paths = {file.path for part in parts for file in part.files}
        assert {"model_index.json", "transformer/config.json", "tokenizer/tokenizer.json"} <= paths
        assert sum(path.startswith("text_encoder/model-0000") for path in paths) == 4
        for folder in ("transformer/", "edit/transformer/"):
            weights = [path for path in paths if path.startswith(folder) and not path.endswith(".json")]
            assert len(weights) == (folder == "transformer/" or option == "edit")
        assert all(part.commercial_use for part in parts)


def test_the_formats_and_variants_of_the_16_gb_pack() -> None:
    entry = ENTRIES["qwen-image-16gb"]
    first = {part.variant: part for part in entry.select(None, []) if part.variant}
    assert list(first) == ["q6_k"] == list(entry.variants)[:1]
    assert first["q6_k"].format == "gguf"
    assert entry.select("q4_k_m", [])[1].files[0].file == "qwen-image-2512-Q4_K_M.gguf"
    with pytest.raises(InvalidInput, match="q8"):
        entry.select("q8", [])
    with pytest.raises(InvalidInput, match="wings"):
        entry.select(None, ["wings"])


def test_what_forbids_commercial_use_is_marked() -> None:
    parts = [(name, part) for name, entry in ENTRIES.items() for part in entry.parts]
    closed = {(name, part.component) for name, part in parts if not part.commercial_use}
    assert closed == {
        ("buffalo_l", "detector"), ("buffalo_l", "embedder"), ("sdxl", "faceid"), ("sd15", "faceid"),
    }  # fmt: skip


def test_an_entry_of_ones_own_is_read_from_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text(ENTRIES["yunet-sface"].model_dump_json(exclude_defaults=True), encoding="utf-8")
    assert find_entry(str(mine)) == ENTRIES["yunet-sface"]
    mine.write_text(mine.read_text(encoding="utf-8").replace("faces/detector.onnx", "../detector.onnx"))
    with pytest.raises(PackBroken, match="plain path inside"):
        find_entry(str(mine))
    with pytest.raises(NotFound) as refused:
        find_entry("qwen-image-8gb")
    assert "qwen-image-16gb" in refused.value.hint


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../x", "C:/x", "a\\x", "", "."])
def test_no_path_leads_out_of_the_pack(path: str) -> None:
    told = ENTRIES["auraface"].model_dump(mode="json")
    told["parts"][0]["files"][0]["path"] = path
    with pytest.raises(ValueError, match="inside"):
        Entry.model_validate(told)
    told = ENTRIES["auraface"].model_dump(mode="json")
    told["pack"]["name"] = path
    with pytest.raises(ValueError, match="name of a folder"):
        Entry.model_validate(told)
