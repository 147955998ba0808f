"""LoRAs into other programs' folders: found, named uniquely, remembered, taken back; and versions chosen."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oblik.errors import BackendError, Conflict, InvalidInput, LoraBroken, NotFound
from oblik.flows.calibrate import measure, open_ruler
from oblik.flows.folders import COMFYUI, EASY_DIFFUSION, check_all, lora_folder, target
from oblik.flows.generate import Order, generate, plan_order
from oblik.flows.install import Source, export, install, uninstall
from oblik.flows.loras import compare, entries, find, page
from oblik.generation.presets import find_preset
from oblik.paths import atomic_write, sha256_file
from oblik.personas.erase import erase
from oblik.personas.installations import Fate, installations
from oblik.progress import SilentProgress
from oblik.settings import Settings
from oblik.training.artifact import MANIFEST, TOKEN, WEIGHTS, choose, latest_artifact, read_artifact
from oblik.training.safetensors_header import tensors_in

if TYPE_CHECKING:
    from tests.flows.conftest import World

OURS = ("diffusion_model.blocks.0.to_out.0.lora_A.weight", "diffusion_model.blocks.0.to_out.0.alpha")


def weights(names: tuple[str, ...] = OURS, numbers: tuple[float, ...] = (0.5, 16.0)) -> bytes:
    """A safetensors file of single numbers."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
        for n, name in enumerate(names)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + struct.pack(f"<{len(numbers)}f", *numbers)


def made(world: World, version: str = "v001") -> Source:
    """A finished LoRA with real key names."""
    folder = world.artifact(version)
    (folder / WEIGHTS).write_bytes(weights())
    return Source(world.home.persona("sitter"), folder, read_artifact(folder))


def tree(root: Path, *folders: str, **texts: str) -> Path:
    """Folders, and files whose names end in .yaml."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for name, text in texts.items():
        (root / f"{name}.yaml").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("program", "folders", "found"),
    [
        (EASY_DIFFUSION, ("models/lora", "models/Lora"), "models/lora"),
        (EASY_DIFFUSION, ("models/Lora",), "models/Lora"),
        (COMFYUI, ("models/loras", "models/lora"), "models/loras"),
        ("", ("models/loras",), "models/loras"),
        ("", ("models/lora",), "models/lora"),
        ("", ("loras",), "loras"),
        ("", ("elsewhere",), "."),
    ],
)
def test_the_folder_of_a_program(tmp_path: Path, program: str, folders: tuple[str, ...], found: str) -> None:
    root = tree(tmp_path / "program", *folders)
    assert lora_folder(program, root).resolve() == (root / found).resolve()
    assert lora_folder(program, root / folders[0]) == root / folders[0]


def test_easy_diffusion_with_models_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISK", str(tmp_path))
    root = tree(tmp_path / "ed", "models/lora", config="models_dir: $DISK/big/models\n")
    tree(tmp_path / "big" / "models", "lora")
    assert lora_folder(EASY_DIFFUSION, root) == tmp_path / "big" / "models" / "lora"


@pytest.mark.parametrize(("default", "found"), [("true", "more/Lora"), ("false", "comfy/models/loras")])
def test_comfyui_with_extra_model_paths(tmp_path: Path, default: str, found: str) -> None:
    extra = f"""
a111:
    base_path: {tmp_path}/more
    is_default: {default}
    checkpoints: models/Stable-diffusion
    loras: |
        absent
        Lora
other:
    base_path:
    loras:
