"""Presets are partial plans; what is stronger wins, and nonsense is refused with its range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oblik.errors import InvalidInput, NotFound
from oblik.generation.presets import Preset, find_preset, plan_from, read_preset
from oblik.packs.manifest import Pack

ASKED: dict[str, Any] = {"persona": "sitter", "prompt": "photo", "seeds": (1,)}


def pack(**defaults: object) -> Pack:
    return Pack(
        name="p", version="1", family="qwen_image", native_size_px=64, side_multiple_px=16, defaults=defaults
    )


@pytest.mark.parametrize("name", ["fast", "reliable"])
def test_shipped_presets_make_a_plan(name: str) -> None:
    plan = plan_from(find_preset(name), pack(), {"persona": "sitter", "prompt": "photo"})
    assert plan.mode == name
    assert len(plan.seeds) == 8
    assert 0.6 <= plan.lora_scale <= 0.9


def test_strength_rises_from_family_to_pack_to_preset_to_what_was_asked() -> None:
    preset = Preset(
        about="",
        plan={"guidance": 3},
        families={"qwen_image": {"steps": 30, "guidance": 4, "lora_scale": 0.7}},
    )
    plan = plan_from(preset, pack(steps=12, guidance=5), ASKED | {"width_px": 256})
    assert (plan.lora_scale, plan.steps, plan.guidance, plan.width_px) == (0.7, 12, 3.0, 256)
    assert plan_from(preset, pack(steps=12), ASKED | {"steps": 7}).steps == 7


def test_none_was_not_asked() -> None:
    assert plan_from(Preset(about=""), pack(steps=12), ASKED | {"steps": None}).steps == 12


def test_out_of_range_names_the_value_and_the_range() -> None:
    with pytest.raises(InvalidInput, match=r"steps: .*less than or equal to 150.*not 500"):
        plan_from(Preset(about=""), pack(), ASKED | {"steps": 500})


def test_a_key_that_no_plan_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('about = "x"\n[plan]\ncfg = 7\n', encoding="utf-8")
    with pytest.raises(InvalidInput, match="no 'cfg'"):
        read_preset(file)


def test_broken_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("about = ", encoding="utf-8")
    with pytest.raises(InvalidInput, match="is not a preset"):
        find_preset(str(file))


def test_own_folders_come_before_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "fast.toml").write_text('about = "mine"', encoding="utf-8")
    assert find_preset("fast", tmp_path).about == "mine"
    with pytest.raises(NotFound) as missing:
        find_preset("slow", tmp_path)
    assert "fast, reliable" in missing.value.hint
