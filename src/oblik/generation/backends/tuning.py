"""How a plan wants its network run: sampler, attention, first-block cache, compiled blocks.

In: a pipeline's `Family`, a plan. Out: the same pipeline, set so; setting it for the next plan undoes what
that one does not ask for. What this machine or this network lacks is refused with the reason. Knows nothing
of prompts and memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import FirstBlockCacheConfig
from diffusers.models.cache_utils import CacheMixin

from oblik.diffusion import samplers
from oblik.diffusion.families.family import Family
from oblik.errors import BackendUnavailable
from oblik.generation.plan import Attention, Plan


def tune(family: Family, plan: Plan) -> None:
    """Set sampler, attention and cache as the plan asks.

    Raises:
        BackendUnavailable: a package, a card or a network that can do it is missing.
    """
    samplers.use(family.pipeline, plan.sampler)
    _use_attention(family.network, plan.attention)
    _use_cache(family.network, plan.cache_threshold)


def compile_blocks(network: Any, backend: str = "inductor") -> None:
    """Have the repeated blocks compiled when they first run; only opening the pipeline again undoes it.

    Raises:
        BackendUnavailable: the network has no blocks that repeat.
    """
    try:
        network.compile_repeated_blocks(backend=backend)
    except (ValueError, AttributeError) as unable:
        raise BackendUnavailable(
            f"this network cannot be compiled: {unable}", hint=_without("--compile")
        ) from unable


def forget(network: Any) -> None:
    """Let no state of a cache reach the next picture: only a normal end does that by itself."""
    if isinstance(network, CacheMixin):
        network._reset_stateful_cache()


def _use_attention(network: Any, name: Attention) -> None:
    used = getattr(network, "attention_in_use", "native")
    if name == used:
        return
    hint = "--attention native"
    try:
        with quiet("diffusers.models.modeling_utils"):
            network.set_attention_backend(name)
    except (RuntimeError, ImportError, AttributeError) as lacking:
        raise BackendUnavailable(f"attention {name!r} is not available: {lacking}", hint=hint) from lacking
    if name != "native" and network.device.type != "cuda":
        network.set_attention_backend("native")
        raise BackendUnavailable(f"attention {name!r} needs a CUDA card", hint=hint)
    if not any(hasattr(each, "_attention_backend") for each in network.attn_processors.values()):
        network.set_attention_backend("native")
        raise BackendUnavailable(f"{type(network).__name__} knows native attention only", hint=hint)
    network.attention_in_use = name


def _use_cache(network: Any, threshold: float) -> None:
    if not isinstance(network, CacheMixin):
        if threshold:
            raise BackendUnavailable(
                f"{type(network).__name__} has no first-block cache", hint=_without("--cache")
            )
        return
    config = getattr(network, "_cache_config", None)
    if config is not None and config.threshold != threshold:
        network.disable_cache()
    if threshold and not network.is_cache_enabled:
        network.enable_cache(FirstBlockCacheConfig(threshold=threshold))


def _without(option: str) -> str:
    return f"give the command again without {option}"


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Inside, a library's module warns of nothing."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
