"""Presets are partial plans; what is stronger wins, and nonsense is refused with its range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.generation.plan import Plan
from oblik.generation.presets import (
    SHIPPED,
    Pace,
    Preset,
    find_preset,
    list_presets,
    plan_from,
    read_preset,
    save_preset,
)
from oblik.packs.manifest import Pack

LEVELS = ("preview", "standard", "high", "max", "experimental")
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
    with pytest.raises(InvalidInput, match=r"steps: 1 to 150, not 500"):
        plan_from(Preset(about=""), pack(), ASKED | {"steps": 500})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"sampler": "heun"}, "sampler: one of euler, euler_ancestral, not 'heun'"),
        ({"attention": "fast"}, "attention: one of native, flash, xformers, sage, not 'fast'"),
        ({"lora_scale": 2.0}, "lora_scale: 0 to 1.5, not 2.0"),
        ({"guidance": 0.5}, "guidance: 1 to 20, not 0.5"),
        ({"cache_threshold": 2.0}, "cache_threshold: 0 to 1, not 2.0"),
        ({"batch": 101}, "batch: 1 to 100, not 101"),
        ({"width_px": 5000}, "width_px: 64 to 4096, not 5000"),
        ({"short_side_px": 32}, "short side: 64 to 4096, not 32"),
        ({"short_side_px": 2048, "aspect": "1:4"}, "height_px: 64 to 4096, not 8192"),
        ({"aspect": "1:5"}, "aspect: 1:4 to 4:1, as width:height, not '1:5'"),
        ({"aspect": "wide"}, "aspect: 1:4 to 4:1"),
        ({"aspect": "3:0"}, "aspect: 1:4 to 4:1"),
        ({"aspect": "3:4", "width_px": 768}, "a size is either width and height, or"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        plan_from(Preset(about=""), pack(), ASKED | asked)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (768, 768)),
        ({"short_side_px": 512}, (512, 512)),
        ({"aspect": "3:4"}, (768, 1024)),
        ({"aspect": "4:3", "short_side_px": 500}, (664 // 16 * 16 + 16, 496)),
        ({"aspect": "2x3", "short_side_px": 64}, (64, 96)),
        ({"width_px": 777}, (784, 768)),
    ],
)
def test_a_size_by_its_short_side_and_shape(asked: dict[str, Any], size: tuple[int, int]) -> None:
    """Sides are multiples of what the pack can draw; what was not asked is the preset's or the pack's."""
    plan = plan_from(Preset(about=""), pack(), ASKED | asked)
    assert (plan.width_px, plan.height_px) == size


def test_a_preset_may_hold_a_short_side_and_a_shape() -> None:
    preset = Preset(about="", plan={"short_side_px": 256, "aspect": "3:4"})
    plan = plan_from(preset, pack(width_px=128, height_px=128), ASKED)
    assert (plan.width_px, plan.height_px) == (256, 336)
    larger = plan_from(preset, pack(), ASKED | {"short_side_px": 512})
    assert (larger.width_px, larger.height_px) == (512, 672)
    assert plan_from(find_preset("high"), pack(), ASKED | {"aspect": "3:4"}).width_px == 64


RANGED = """about = "x"
[plan]
steps = 24
[ranges]
steps = [30, 50]
lora_scale = [0.6, 0.9]
[ranges.qwen_image]
guidance = [2.5, 4]
[ranges.stable_diffusion]
guidance = [4, 8]
steps = [6, 15]
"""


def preset_of(folder: Path, text: str) -> Preset:
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return read_preset(folder / "mine.toml")


@pytest.mark.parametrize(
    ("name", "inside", "outside", "said"),
    [
        ("steps", (30, 50, 24), (29, 51), "30 to 50"), ("guidance", (2.5, 4.0, 1.5), (2.4, 7.0), "2.5 to 4"),
        ("lora_scale", (0.6, 0.9, 1.0), (0.5, 0.95, 0.0), "0.6 to 0.9"),
    ],
)  # fmt: skip
def test_what_is_asked_stays_in_the_ranges_of_the_preset(
    tmp_path: Path, name: str, inside: tuple[float, ...], outside: tuple[float, ...], said: str
) -> None:
    """The last of ``inside`` is what the preset or the pack says itself, in a range or not."""
    preset, own = preset_of(tmp_path, RANGED), pack(lora_scale=1.0, guidance=1.5)
    assert getattr(plan_from(preset, own, ASKED), name) == inside[-1]
    for value in inside:
        assert getattr(plan_from(preset, own, ASKED | {name: value}), name) == value
    for value in outside:
        with pytest.raises(InvalidInput, match=rf"^{name}: {said}, not {value:g}$") as refused:
            plan_from(preset, own, ASKED | {name: value})
        assert "--preset experimental" in refused.value.hint
        assert f"oblik preset save mine --set {name}={value:g}" in refused.value.hint
        assert getattr(plan_from(find_preset("experimental"), own, ASKED | {name: max(value, 1)}), name)


def test_a_family_has_ranges_of_its_own_and_a_saved_preset_keeps_them(tmp_path: Path) -> None:
    preset = preset_of(tmp_path, RANGED)
    assert preset.ranges_for("stable_diffusion") == {
        "lora_scale": (0.6, 0.9),
        "guidance": (4, 8),
        "steps": (6, 15),
    }
    assert preset.ranges_for("flux") == {"lora_scale": (0.6, 0.9), "steps": (30, 50)}
    assert read_preset(save_preset("kept", tmp_path, preset)) == preset


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ("batch = [1, 4]", "'batch' has no range"), ("steps = [50, 30]", "ends below where it begins"),
        ("[ranges.qwen_image]\nsides = [1, 2]", "'sides' has no range"), ("steps = [30]", "is not a preset"),
        ("steps = 30", "is not a preset"),
    ],
)  # fmt: skip
def test_ranges_that_are_none_are_refused(tmp_path: Path, ranges: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        preset_of(tmp_path, f'about = "x"\n[ranges]\n{ranges}\n')


@pytest.mark.parametrize("family", ["qwen_image", "stable_diffusion"])
def test_shipped_presets_lie_in_their_own_ranges(family: str) -> None:
    of_pack = Pack(name="p", version="1", family=family, native_size_px=512, side_multiple_px=16)
    for name in ("fast", "reliable", *LEVELS):
        preset = find_preset(name)
        ranges = preset.ranges_for(family)
        assert set(ranges) == (
            set() if name in ("preview", "experimental") else {"lora_scale", "guidance", "steps"}
        ), name
        plan = plan_from(preset, of_pack, ASKED)
        for value, (low, high) in ranges.items():
            assert low <= getattr(plan, value) <= high, (name, value)


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
    assert "experimental, fast, high" in missing.value.hint


def level_plans(family: str, native_px: int, side_multiple_px: int = 16, **defaults: object) -> list[Plan]:
    of_pack = Pack(
        name="p", version="1", family=family, native_size_px=native_px, side_multiple_px=side_multiple_px,
        defaults={"width_px": native_px, "height_px": native_px, "steps": 3, **defaults},
    )  # fmt: skip
    return [plan_from(find_preset(name), of_pack, ASKED) for name in LEVELS]


def test_the_levels_are_those_of_the_requirement_for_the_family_it_measured() -> None:
    plans = level_plans("stable_diffusion", 512, 64)
    assert [plan.width_px for plan in plans] == [256, 320, 384, 448, 512]
    assert [plan.steps for plan in plans] == [6, 8, 10, 12, 15]
    assert [plan.guidance for plan in plans] == [4.0, 5.0, 6.0, 6.5, 7.0]
    paces = [find_preset(name).pace for name in LEVELS]
    assert [pace.pause_s for pace in paces] == [1.5, 2.0, 2.5, 3.0, 4.0]
    assert [pace.largest_batch for pace in paces] == [100, 50, 20, 10, 5]
    assert plan_from(find_preset("preview"), pack(), ASKED | {"batch": 100}).batch == 100


def test_qwen_image_gets_sizes_and_guidance_of_its_own() -> None:
    plans = level_plans("qwen_image", 768)
    assert [plan.width_px for plan in plans] == [512, 768, 1024, 1328, 1328]
    assert all(2.5 <= plan.guidance <= 4 for plan in plans)
    costs = [plan.width_px * plan.height_px * plan.steps for plan in plans]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)


def test_a_bigger_pack_gets_bigger_pictures_and_a_small_one_keeps_its_size() -> None:
    assert [plan.width_px for plan in level_plans("stable_diffusion", 1024, 64)] == [512, 640, 768, 896, 1024]
    small = level_plans("qwen_image", 128)
    assert {(plan.width_px, plan.height_px) for plan in small} == {(128, 128)}
    assert [plan.steps for plan in small] == [12, 30, 40, 50, 70], "a level is stronger than the pack"


def test_a_level_keeps_the_shape_of_the_pack() -> None:
    high = level_plans("qwen_image", 768, width_px=768, height_px=1024)[2]
    assert (high.width_px, high.height_px) == (1024, 1360)


def test_what_was_asked_for_wins_over_a_level_but_not_over_its_largest_batch() -> None:
    plan = plan_from(find_preset("experimental"), pack(), ASKED | {"steps": 7, "batch": 8})
    assert (plan.steps, plan.batch) == (7, 5)


def test_more_steps_are_what_reliable_means_whatever_the_pack_says() -> None:
    assert plan_from(find_preset("reliable"), pack(steps=30), ASKED).steps == 50


def test_every_shipped_preset_is_listed_and_has_fixed_seeds(tmp_path: Path) -> None:
    (tmp_path / "high.toml").write_text('about = "mine"', encoding="utf-8")
    found = {known.name: known for known in list_presets(tmp_path)}
    assert set(found) == {*LEVELS, "fast", "reliable"}
    assert (found["high"].shipped, found["high"].preset.about) == (False, "mine")
    assert all(known.preset.plan["seeds"] for known in found.values() if known.path.parent == SHIPPED)


def test_a_saved_preset_comes_back_without_what_belongs_to_one_picture(tmp_path: Path) -> None:
    values = plan_from(find_preset("standard"), pack(), ASKED | {"lora": "v001", "steps": 36})
    preset = Preset(about="x", pace=Pace(pause_s=7), plan=values.model_dump(mode="json"))
    path = save_preset("mine", tmp_path, preset)
    saved = read_preset(path)
    assert saved.pace == preset.pace
    assert saved.plan["steps"] == 36
    assert saved.plan.keys().isdisjoint({"persona", "prompt", "lora", "pack", "references"})
    with pytest.raises(Conflict):
        save_preset("mine", tmp_path, preset)
    level = find_preset("high")
    assert read_preset(save_preset("mine", tmp_path, level, replace=True)) == level


@pytest.mark.parametrize(
    ("name", "plan", "said"),
    [
        ("../mine", {}, "cannot name a preset"),
        ("Mine", {}, "cannot name a preset"),
        ("mine", {"cfg": 7}, "no 'cfg'"),
        ("mine", {"steps": 400}, "steps: .*150"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path: Path, name: str, plan: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        save_preset(name, tmp_path, Preset(about="", plan=plan))
    assert list(tmp_path.iterdir()) == []