empty:
"""
    tree(tmp_path / "more", "Lora")
    root = tree(tmp_path / "comfy", "models/loras", extra_model_paths=extra)
    assert lora_folder(COMFYUI, root) == tmp_path / found


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"looked for: .*models.loras"):
        lora_folder(COMFYUI, tree(tmp_path / "comfy", "models"))
    with pytest.raises(NotFound, match="no folder"):
        lora_folder("", tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="comfyui_dir is not set"):
        target(COMFYUI, Settings(home=tmp_path))
    with pytest.raises(InvalidInput, match="cannot be read as YAML"):
        lora_folder(COMFYUI, tree(tmp_path / "broken", "models/loras", extra_model_paths="a: [b"))


def test_installed_remembered_and_erased_with_the_person(world: World, tmp_path: Path) -> None:
    source = made(world)
    folder = tree(tmp_path / "comfy", "models/loras") / "models" / "loras"
    (copy,) = install(source, COMFYUI, folder, world.now)
    assert copy == folder / "sitter-v001.safetensors"
    assert sha256_file(copy) == sha256_file(source.folder / WEIGHTS)
    assert [file.name for file in folder.iterdir()] == [copy.name]
    known = installations(source.home)
    assert [(k.path, k.program, k.version) for k in known] == [(str(copy), COMFYUI, "v001")]
    assert install(source, COMFYUI, folder, world.now) == [copy], "a second time is no second copy"
    assert find(source.home).copies == (str(copy),)
    receipt = erase(world.home, "sitter", world.now)
    assert [gone.fate for gone in receipt.copies] == [Fate.removed.value]
    assert not copy.exists()


SD = ("lora_unet_down_blocks_0.lora_down.weight", "lora_unet_down_blocks_0.alpha")


@pytest.mark.parametrize(("names", "copies"), [(SD, 2), (OURS, 1)])
def test_a_token_goes_where_a_program_reads_it_and_else_stays(
    world: World, tmp_path: Path, names: tuple[str, ...], copies: int
) -> None:
    source = made(world)
    (source.folder / WEIGHTS).write_bytes(weights(names))
    (source.folder / TOKEN).write_bytes(weights(("token",), (0.5,)))
    models = tree(tmp_path / "comfy", "models/loras", "models/embeddings") / "models"
    paths = install(source, COMFYUI, models / "loras", world.now)
    assert len(paths) == copies
    there = [models / "loras/sitter-v001.safetensors", models / "embeddings/sitter-v001.safetensors"]
    assert paths == there[:copies]
    assert len(erase(world.home, "sitter", world.now).copies) == copies
    assert not any(path.exists() for path in there)


def test_a_base_name_that_is_taken_gets_a_number(world: World, tmp_path: Path) -> None:
    """Easy Diffusion names a LoRA by its base name alone, whatever the folder below and the ending."""
    source, folder = made(world), tree(tmp_path / "lora", "older")
    (folder / "older" / "Sitter-V001.ckpt").write_bytes(b"somebody else's")
    (copy,) = install(source, EASY_DIFFUSION, folder, world.now)
    assert copy.name == "sitter-v001-2.safetensors"


def test_uninstall_takes_one_version_or_all_and_leaves_what_was_changed(world: World, tmp_path: Path) -> None:
    folder, home = tree(tmp_path / "lora", "."), world.home.persona("sitter")
    copies = {v: install(made(world, v), "folder", folder, world.now)[0] for v in ("v001", "v002", "v003")}
    assert [fate for _, fate in uninstall(home, "v001", None)] == [Fate.removed]
    assert uninstall(home, None, COMFYUI) == []
    copies["v002"].write_bytes(b"changed")
    assert {Path(k.path).stem: fate for k, fate in uninstall(home, None, "folder")} == {
        "sitter-v002": Fate.changed, "sitter-v003": Fate.removed,
    }  # fmt: skip
    assert [known.version for known in installations(home)] == ["v002"]


def test_a_folder_that_cannot_be_written_leaves_nothing_half(world: World, tmp_path: Path) -> None:
    source = made(world)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendError, match="cannot be written"):
        install(source, "folder", tmp_path / "file" / "below", world.now)
    assert installations(source.home) == []


@pytest.mark.parametrize("form", ["comfyui", "diffusers"])
def test_an_export_holds_all_that_belongs_to_the_lora(world: World, tmp_path: Path, form: str) -> None:
    source = made(world)
    paths = export(source, tmp_path / "out", form, world.persona.consent, world.pack, world.now)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in paths]
    assert names[:2] == ["sitter-v001.safetensors", "lora.json"]
    assert {"tokenizer/tokenizer.json", "README.txt"} <= set(names)
    assert paths[0].read_bytes() == (source.folder / WEIGHTS).read_bytes()
    told = (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")
    assert "rendered person" in told
    assert "allows: portraits" in told
    with pytest.raises(Conflict, match="already there"):
        export(source, tmp_path / "out", form, world.persona.consent, world.pack, world.now)
    assert len(erase(world.home, "sitter", world.now).copies) == len(paths)
    assert not any(path.exists() for path in paths)


def test_an_export_for_kohya_has_its_names_and_the_same_numbers(world: World, tmp_path: Path) -> None:
    source = made(world)
    paths = export(source, tmp_path / "out", "kohya", world.persona.consent, None, world.now)
    assert list(tensors_in(paths[0])) == [
        "lora_unet_blocks_0_to_out_0.lora_down.weight", "lora_unet_blocks_0_to_out_0.alpha",
    ]  # fmt: skip
    assert struct.unpack("<2f", paths[0].read_bytes()[-8:]) == (0.5, 16.0)
    with pytest.raises(InvalidInput, match="no format"):
        export(source, tmp_path / "other", "onnx", world.persona.consent, None, world.now)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b[:20],
        lambda b: b"",
        lambda b: b"\xff" * 40,
        lambda b: b.replace(b"data_", b"dada_"),
    ],
)
def test_a_damaged_file_is_no_lora(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a.safetensors").write_bytes(damage(weights()))
    with pytest.raises(LoraBroken):
        tensors_in(tmp_path / "a.safetensors")


def test_the_chosen_version_is_the_one_that_is_used(world: World) -> None:
    loras = world.home.persona("sitter").loras
    for version in ("v001", "v002"):
        world.artifact(version)
    choose(loras, "v001")
    assert latest_artifact(loras) == "v001"
    plan = plan_order(Order("in a park"), world.persona, find_preset("fast"), world.pack, world.home)
    assert plan.lora == "v001"
    assert [entry.used for entry in entries(world.home.persona("sitter"))] == [True, False]
    with pytest.raises(NotFound, match="v009"):
        choose(loras, "v009")
    choose(loras, None)
    assert latest_artifact(loras) == "v002"


def test_a_page_and_a_comparison(world: World) -> None:
    home = world.home.persona("sitter")
    world.artifact("v001", steps=40)
    world.artifact("v002", steps=80)
    told = dict(page(find(home, "v002")))
    assert told["LoRA"] == "v002 of sitter, in use"
    assert (told["steps"], told["likeness"]) == ("80", "not measured")
    assert told["held-out loss"].startswith("0.5000 at step")
    rows = {name: (left, right) for name, left, right in compare(find(home, "v001"), find(home, "v002"))}
    assert rows["steps"] == rows["config.steps"] == ("40", "80")
    assert "rank" not in rows, "what is equal is not shown"
    assert rows["likeness"] == ("not measured", "not measured")
    assert rows["test"] == ("not tested", "not tested")


def test_a_page_says_where_the_weights_come_from(world: World) -> None:
    folder = world.artifact("v002")
    known: dict[str, object] = {
        "chosen_step": 150, "passed": True, "parent": "v001", "device": "a card",
        "peak_vram_bytes": 3 * 2**29, "text_encoder_sha256": "e" * 64,
    }  # fmt: skip
    atomic_write(folder / MANIFEST, read_artifact(folder).model_copy(update=known).model_dump_json())
    told = dict(page(find(world.home.persona("sitter"))))
    assert told["checkpoint"] == "step 150, the best of those judged"
    assert (told["parent"], told["device"], told["VRAM"]) == ("v001", "a card", "at most 1.5 GiB")
    assert told["text encoder"] == f"sha256 {'e' * 16}"
    known = {"chosen_step": None, "passed": False}
    atomic_write(folder / MANIFEST, read_artifact(folder).model_copy(update=known).model_dump_json())
    told = dict(page(find(world.home.persona("sitter"))))
    assert told["checkpoint"] == "the last; none passed the guards"


def test_likeness_is_that_of_the_newest_pictures_with_the_token(world: World) -> None:
    world.dataset()
    world.artifact("v001")
    ruler = open_ruler(world.persona, home=world.home, pack=world.pack, stack=world.stack)
    for token in (True, False):
        order = Order("smiling", {"seeds": (1, 2)}, token=token)
        plan = plan_order(order, world.persona, find_preset("fast"), world.pack, world.home)
        _, folder = generate(
            world.persona, plan, home=world.home, pack=world.pack, engine=world.engine,
            progress=SilentProgress(), now=world.now,
        )  # fmt: skip
        report = measure(
            world.persona, folder, ruler, home=world.home, progress=SilentProgress(), now=world.now
        )
        if token:
            alike = report
    world.artifact("v002")
    first, second = entries(world.home.persona("sitter"))
    assert first.likeness == alike
    assert first.likeness_words.endswith(f"threshold {ruler.calibration.threshold:.2f}: recognised")
    assert second.likeness is None


def test_every_place_is_checked(tmp_path: Path) -> None:
    kohya = tree(tmp_path / "sd-scripts", ".")
    (kohya / "train_network.py").write_text("", encoding="utf-8")
    settings = Settings(
        home=tmp_path / "not" / "yet", comfyui_dir=tree(tmp_path / "comfy", "models/loras"),
        kohya_script_path=kohya / "train_network.py", kohya_accelerate_bin="no-such-accelerate",
    )  # fmt: skip
    found = {check.name: check for check in check_all(settings)}
    assert found["home"].place == tmp_path
    assert found["comfyui_dir"].place == tmp_path / "comfy" / "models" / "loras"
    assert found["comfyui_dir"].free_bytes
    assert found["easy_diffusion_dir"].place is None
    assert {name for name, check in found.items() if check.problem} == {
        "kohya.script_path (SDXL)", "kohya.accelerate_bin",
    }  # fmt: skip
