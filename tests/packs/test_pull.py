"""Pulling from a hub: what arrives is what the hub vouched for, or nothing that looks like a pack."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.packs.loopback_hub import BASE, QUANTS, TOKEN, WEIGHTS, LoopbackHub

from oblik.errors import BackendUnavailable, Conflict, InvalidInput, JobCancelled, NotFound, PackBroken
from oblik.packs.hub import HubSource
from oblik.packs.pull import Pulled
from oblik.packs.store import alone, list_packs, open_pack, verify
from oblik.paths import Home
from oblik.progress import SilentProgress

Get = Callable[..., Pulled]


def packs_in(home: Home) -> list[str]:
    return [pack.manifest.name for pack in list_packs(home) if home.packs in pack.folder.parents]


def hidden(home: Home) -> list[str]:
    return sorted(path.name for path in home.packs.glob(".*") if path.is_dir())


def test_what_is_pulled_is_locked_and_whole(hub: LoopbackHub, get: Get, home: Home) -> None:
    pulled_at, pulled = datetime(2026, 3, 1, 12, tzinfo=timezone.utc), get()
    pack = open_pack("tiny", home)
    assert (pack.folder / "transformer" / "tiny-Q4.gguf").read_bytes() == QUANTS["tiny-Q4.gguf"]
    assert verify(pack) == []
    assert pack.manifest.components.keys() == {"pipeline", "transformer", "vae"}
    transformer = pack.manifest.components["transformer"]
    assert (transformer.format, transformer.source) == ("gguf", "quants/tiny-GGUF")
    assert transformer.revision == hub.heads["quants/tiny-GGUF"]
    assert pulled.unchecked == ()
    assert (pulled.lock.source, pulled.lock.pulled, pulled.lock.variant) == (hub.url, pulled_at, "q4")
    assert {(file.path, file.sha256) for file in pulled.lock.files} == {
        ("model_index.json", sha256(BASE["model_index.json"]).hexdigest()),
        ("vae/model.safetensors", sha256(BASE["vae/model.safetensors"]).hexdigest()),
        ("vae/config.json", sha256(BASE["vae/config.json"]).hexdigest()),
        ("transformer/tiny-Q4.gguf", sha256(QUANTS["tiny-Q4.gguf"]).hexdigest()),
    }
    assert hidden(home) == []


def test_a_part_brings_its_settings_which_are_checked_like_the_rest(
    hub: LoopbackHub, told: dict[str, Any], get: Get, home: Home
) -> None:
    """Only with the option that they belong to; and they stay when nothing is asked for."""
    told["parts"][-1]["settings"] = {"edit/edit.json": {"side_px": 518}}
    pulled_at = home.packs / "tiny" / "edit" / "edit.json"
    get()
    assert not pulled_at.exists()
    get(options=("edit",))
    assert json.loads(pulled_at.read_text()) == {"side_px": 518}
    assert get().lock.options == ["edit"]
    pack = open_pack("tiny", home)
    assert [file.path for file in pack.manifest.components["settings"].files] == ["edit/edit.json"]
    assert verify(pack) == []
    pulled_at.write_text("{}")
    assert verify(pack) == ["edit/edit.json differs from its hash"]
    get()
    assert verify(open_pack("tiny", home)) == []


def test_the_hub_is_asked_for_nothing_else_and_the_network_never_sees_the_token(
    hub: LoopbackHub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    get()
    assert all("torch" not in asked.agent and "agent/" not in asked.agent for asked in hub.asked)
    assert all(
        asked.path.startswith(("/api/models/", "/blob/")) or "/resolve/" in asked.path for asked in hub.asked
    )
    by_server = {(asked.server, asked.authorized) for asked in hub.asked}
    assert by_server == {("hub", True), ("network", False)}
    assert sum(asked.path.startswith("/api/") for asked in hub.asked) == 2


def test_afterwards_the_library_refuses_to_connect(hub: LoopbackHub, get: Get) -> None:
    from huggingface_hub import get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    get()
    asked = len(hub.asked)
    with pytest.raises(OfflineModeIsEnabled):
        get_session().get(f"{hub.url}/api/models/maker/tiny")
    assert len(hub.asked) == asked


def test_a_connection_that_breaks_goes_on_where_it_broke(hub: LoopbackHub, get: Get, home: Home) -> None:
    hub.breaks["tiny-Q6.gguf"] = [15 << 20]
    get(variant="q6")
    assert (home.packs / "tiny" / "transformer" / "tiny-Q6.gguf").read_bytes() == WEIGHTS
    ranges = [asked.range for asked in hub.asked if asked.path.startswith("/blob/") and "Q6" in asked.path]
    assert ranges == [None, f"bytes={10 << 20}-"]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "a server that ignores ranges"])
def test_a_pull_that_was_stopped_leaves_no_pack_and_goes_on(
    ranges: bool, hub: LoopbackHub, get: Get, home: Home
) -> None:
    hub.ranges = ranges
    heard: list[int] = []

    def enough() -> bool:
        heard.append(1)
        return len(heard) > 5

    with pytest.raises(JobCancelled):
        get(SilentProgress(enough), variant="q6")
    assert packs_in(home) == []
    parts = list((home.packs / ".tiny.part").rglob("*.part"))
    assert len(parts) == 1
    had = parts[0].stat().st_size
    assert 0 < had < len(WEIGHTS)
    hub.asked.clear()
    get(variant="q6")
    assert (home.packs / "tiny" / "transformer" / "tiny-Q6.gguf").read_bytes() == WEIGHTS
    assert next(asked.range for asked in hub.asked if asked.path.startswith("/blob/")) == f"bytes={had}-"
    assert "model_index.json" not in hub.fetched()
    assert hidden(home) == []


@pytest.mark.parametrize("name", ["vae/model.safetensors", "vae/config.json"], ids=["large", "small"])
def test_a_file_that_is_not_what_the_hub_vouched_for_is_refused(
    name: str, hub: LoopbackHub, get: Get, home: Home
) -> None:
    hub.lies[name] = bytes(len(BASE[name]))
    with pytest.raises(PackBroken, match=name):
        get()
    assert packs_in(home) == []
    assert not list((home.packs / ".tiny.part").rglob(f"*{Path(name).name}*"))
    hub.lies.clear()
    get()
    assert verify(open_pack("tiny", home)) == []


def test_a_partial_file_that_went_bad_is_fetched_anew(hub: LoopbackHub, get: Get, home: Home) -> None:
    digest = sha256(QUANTS["tiny-Q4.gguf"]).hexdigest()
    part = home.packs / ".tiny.part" / "transformer" / f"tiny-Q4.gguf.{digest[:12]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"rotten")
    get()
    assert [asked.range for asked in hub.asked if "Q4" in asked.path and asked.server == "network"] == [
        "bytes=6-",
        None,
    ]


def test_the_catalogue_and_the_hub_must_agree(
    hub: LoopbackHub, get: Get, home: Home, told: dict[str, Any]
) -> None:
    told["parts"][2]["files"][0]["sha256"] = sha256(b"another file").hexdigest()
    with pytest.raises(PackBroken, match="catalogue"):
        get()
    assert hub.fetched() == []
    assert packs_in(home) == []


def test_a_pinned_revision_stays_and_an_open_one_is_pinned_when_pulled(
    hub: LoopbackHub, get: Get, told: dict[str, Any]
) -> None:
    first = hub.heads["maker/tiny"]
    told["parts"][3]["revision"] = first
    hub.commit("maker/tiny", {**BASE, "vae/config.json": b"[]", "model_index.json": b"[]"})
    revisions = {file.path: file.revision for file in get().lock.files}
    assert revisions["vae/config.json"] == first
    assert revisions["model_index.json"] == hub.heads["maker/tiny"] != first


def test_a_gated_repository_says_where_to_agree(
    hub: LoopbackHub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add("quants/tiny-GGUF")
    with pytest.raises(BackendUnavailable, match=f"gated.*{hub.url}/quants/tiny-GGUF") as refused:
        get()
    assert "hf auth login" in refused.value.hint
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    get()


def test_what_the_hub_does_not_have_is_named(hub: LoopbackHub, get: Get, told: dict[str, Any]) -> None:
    told["parts"][2]["files"][0] = {
        "file": "tiny-Q4_K.gguf", "path": "t.gguf", "confirmed": False, "note": "seen nowhere",
    }  # fmt: skip
    with pytest.raises(NotFound, match=r"tiny-Q4_K\.gguf.*seen nowhere.*closest there is tiny-Q4\.gguf"):
        get()
    told["parts"][2]["revision"] = "0" * 40
    with pytest.raises(NotFound, match="no revision 0000"):
        get()
    told["parts"][2]["repository"] = "nobody/nothing"
    with pytest.raises(NotFound, match="no repository nobody/nothing"):
        get()


def test_a_hub_that_is_down_is_named_with_another_way(
    hub: LoopbackHub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.down.add("vae/config.json")
    with pytest.raises(BackendUnavailable, match=r"answered 503 for vae/config\.json") as refused:
        get()
    assert "--from DIR" in refused.value.hint
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BackendUnavailable, match=r"connection to http://127\.0\.0\.1:1 failed"):
        get()
    monkeypatch.delenv("HF_ENDPOINT")
    assert HubSource().endpoint == "https://huggingface.co"


def test_a_licence_that_forbids_commercial_use_is_accepted_by_its_name(
    hub: LoopbackHub, get: Get, told: dict[str, Any]
) -> None:
    told["parts"][3] |= {"commercial_use": False, "licence": "Research-only"}
    told["parts"][4] |= {"commercial_use": False, "licence": "Never-asked-for"}
    with pytest.raises(InvalidInput, match="Research-only, https://example") as refused:
        get(accepted=("research-only",))
    asked = "oblik pack pull tiny --variant q4 --accept-licence research-only --accept-licence Research-only"
    assert refused.value.hint == asked
    assert hub.asked == []
    pulled = get(accepted=("Research-only",))
    assert pulled.lock.accepted == ["Research-only"]
    assert not pulled.pack.manifest.components["vae"].commercial_use
    get()


def test_options_come_when_asked_for_and_stay(hub: LoopbackHub, get: Get, home: Home) -> None:
    get()
    assert "edit" not in open_pack("tiny", home).manifest.components
    hub.asked.clear()
    assert get(options=("edit",)).lock.options == ["edit"]
    assert hub.fetched() == ["edit.safetensors"]
    changed = get(variant="q6")
    assert (changed.lock.variant, changed.lock.options) == ("q6", ["edit"])
    assert sorted(path.name for path in (home.packs / "tiny" / "transformer").iterdir()) == ["tiny-Q6.gguf"]
    hub.asked.clear()
    assert get(variant=None).lock.model_dump() == changed.lock.model_dump()
    assert hub.fetched() == []
    for choice in ({"variant": "q5"}, {"options": ("wings",)}):
        with pytest.raises(InvalidInput):
            get(**choice)


def test_a_disk_that_is_too_small_is_told_before(
    hub: LoopbackHub, get: Get, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**7, 10**7))
    with pytest.raises(BackendUnavailable, match="are to come") as refused:
        get(variant="q6")
    assert "oblik pack pull tiny --variant q6" in refused.value.hint
    assert hub.fetched() == []
    assert packs_in(home) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits files as POSIX systems do")
def test_a_disk_that_fills_up_keeps_what_came(hub: LoopbackHub, get: Get, home: Home) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 20, before[1]))
    try:
        with pytest.raises(BackendUnavailable, match="full") as refused:
            get(variant="q6")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(refused.value.__cause__, OSError)
    assert refused.value.__cause__.errno == errno.EFBIG
    assert packs_in(home) == []
    hub.asked.clear()
    get(variant="q6")
    assert (home.packs / "tiny" / "transformer" / "tiny-Q6.gguf").read_bytes() == WEIGHTS
    assert next(asked.range for asked in hub.asked if asked.server == "network") is not None


def test_pulling_again_mends_a_changed_byte(hub: LoopbackHub, get: Get, home: Home) -> None:
    get()
    file = home.packs / "tiny" / "vae" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[700] ^= 1
    file.write_bytes(bytes(content))
    assert verify(open_pack("tiny", home)) == ["vae/model.safetensors differs from its hash"]
    hub.asked.clear()
    get()
    assert verify(open_pack("tiny", home)) == []
    assert hub.fetched() == ["vae/model.safetensors"]


KILLED = """
import os, signal, sys
from datetime import datetime, timezone
from pathlib import Path
from oblik.packs.catalogue import find_entry
from oblik.packs.hub import HubSource
from oblik.packs.pull import Wish, pull
from oblik.paths import Home
from oblik.progress import SilentProgress

