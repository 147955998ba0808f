"""Records are written whole and read back by file or folder."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from oblik.errors import InvalidInput, NotFound
from oblik.generation.plan import Plan
from oblik.generation.record import Picture, Record, read_record, write_record

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
PLAN = Plan(pack="p", persona="sitter", prompt="photo", seeds=(1,))
RECORD = Record(
    plan=PLAN, asked=PLAN, started_at=NOW, token_ids=[7], prompt_ids=[1, 7],
    lora_sha256=None, pack_version="1", libraries={}, device="cpu", free_vram_bytes=None, seconds={},
    pictures=[Picture(file="01.png", seed=1, sha256="0" * 64)],
)  # fmt: skip


def test_written_and_read_back(tmp_path: Path) -> None:
    file = write_record(RECORD, tmp_path)
    assert read_record(tmp_path) == read_record(file) == RECORD


def test_a_missing_record_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no record"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_text('{"plan": 1}', encoding="utf-8")
    with pytest.raises(InvalidInput, match="not a record"):
        read_record(tmp_path)
