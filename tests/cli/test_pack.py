"""``oblik pack`` on a small pack of three files, and on one that a hub on loopback has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.packs.loopback_hub import LoopbackHub, serve

from oblik.cli import main
from oblik.paths import Home


def run(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home.root), "--pack", "tiny", *arguments])


@pytest.mark.usefixtures("tiny_pack")
def test_list_marks_the_chosen_pack(home: Home) -> None:
    lines = run(home, "pack", "list").output.splitlines()
    assert any(line.startswith("* tiny 3  128 px") for line in lines)
    assert sum(line.startswith("*") for line in lines) == 1


def test_info_names_parts_licences_and_limits(home: Home, tiny_pack: Path) -> None:
    result = run(home, "pack", "info")
    assert result.exit_code == 0, result.output
    assert "tiny 3 (qwen_image, 128 px)" in result.output
    assert str(tiny_pack) in result.output
    assert all(
        text in result.output for text in ("vae", "tokenizer", "Apache-2.0", "Limits: knows three words")
    )


def test_verify_reads_every_byte(home: Home, tiny_pack: Path) -> None:
    whole = run(home, "pack", "verify", "tiny")
    assert (whole.exit_code, whole.stdout) == (0, "tiny 3: 3 files, all as in the manifest\n")
    (tiny_pack / "vae" / "model.bin").write_bytes(b"Weights" * 100)
    broken = run(home, "pack", "verify")
    assert broken.exit_code == 3
    assert "model.bin" in broken.stderr
    assert "\nhint: " in broken.stderr


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_an_unknown_pack_is_an_error_with_a_hint(verb: str, home: Home) -> None:
    result = run(home, "pack", verb, "nowhere")
    assert result.exit_code in (2, 3)
    assert "nowhere" in result.stderr
    assert "\nhint: " in result.stderr


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with serve() as hub:
        hub.commit("maker/faces", {"detector.onnx": b"d" * 5000, "README.md": b"read me"})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def entry(tmp_path: Path) -> str:
    """A file that names a pack with one closed part."""
    told = {
        "pack": {
            "name": "small", "version": "2", "family": "faces", "native_size_px": 112, "side_multiple_px": 1,
            "limits": "one eye",
        },
        "options": {"text": "something to read"},
        "parts": [
            {
                "component": "detector", "repository": "maker/faces", "format": "onnx",
                "commercial_use": False, "licence": "No-Sale", "licence_url": "https://example.org",
                "seen": ["made here"],
                "files": [{"file": "detector.onnx", "path": "faces/detector.onnx", "bytes": 5000}],
            },
            {
                "component": "text", "option": "text", "repository": "maker/faces", "format": "text",
                "commercial_use": True, "licence": "MIT", "licence_url": "https://example.org",
                "seen": ["made here"],
                "files": [
                    {"file": "README.md", "path": "README.md", "confirmed": False, "note": "never opened"}
                ],
            },
        ],
    }  # fmt: skip
    file = tmp_path / "small.json"
    file.write_text(json.dumps(told), encoding="utf-8")
    return str(file)


def test_pull_refuses_a_closed_licence_with_the_command_that_accepts_it(
    home: Home, hub: LoopbackHub, entry: str
) -> None:
    refused = run(home, "pack", "pull", entry, "--with", "text")
    assert refused.exit_code == 2
    assert "No-Sale" in refused.stderr
    hint = refused.stderr.splitlines()[-1]
    assert hint == f"hint: oblik pack pull {entry} --with text --accept-licence No-Sale"
    pulled = run(home, *hint.removeprefix("hint: oblik ").split())
    assert pulled.exit_code == 0, pulled.output
    assert pulled.stdout.splitlines() == ["small 2: 2 files, 0 MiB, checked", str(home.packs / "small")]
    assert "note: maker/faces: No-Sale forbids commercial use" in pulled.stderr
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
    told = run(home, "pack", "info", "small").output
    assert f"from {hub.url}: text" in told
    assert f"maker/faces@{hub.heads['maker/faces'][:12]}" in told
    assert run(home, "pack", "verify", "small").stdout == "small 2: 2 files, all as in the manifest\n"


def test_pull_from_a_folder_and_remove(home: Home, entry: str, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    (stick / "maker" / "faces").mkdir(parents=True)
    (stick / "maker" / "faces" / "detector.onnx").write_bytes(b"d" * 5000)
    pulled = run(home, "pack", "pull", entry, "--from", str(stick), "--accept-licence", "No-Sale")
    assert pulled.exit_code == 0, pulled.output
    assert "nothing had a hash to check these by: faces/detector.onnx" in pulled.stderr
    arguments = ["--home", str(home.root), "pack", "remove", "small"]
    kept = CliRunner().invoke(main, arguments, input="n\n")
    assert kept.exit_code == 2
    assert (home.packs / "small").is_dir()
    gone = CliRunner().invoke(main, arguments, input="y\n")
    assert gone.exit_code == 0, gone.output
    assert not (home.packs / "small").exists()
    bundled = run(home, "pack", "remove", "miniature", "--yes")
    assert (bundled.exit_code, "bundled" in bundled.stderr) == (2, True)


def test_what_is_not_here_is_shown_from_the_catalogue(home: Home, entry: str) -> None:
    assert "can be pulled: auraface, buffalo_l, qwen-image-16gb" in run(home, "pack", "list").output
    told = run(home, "pack", "info", "qwen-image-16gb").output
    assert "unsloth/Qwen-Image-2512-GGUF (Apache-2.0)" in told
    assert "--variant q4_k_m" in told
    assert told.splitlines()[-1] == "Next: oblik pack pull qwen-image-16gb"
    mine = run(home, "pack", "info", entry).output
    assert "not confirmed: README.md of maker/faces: never opened" in mine
    printed = run(home, "pack", "info", "auraface", "--json").stdout
    assert json.loads(printed)["pack"]["name"] == "auraface"


def test_the_program_itself_asks_the_hub_and_nobody_else(home: Home, hub: LoopbackHub, entry: str) -> None:
    """In a process of its own, where the library reads its environment anew."""
    words = ["-m", "oblik", "--home", str(home.root), "pack", "pull", entry, "--accept-licence", "No-Sale"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=120,
        env={**clean, "HF_ENDPOINT": hub.url, "HF_HOME": str(home.root / "hf"), "PYTHONPATH": str(source)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "check (MiB): 0 in" in done.stderr
    assert {asked.path.split("/")[1] for asked in hub.asked} == {"api", "maker", "blob"}
    assert {asked.path for asked in hub.asked if "/api/" in asked.path} == {"/api/models/maker/faces"}
    assert not (home.root / "hf").exists()
