"""llama.cpp's K formats, written: the ``gguf`` package only reads them.

Plain rounding to the nearest value, without llama.cpp's search for better scales; the layout of the bytes is
what ``gguf.quants`` decodes (block_q4_K and block_q6_K of ggml-common.h).

N blocks of 256 values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def _half(values_N: Floats) -> tuple[Bytes, Floats]:
    """float16 bytes (N, 2), and the values that they stand for (N, 1, 1)."""
    half = values_N.astype(np.float16).reshape(-1, 1)
    return half.view(np.uint8), half.astype(np.float32)[:, :, None]


def _divided(values: Floats, by: Floats) -> Floats:
    return np.divide(values, by, out=np.zeros_like(values), where=by != 0)


def q6_k(rows: Floats) -> Bytes:
    """w = d s q: 16 groups of 16, q in -32..31, s int8, d float16. 210 bytes per 256 values."""
    groups = rows.reshape(-1, 16, 16)
    wanted = np.abs(groups).max(2, keepdims=True) / 31
    d_bytes, d = _half(wanted.max((1, 2)) / 127)
    s = np.rint(_divided(wanted, np.broadcast_to(d, wanted.shape))).clip(0, 127)
    q = np.rint(_divided(groups, np.broadcast_to(d * s, groups.shape))).clip(-32, 31) + 32
    codes = q.astype(np.uint8).reshape(-1, 256)
    low = (codes & 15).reshape(-1, 2, 2, 64)
    high = (codes >> 4).reshape(-1, 2, 4, 32)
    parts = [
        (low[:, :, 0] | low[:, :, 1] << 4).reshape(-1, 128),
        (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6).reshape(-1, 64),
        s.astype(np.int8).reshape(-1, 16).view(np.uint8),
        d_bytes,
    ]
    return np.concatenate(parts, axis=1).reshape(*rows.shape[:-1], -1)


def q4_k(rows: Floats) -> Bytes:
    """w = d s q - e m: 8 groups of 32, q in 0..15, s and m of 6 bits, d and e float16. 144 bytes."""
    groups = rows.reshape(-1, 8, 32)
    floor = np.maximum(-groups.min(2, keepdims=True), 0)
    step = (groups.max(2, keepdims=True) + floor) / 15
    d_bytes, d = _half(step.max((1, 2)) / 63)
    e_bytes, e = _half(floor.max((1, 2)) / 63)
    s = np.rint(_divided(step, np.broadcast_to(d, step.shape))).clip(0, 63)
    m = np.rint(_divided(floor, np.broadcast_to(e, floor.shape))).clip(0, 63)
    q = np.rint(_divided(groups + e * m, np.broadcast_to(d * s, groups.shape))).clip(0, 15)
    pairs = q.astype(np.uint8).reshape(-1, 4, 2, 32)
    codes = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    parts = [d_bytes, e_bytes, _six_bits(s.astype(np.uint8)[:, :, 0], m.astype(np.uint8)[:, :, 0]), codes]
    return np.concatenate(parts, axis=1).reshape(*rows.shape[:-1], -1)


def _six_bits(s_N8: Bytes, m_N8: Bytes) -> Bytes:
    """Eight scales and eight minima of 6 bits in 12 bytes; the last four of each lend their upper bits."""
    first = s_N8[:, :4] | (s_N8[:, 4:] >> 4) << 6
    second = m_N8[:, :4] | (m_N8[:, 4:] >> 4) << 6
    third = (s_N8[:, 4:] & 15) | (m_N8[:, 4:] & 15) << 4
    return np.concatenate([first, second, third], axis=1)


def packed(values: Floats, packing: Any) -> Bytes:
    """``values`` as blocks of ``packing``, a ``gguf.GGMLQuantizationType``."""
    from gguf import quants

    own = {"Q6_K": q6_k, "Q4_K": q4_k}.get(packing.name)
    return own(values) if own else np.asarray(quants.quantize(values, packing)).view(np.uint8)
