"""A plan as ComfyUI's nodes: every link leads somewhere, every value is the plan's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from oblik.generation.graph import FILE_NAME, graph_of, shift, write_graph
from oblik.generation.plan import Plan, Reference
from oblik.packs.manifest import Component, OpenPack, Pack, PackFile

PLAN = Plan(
    pack="p", persona="sitter", prompt="photo of <oblik_sitter>", lora="v002", lora_scale=0.7, seeds=(5, 9),
    steps=33, guidance=3.5, width_px=768, height_px=1024, sampler="euler_ancestral",
    references=(Reference(image="a.png"),),
)  # fmt: skip


def pack(family: str, folder: Path, **files: str) -> OpenPack:
    parts = {
        name: Component(
            source="here", licence="x", commercial_use=True, files=[PackFile(path=path, bytes=0, sha256="")]
        )
        for name, path in files.items()
    }
    manifest = Pack(
        name="p", version="1", family=family, native_size_px=64, side_multiple_px=16, components=parts
    )
    return OpenPack(manifest=manifest, folder=folder)


@pytest.mark.parametrize("family", ["qwen_image", "stable_diffusion"])
@pytest.mark.parametrize("lora", ["v002", None])
def test_the_graph_is_whole_and_says_what_the_plan_says(
    family: str, lora: str | None, tmp_path: Path
) -> None:
    plan = PLAN.model_copy(update={"lora": lora})
    graph = graph_of(plan, pack(family, tmp_path, transformer="transformer/q.gguf"))
    for node in graph.values():
        for value in node["inputs"].values():
            if isinstance(value, list):
                assert int(value[0]) < int(next(n for n, other in graph.items() if other is node))
    by_class = {node["class_type"]: node["inputs"] for node in graph.values()}
    samplers = [node for node in graph.values() if node["class_type"] == "KSampler"]
    assert [node["inputs"]["seed"] for node in samplers] == [5, 9]
    first = samplers[0]["inputs"]
    assert (first["steps"], first["cfg"], first["sampler_name"]) == (33, 3.5, "euler_ancestral")
    assert graph[first["positive"][0]]["inputs"]["text"] == plan.prompt
    assert "without the references" in samplers[0]["_meta"]["title"]
    loras = [inputs for name, inputs in by_class.items() if name.startswith("LoraLoader")]
    assert [(each["lora_name"], each["strength_model"]) for each in loras] == (
        [("sitter-v002.safetensors", 0.7)] if lora else []
    )
    if family == "qwen_image":
        assert by_class["UnetLoaderGGUF"]["unet_name"] == "q.gguf"
        assert by_class["CLIPLoader"]["clip_name"] == "p-text_encoder.safetensors"
        assert ("without the learned token" in samplers[0]["_meta"]["title"]) == bool(lora)


def test_the_shift_grows_with_the_picture_as_the_scheduler_says(tmp_path: Path) -> None:
    open_pack = pack("qwen_image", tmp_path)
    assert shift(PLAN, open_pack) == pytest.approx(math.exp(0.5 + 0.4 * (3072 - 256) / 7936), abs=1e-4)
    (tmp_path / "scheduler").mkdir()
    fixed = {"use_dynamic_shifting": False, "shift": 3.0}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(fixed))
    assert shift(PLAN, open_pack) == 3.0


def test_it_lies_beside_the_record(tmp_path: Path) -> None:
    path = write_graph(PLAN, pack("qwen_image", tmp_path), tmp_path / "v001")
    assert path is not None
    assert path.name == FILE_NAME
    assert json.loads(path.read_text())["1"]["class_type"] == "UNETLoader"
    assert write_graph(PLAN, pack("unheard_of", tmp_path), tmp_path / "v002") is None
