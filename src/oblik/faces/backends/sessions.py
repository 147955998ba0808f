"""Opening a network with onnxruntime. In: a file. Out: a session on the CPU. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from oblik.errors import PackBroken

REPAIR = "oblik pack verify"


def open_session(path: Path, threads: int) -> Any:
    """The network in ``path``. Raises PackBroken when it cannot be opened."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception types are private
        raise PackBroken(f"cannot open the network {path}: {error}", hint=REPAIR) from error


def fits(shape: Sequence[int | str | None], wanted: Sequence[int]) -> bool:
    """Whether a shape is ``wanted``, or leaves it open."""
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(not isinstance(a, int) or a == b for a, b in pairs)


def unfit(path: Path, session: Any, wanted: str) -> PackBroken:
    """The error that says what a network has and what it should have."""
    inputs, outputs = (
        ", ".join(f"{end.name} {end.shape}" for end in ends)
        for ends in (session.get_inputs(), session.get_outputs())
    )
    return PackBroken(f"{path} has inputs {inputs} and outputs {outputs}, not {wanted}", hint=REPAIR)
