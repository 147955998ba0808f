"""A build that is killed leaves no original behind in plain, wherever it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SCRIPT = """
import os, runpy, signal, sys
from pathlib import Path
from oblik.datasets.build import build_dataset
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.personas.enrol import make_persona, synthetic_consent
from oblik.progress import SilentProgress
world, photos, home, at = runpy.run_path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
phone, seen = world["Phone"](photos), 0
for i in range(12):
    phone.shoot(f"IMG_{i:02d}.jpg", photo=i, turn=(0.0, 0.3, -0.3, 0.05)[i % 4])
def hook(event, arguments):
    global seen
    if event == "os.rename" and "vault" in str(arguments[1]):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
consent = synthetic_consent(world["NOW"].date())
persona = make_persona("subject", consent, world["NOW"], trigger=None, descriptors={})
pack = Pack(name="small", version="1", family="qwen_image", native_size_px=128, side_multiple_px=16)
build_dataset(persona, photos, home=Home(home), stack=phone.stack, pack=pack, now=world["NOW"],
              progress=SilentProgress())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("at", [3, 8, 15])
def test_no_original_is_left_in_plain(tmp_path: Path, at: int) -> None:
    photos, home, temporary = tmp_path / "photos", tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parents[1] / "src"), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(TESTS / "conftest.py"), str(photos), str(home), str(at)],
        env=environment, capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-800:]
    originals = [photo.read_bytes() for photo in photos.iterdir()]
    pieces = [content[len(content) // 2 :][:64] for content in originals]
    left = [path for folder in (home, temporary) for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".age" for path in left) or at == 3
    for path in left:
        content = path.read_bytes()
        assert not any(piece in content for piece in pieces), path
        assert b"Subject at home" not in content
