"""What is installed is what is declared, locked and imported; the version stands in one place."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from oblik import __version__

ROOT = Path(__file__).resolve().parent.parent
LOCK_LINE = re.compile(r'[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]*( ; python_version (<|>=) "3\.11")?')
DISTRIBUTIONS = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "pynvml": "nvidia-ml-py", "tomllib": "tomli",
    "yaml": "pyyaml",
}  # fmt: skip
NEEDED_UNSEEN = {
    "accelerate": "diffusers and transformers load weights through it",
    "onnx": "torch writes ONNX files through it",
    "scipy": "diffusers' schedulers and imagehash import it",
    "tomli": "pydantic-settings reads TOML with it on Python 3.10",
}
OPTIONAL = {
    "c2pa",
    "cryptography",
    "spandrel",
    "spandrel-extra-arches",
    "dlib",
    "bitsandbytes",
    "nvidia-ml-py",
    "torchao",
}


def project() -> dict[str, Any]:
    read: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return read


def optional() -> dict[str, list[str]]:
    extras: dict[str, list[str]] = project()["project"]["optional-dependencies"]
    return extras


def locked() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def declared() -> dict[str, Requirement]:
    lines = project()["project"]["dependencies"]
    return {canonicalize_name(need.name): need for need in map(Requirement, lines)}


def imported(folder: str) -> set[str]:
    """Distributions of the third-party packages that the sources in ``folder`` import."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    names -= {"oblik", *sys.stdlib_module_names}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}


def test_the_lock_holds_exact_versions_and_no_addresses() -> None:
    assert [line for line in locked() if not LOCK_LINE.fullmatch(line)] == []
    assert "torch==2.13.0" in locked()
    names = [re.split("[= ]", line)[0] for line in locked()]
    assert names == sorted(names)


def test_one_version_of_each_package_for_each_python() -> None:
    for python in ("3.10", "3.11", "3.13"):
        needs = [Requirement(line) for line in locked()]
        names = [n.name for n in needs if n.marker is None or n.marker.evaluate({"python_version": python})]
        assert len(names) == len(set(names)), python


def test_the_lock_satisfies_what_is_declared() -> None:
    versions: dict[str, list[str]] = {}
    for need in map(Requirement, locked()):
        versions.setdefault(need.name, []).append(str(need.specifier).removeprefix("=="))
    wanted = [*declared().values(), *map(Requirement, optional()["dev"])]
    for need in wanted:
        found = versions.get(canonicalize_name(need.name), [])
        assert found, f"{need.name} is not locked: make lock"
        assert all(need.specifier.contains(version) for version in found), need


def test_every_import_is_declared_and_every_declaration_is_needed() -> None:
    assert imported("src") - declared().keys() - OPTIONAL == set()
    assert declared().keys() - imported("src") - NEEDED_UNSEEN.keys() == set()


def test_what_tests_and_tools_import_is_declared() -> None:
    dev = {canonicalize_name(need.name) for need in map(Requirement, optional()["dev"])}
    ours = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"tests"}
    used = imported("tests") | imported("tools") | imported("benchmarks")
    assert used - declared().keys() - dev - OPTIONAL - ours == set()


def test_the_version_stands_in_one_place() -> None:
    described = project()
    assert described["project"]["dynamic"] == ["version"]
    assert described["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "oblik.__version__"}
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert f"## [{__version__}]" in changes or "## [Unreleased]" in changes


def test_the_licence_is_apache() -> None:
    assert project()["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_command_and_the_pack_are_installed() -> None:
    described = project()
    assert described["project"]["scripts"] == {"oblik": "oblik.cli:main"}
    assert "packs/miniature/**" in described["tool"]["setuptools"]["package-data"]["oblik"]
    assert described["project"]["requires-python"] == ">=3.10"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_the_check_of_continuous_integration_can_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
