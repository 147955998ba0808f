"""Who may import whom, read from the source without running it.

The rules are those of the house; what is allowed beyond them stands in the tables below, with the
reason. ``violations`` judges one module, so the rules are themselves tested on small examples.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "oblik"

TOP_LEVEL = {"errors", "registry", "paths", "settings", "images", "labels", "progress"}
TOP_LEVEL_MAY_IMPORT = {"pydantic", "pydantic_settings", "PIL"}
# In this order each may import those before it: photos are judged by their faces, a dataset is cut
# to the sizes of a pack.
STAGES = (
    "personas", "faces", "photos", "packs", "datasets", "training", "generation", "likeness", "avatar",
)  # fmt: skip
SURFACES = {"cli", "api", "bot"}
HEAVY = {
    "torch", "diffusers", "transformers", "peft", "accelerate", "onnxruntime", "onnx", "bitsandbytes",
    "torchao", "safetensors.torch",
}  # fmt: skip
NETWORK = {"socket", "ssl", "urllib", "http", "ftplib", "requests", "httpx", "aiohttp", "huggingface_hub"}
BANNED_NAMES = {"utils", "util", "helpers", "common", "manager", "service", "core", "base", "misc"}
LONGEST_MODULE, LONGEST_FUNCTION = 350, 80

# What is allowed beyond the rules: (module, import) -> why.
ALLOWED = {
    ("progress", "rich"): "drawn bars; imported when the first bar is drawn",
    ("images", "pillow_heif"): "the Pillow plugin for phones' HEIC; imported when such a file is opened",
    ("packs.hub", "huggingface_hub"): "`oblik pack pull`, the only thing that goes online",
    ("cli.miniature", "oblik.miniature"): "the command group of the miniature itself",
    ("cli.demo", "oblik.miniature"): "the demo's sitter is rendered",
}


@dataclass(frozen=True)
class Import:
    """One imported name. ``late`` ones stand inside a function or under TYPE_CHECKING."""

    name: str
    late: bool
    line: int

    @property
    def parts(self) -> list[str]:
        return self.name.split(".")


def imports(tree: ast.AST, late: bool = False) -> Iterator[Import]:
    """Every import with its full name: ``from a import b`` is ``a.b``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, late, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(f"{node.module}.{alias.name}", late, node.lineno) for alias in node.names)
        else:
            inner = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            yield from imports(node, late or inner or typing)


def violations(module: str, source: str) -> list[str]:
    """What is wrong with one module, named as ``training.trainer`` (relative to ``oblik``)."""
    tree = ast.parse(source)
    found = []
    for item in imports(tree):
        if any(module == who and item.name.startswith(what) for who, what in ALLOWED) and item.late:
            continue
        verdict = _inside(module, item) if item.parts[0] == "oblik" else _outside(module, item)
        if verdict:
            found.append(f"{module}:{item.line} imports {item.name}: {verdict}")
    found += [f"{module}:{line} asks for the miniature by name" for line in _special_cases(module, tree)]
    found += [f"{module}:{line} does something when imported" for line in _acts_on_import(tree)]
    return found


def _outside(module: str, item: Import) -> str:
    place = module.split(".")
    heavy = any(item.name == name or item.name.startswith(f"{name}.") for name in HEAVY)
    if heavy and not (place[0] in ("diffusion", "miniature") or "backends" in place[:-1]):
        return "tensor libraries live under backends/, diffusion/ and miniature/"
    if item.parts[0] in NETWORK and not item.name.startswith("urllib.parse"):
        return "nothing opens a connection"
    allowed = item.parts[0] in TOP_LEVEL_MAY_IMPORT or item.parts[0] in sys.stdlib_module_names
    if place[0] in TOP_LEVEL and not allowed:
        return "top-level modules import the standard library, pydantic and Pillow"
    return ""


def _inside(module: str, item: Import) -> str:
    here = module.split(".")[0]
    there = item.parts[1] if len(item.parts) > 1 else "__version__"
    if module == "__main__":
        return ""
    if there in TOP_LEVEL or there in ("__version__", here):
        return _backend_from_outside(module, item)
    if here in TOP_LEVEL:
        return "top-level modules know no stage"
    if there in SURFACES:
        return "nothing imports a surface"
    if there == "flows":
        return "" if here in ("flows", "jobs") or (here == "studio" and item.late) else "only studio/, late"
    if there == "studio":
        return "" if here in SURFACES | {"flows", "studio"} else "only surfaces call studio/"
    if there in ("diffusion", "miniature"):
        free = here in ("diffusion", "miniature", "flows") or "backends" in module.split(".")[:-1]
        return "" if free else f"only backends/, flows/ and miniature/ reach {there}/"
    if there in STAGES:
        return _stage(module, here, there) or _backend_from_outside(module, item)
    return f"{there!r} is in no table of this test"