heard = []
def cancelled():
    heard.append(1)
    if len(heard) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return False
wish = Wish(find_entry(sys.argv[1]), sys.argv[1])
now = datetime.now(timezone.utc)
pull(wish, HubSource(), Home(Path(sys.argv[2])), now=now, progress=SilentProgress(cancelled))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("tick", [6, 20], ids=["fetching", "checking"])
def test_a_pull_killed_at_any_moment_goes_on(
    tick: int, hub: LoopbackHub, get: Get, home: Home, told: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(told), encoding="utf-8")
    words = [sys.executable, "-c", KILLED, str(tmp_path / "tiny.json"), str(home.root), str(tick)]
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(words, check=False, timeout=120, env={**os.environ, "PYTHONPATH": source})
    assert done.returncode == -signal.SIGKILL
    assert packs_in(home) == []
    assert hidden(home) == [".tiny.part"]
    hub.asked.clear()
    get(variant="q6")
    assert verify(open_pack("tiny", home)) == []
    assert "model_index.json" not in hub.fetched()
    assert hidden(home) == []


def test_a_swap_that_was_killed_half_way_loses_nothing(hub: LoopbackHub, get: Get, home: Home) -> None:
    get(options=("edit",))
    (home.packs / "tiny").rename(home.packs / ".tiny.old")
    hub.asked.clear()
    assert get().lock.options == ["edit"]
    assert hub.fetched() == []
    assert hidden(home) == []


def test_two_pulls_of_one_pack_do_not_meet(hub: LoopbackHub, get: Get, home: Home) -> None:
    with alone(home.packs / "tiny"), pytest.raises(Conflict, match="another process"):
        get()
    get()
