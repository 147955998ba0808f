"""An order is checked before anything is made, and whoever wrote it is told the line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from oblik.cli.generate import command
from oblik.errors import InvalidInput, NotFound, TwoPersonas
from oblik.generation.order_file import OrderFile, read_order
from oblik.generation.orders import OPEN, Job, Values, jobs_of, json_schema
from oblik.generation.plan import Plan

HEAD = "name: spring\npersona: sitter\n"


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "order.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jobs(tmp_path: Path, text: str) -> list[Job]:
    return jobs_of(read_order(written(tmp_path, text)).order)


def refused(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_order(written(tmp_path, text))
    return caught.value.message


def test_a_series_is_one_prompt_and_many_seeds(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, HEAD + "type: series\nprompt: in a park\nseed: 5\ncount: 3\nplan: {steps: 20}")
    assert (job.seeds, job.asked, job.quality) == ((5, 6, 7), {"steps": 20}, "standard")
    (job,) = jobs(tmp_path, HEAD + "type: series\nprompt: in a park")
    assert job.seeds is None, "the preset's seeds"


def test_a_grid_is_every_prompt_with_every_seed(tmp_path: Path) -> None:
    found = jobs(tmp_path, HEAD + "type: grid\nprompts: [one, two]\nseeds: [7, 3]\nquality: high")
    assert [(job.name, job.text, job.seeds) for job in found] == [
        ("prompt-1", "one", (7, 3)),
        ("prompt-2", "two", (7, 3)),
    ]
    assert {job.quality for job in found} == {"high"}


def test_an_item_of_a_catalogue_overrides_what_it_names_and_no_more(tmp_path: Path) -> None:
    text = """type: catalogue
count: 2
style: true
plan: {steps: 20, guidance: 3}
items:
  - prompt: one
  - prompt: two
    name: second
    quality: max
    style: false
    seeds: [9]
    plan: {guidance: 4.5}
"""
    one, two = jobs(tmp_path, HEAD + text)
    assert (one.name, one.seeds, one.style, one.asked) == (
        "item-1",
        (1, 2),
        True,
        {"steps": 20, "guidance": 3},
    )
    assert (two.name, two.quality, two.seeds, two.style) == ("second", "max", (9,), False)
    assert two.asked == {"steps": 20, "guidance": 4.5}


def test_everything_that_can_be_typed_for_a_picture_can_be_ordered(tmp_path: Path) -> None:
    """A size by its shape takes the place of one by its sides, and the other way round."""
    text = """type: catalogue
plan: {attention: sage, cache_threshold: 0.1, compiled: true, guidance_at_once: false, width_px: 512,
  sampler: euler_ancestral}
items:
  - {prompt: one, plan: {aspect: 3:4, compiled: false}}
  - {prompt: two, plan: {controls: [{kind: pose, image: a.png}]}}