def _stage(module: str, here: str, there: str) -> str:
    if here in STAGES and STAGES.index(there) > STAGES.index(here):
        return f"{there} comes after {here}"
    if here == "jobs":
        return "jobs know no stage"
    if here == "diffusion" and "families" not in module and there not in ("packs", "training", "generation"):
        return "diffusion knows packs, training configurations and plans, no more"
    return ""


def _backend_from_outside(module: str, item: Import) -> str:
    inside = "backends" in module.split(".")[:-1] or module.split(".")[0] in ("miniature", "flows")
    return (
        "" if inside or "backends" not in item.parts else "backends are loaded by name, through registry.py"
    )


def _special_cases(module: str, tree: ast.AST) -> list[int]:
    if module.split(".")[0] == "miniature":
        return []
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    return [
        node.lineno
        for node in compared
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and part.value == "miniature"
    ]


def _acts_on_import(tree: ast.Module) -> list[int]:
    """Calls whose result nobody keeps: mkdir, seeding, logging set-up, registering."""
    return [
        node.lineno for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]


def modules() -> dict[str, str]:
    """Relative dotted name to source text of everything in the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts)] = path.read_text(encoding="utf-8")
    return found


MODULES = modules()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_keep_the_rules(name: str) -> None:
    assert violations(name, MODULES[name]) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_names_sizes_and_docstrings(name: str) -> None:
    source = MODULES[name]
    tree = ast.parse(source)
    assert not set(name.split(".")) & BANNED_NAMES
    assert source.count("\n") <= LONGEST_MODULE
    assert ast.get_docstring(tree) or not source.strip(), "a module says what comes in and what goes out"
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {n: length for n, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_packages_that_are_there_are_in_the_tables() -> None:
    packages = {path.parent.relative_to(SOURCE).parts[0] for path in SOURCE.glob("*/__init__.py")}
    assert packages <= {*STAGES, *SURFACES, "diffusion", "miniature", "flows", "jobs", "studio"}
    assert {path.stem for path in SOURCE.glob("*.py")} <= TOP_LEVEL | {"__init__", "__main__"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "import numpy"),
        ("paths", "from oblik.packs import manifest"),
        ("progress", "from rich.progress import Progress"),
        ("faces.masks", "from oblik.photos.quality import Quality"),
        ("photos.intake", "from oblik.datasets.manifest import Photo"),
        ("training.config", "from oblik.generation.plan import Plan"),
        ("training.trainer", "import torch.nn as nn"),
        ("generation.engine", "def f():\n    from diffusers import QwenImagePipeline"),
        ("datasets.build", "from safetensors.torch import load_file"),
        ("datasets.build", "import oblik.diffusion.load"),
        ("likeness.gate", "from oblik.miniature.people import Person"),
        ("likeness.gate", "from oblik.faces.backends.onnx import OnnxStack"),
        ("faces.stack", "from oblik.faces.backends import onnx"),
        ("studio", "from oblik.flows import train"),
        ("cli.train", "def f():\n    from oblik.flows.train import run"),
        ("cli.train", "from oblik.api.app import create"),
        ("generation.prompt", "from oblik.studio import Studio"),
        ("cli.demo", "from oblik.miniature.shoot import shoot"),
        ("flows.train", "from oblik.cli import main"),
        ("packs.store", "if name == 'miniature':\n    pass"),
        ("packs.store", "ok = name in ('miniature', 'tiny')"),
        ("paths", "from pathlib import Path\nPath('home').mkdir()"),
        ("datasets.build", "def f():\n    from urllib.request import urlopen"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("images", "from PIL import Image"),
        ("progress", "def f():\n    from rich.progress import Progress"),
        ("datasets.build", "from oblik.packs.manifest import Pack\nimport cv2, numpy"),
        ("training.backends.native.loop", "import torch\nfrom oblik.diffusion.load import open_pipeline"),
        ("studio", "def f():\n    from oblik.flows import train"),
        ("cli.train", "from oblik.studio import Studio\nfrom oblik.personas.persona import Persona"),
        ("cli.miniature", "def f():\n    from oblik.miniature.shoot import shoot"),
        ("settings", "pack: str = 'miniature'"),
        ("generation.backends.diffusers_engine", "import torch"),
    ],
)
def test_what_the_rules_allow_is_not_reported(module: str, source: str) -> None:
    assert violations(module, source) == []