"""
    one, two = jobs(tmp_path, HEAD + text)
    run_by = {
        "attention": "sage",
        "cache_threshold": 0.1,
        "guidance_at_once": False,
        "sampler": "euler_ancestral",
    }
    assert one.asked == run_by | {"compiled": False, "aspect": "3:4"}
    follows = {"kind": "pose", "image": "a.png", "weight": 0.8}
    assert two.asked == run_by | {"compiled": True, "width_px": 512, "controls": (follows,)}
    assert (one.at("controls"), two.at("controls")) == (
        ("plan", "controls"),
        ("items", 1, "plan", "controls"),
    )
    typed = {parameter.name for parameter in command.params}
    elsewhere = {"said", "slug", "seeds", "count", "seed", "lora", "preset", "style"}
    as_control, only_typed = (
        {"pose", "depth", "given", "control_scale"},
        {"max_rung", "no_auto", "no_lora", "no_token"},
    )
    assert typed - elsewhere - as_control - only_typed <= set(Values.model_fields)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("type: series\n", "order.yaml:1: prompt: is missing"),
        ("type: film\n", "order.yaml:3: type: is series, catalogue or grid"),
        ("prompt: x\n", "order.yaml:1: type is missing"),
        ("type: series\nprompt: x\nplan:\n  guidance: 3\n  steps: 400\n", "yaml:7: plan.steps: .*150, not"),
        ("type: series\nprompt: x\nplan:\n  attention: quick\n", "yaml:6: plan.attention: .*'sage'"),
        ("type: series\nprompt: x\nplan:\n  aspect: 9:1\n", "yaml:6: plan.aspect: 1:4 to 4:1.*'9:1'"),
        ("type: series\nprompt: x\nplan:\n  short_side_px: 9\n", "yaml:6: plan.short_side_px: .* 64, not 9"),
        ("type: series\nprompt: x\nplan: {aspect: 3:4, width_px: 512}\n", "yaml:5: plan: a size is either"),
        ("type: series\nprompt: x\nplan:\n  cache_threshold: 2\n", "yaml:6: plan.cache_threshold: .* 1, not"),
        ("type: series\nprompt: x\nplan:\n  controls:\n  - {kind: x, image: a}\n", "yaml:7: .*'pose'"),
        ("type: series\nprompt: x\nseed: true\n", "order.yaml:5: seed: .*integer, not True"),
        ("type: series\nprompt: x\nseeds: [1, 2, 1]\n", "a seed stands there twice"),
        ("type: series\nprompt: x\nseeds: [1]\ncount: 3\n", "seeds excludes count"),
        ("type: series\nprompt: 12\n", "order.yaml:4: prompt: .*string: put it in quotes"),
        ("type: series\nprompt: x\nprompt: y\n", "order.yaml:5: 'prompt' stands there twice"),
        ("type: grid\nprompts: [x]\nseeds: [1]\nitems: []\n", "order.yaml:6: items: is no word of an order"),
        ("type: catalogue\nitems:\n  - prompt: x\n  -\n    prompt: y\n    persona: alex\n", "yaml:8: items"),
        ("type: catalogue\nitems:\n  - prompt: x\n    name: item-2\n  - prompt: y\n", "are called 'item-2'"),
        ("type: series\nprompt: &x y\nlora: *x\n", "order.yaml:4: anchors and tags"),
        ("type: series\nprompt: !!python/name:os.system x\n", "order.yaml:4: anchors and tags"),
        ("type: series\nprompt:\n\t- x\n", "order.yaml:5: .*cannot start any token"),
        ("type: series\nprompt: x\nname: [\n", "order.yaml:6"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_line(tmp_path: Path, body: str, said: str) -> None:
    assert re.search(said, refused(tmp_path, HEAD + body))


def test_several_mistakes_are_named_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = refused(tmp_path, "name: a/b\npersona: s\ntype: series\nplan: {cfg: 7}\n").splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "1", "4"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("no", "no"), ("12:30", "12:30"), ("2026-01-02", "2026-01-02"), ("010 men", "010 men"), ("0x1F", "0x1F"),
     (".inf", ".inf"), ("1_000", "1_000"), ("он в парке", "он в парке")],
)  # fmt: skip
def test_words_stay_words(tmp_path: Path, typed: str, meant: str) -> None:
    (job,) = jobs(tmp_path, HEAD + f"type: series\nprompt: {typed}\n")
    assert job.text == meant


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is a mapping"), (b"- a\n", "is a mapping"), (b"a: 1\n---\nb: 2\n", "order.yaml:2"),
     (b"\xff\xfe\x00", "UTF-8"), (b"[" * 3000 + b"]" * 3000, "nested"),
     (b"a: b\n" * 400_000, "too many")],
)  # fmt: skip
def test_what_is_no_order_at_all(tmp_path: Path, content: bytes, said: str) -> None:
    assert re.search(said, refused(tmp_path, content))
    with pytest.raises(NotFound):
        read_order(tmp_path / "absent.yaml")


def test_too_many_pictures_are_refused(tmp_path: Path) -> None:
    prompts = "".join(f"  - p{number}\n" for number in range(11))
    text = f"type: grid\nseeds: {list(range(1000))}\nprompts:\n{prompts}"
    assert "11000 pictures" in refused(tmp_path, HEAD + text)


def test_the_way_back_from_a_value_to_its_line(tmp_path: Path) -> None:
    file: OrderFile = read_order(written(tmp_path, HEAD + "type: grid\nseeds: [1]\nprompts:\n  - a\n  - b\n"))
    assert file.at(("prompts", 1)) == "order.yaml:7: prompts.1"
    again = file.located(("prompts", 0), TwoPersonas("whose?", hint="choose"))
    assert isinstance(again, TwoPersonas)
    assert (again.message, again.hint) == ("order.yaml:6: prompts.0: whose?", "choose")


def test_the_schema_has_the_ranges_of_a_plan() -> None:
    schema: dict[str, Any] = json_schema()
    values = schema["$defs"]["Values"]
    assert set(values["properties"]) == {*OPEN, "controls", "short_side_px", "aspect"}
    assert set(OPEN) <= set(Plan.model_fields)
    assert values["properties"]["controls"]["anyOf"][0]["maxItems"] == 1
    assert schema["$defs"]["Control"]["properties"]["kind"]["enum"] == ["pose", "depth", "given"]
    assert values["additionalProperties"] is False
    steps = values["properties"]["steps"]["anyOf"][0]
    assert (steps["minimum"], steps["maximum"]) == (1, 150)
    assert set(schema["discriminator"]["mapping"]) == {"series", "catalogue", "grid"}
    assert json.loads(json.dumps(schema)) == schema
