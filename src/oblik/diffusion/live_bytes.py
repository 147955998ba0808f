"""How many bytes a forward or a training step holds at its worst, found by running it without data.

In: the configurations of a Qwen-Image pipeline and sizes. Out: peaks in bytes. The real classes run on the
meta device while every storage that an operator makes is counted until it is freed. Blocks are alike, so a
few of them are traced and the rest follow as a straight line. What a kernel takes for itself is not seen;
attention is taken to be fused (no matrix of scores, Dao et al. 2022). Knows nothing of formats or plans.

B batch, S tokens, H heads, D head size.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from peft import LoraConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

TEMPLATE_TOKENS = 34
SEEN_TOKENS = 224
"""Of a picture that the text encoder looks at: squares of 28 px in 384 x 384 px at most, and its name."""
META = torch.device("meta")

Config = Mapping[str, Any]


class LiveBytes(TorchDispatchMode):
    """Counts the storages made inside, until they are freed; those of ``known`` tensors do not count."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known = {each.untyped_storage()._cdata: each.untyped_storage() for each in known}
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._seen:
            return

        def freed(_: Any) -> None:
            self.now -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


class _Fused(torch.autograd.Function):
    """The shapes of fused attention: it keeps q, k, v, the output and a number for each row."""

    @staticmethod
    def forward(ctx: Any, q_BHSD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor) -> Tensor:
        out, rows = torch.empty_like(q_BHSD), q_BHSD.new_empty(q_BHSD.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q_BHSD, k_BHSD, v_BHSD, out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> Any:
        return tuple(torch.empty_like(each) for each in ctx.saved_tensors[:3])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, torch's attention has the shapes of a fused kernel and computes nothing."""
    functional = torch.nn.functional
    stock = functional.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Any:
        return _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]

    functional.scaled_dot_product_attention = fused  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = stock


def along_blocks(peak_of: Callable[[int], int], blocks: int) -> int:
    """The peak with ``blocks`` equal blocks, from two and three of them."""
    if blocks <= 3:
        return peak_of(blocks)
    two, three = peak_of(2), peak_of(3)
    return two + (blocks - 2) * (three - two)


def new_transformer(config: Config, dtype: torch.dtype, blocks: int | None = None) -> Any:
    """A frozen transformer on the meta device, with fewer blocks when asked."""
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    with META:
        model = QwenImageTransformer2DModel(**{**config, "num_layers": blocks or config["num_layers"]})
    return typed(model, dtype)


def new_text_encoder(
    config: Config, dtype: torch.dtype, layers: int | None = None, *, eyes: bool = False
) -> Any:
    """A frozen `text_only` Qwen2.5-VL on the meta device, with fewer layers when asked."""
    text = {**config["text_config"]}
    if layers is not None:
        text.pop("layer_types", None)
        text["num_hidden_layers"] = layers
    with META:
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig.from_dict({**config, "text_config": text})
        )
    text_only(model, eyes=eyes)
    return typed(model, dtype)


def text_only(text_encoder: Any, *, eyes: bool = False) -> None:
    """Drop what Qwen-Image never asks of its text encoder: the vision tower and the head over words.

    The pipeline reads hidden states only, so every prompt is encoded to the same bits. Edit pipelines see
    pictures and keep the tower: ``eyes``.
    """
    if not eyes:
        text_encoder.model.visual = None
    text_encoder.lm_head = torch.nn.Identity()


def new_vae(config: Config, dtype: torch.dtype) -> Any:
    """A frozen VAE on the meta device."""
    with META:
        model = AutoencoderKLQwenImage(**{k: v for k, v in config.items() if not k.startswith("_")})
    return typed(model, dtype)


def typed(model: Any, dtype: torch.dtype) -> Any:
    """`Module.to`, past the remarks that diffusers' own makes."""
    return torch.nn.Module.to(model, dtype).requires_grad_(False).eval()


def add_lora(model: Any, rank: int, targets: Iterable[str]) -> list[Tensor]:
    """A float32 LoRA with its gradients already there; its parameters."""
    model.add_adapter(LoraConfig(r=rank, target_modules=list(targets)))
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
        parameter.grad = torch.empty_like(parameter)
    return parameters


def denoise_peak(
    config: Config,
    dtype: torch.dtype,
    tokens: tuple[int, int],
    text_tokens: int,
    shown: Sequence[tuple[int, int]] = (),
) -> int:
    """One forward of the transformer on one picture of (rows, columns) tokens and on what is shown beside."""
    model = new_transformer(config, dtype, 1)
    with LiveBytes(model.parameters()) as live, fused_attention(), torch.no_grad():
        _velocity(model, dtype, tokens, text_tokens, shown)
    return int(live.peak)


def train_peak(
    config: Config,
    dtype: torch.dtype,
    tokens: tuple[int, int],
    text_tokens: int,
    rank: int,
    targets: list[str],
) -> int:
    """Forward and backward of one picture with a LoRA and gradient checkpointing."""

    def peak_of(blocks: int) -> int:
        model = new_transformer(config, dtype, blocks)
        grads = [p.grad for p in add_lora(model, rank, targets) if p.grad is not None]
        model.enable_gradient_checkpointing()
        with LiveBytes([*model.parameters(), *grads]) as live, fused_attention():
            loss = _velocity(model, dtype, tokens, text_tokens).float().square().mean()
            torch.autograd.backward(loss)
        return int(live.peak)

    return along_blocks(peak_of, int(config["num_layers"]))


def text_peak(config: Config, dtype: torch.dtype, text_tokens: int, *, train: bool) -> int:
    """One prompt through the text encoder; with ``train`` back to its embeddings, with checkpointing."""

    def peak_of(layers: int) -> int:
        model = new_text_encoder(config, dtype, layers)
        if train:
            model.train()
            model.activation_checkpointing_enable()
        length, width = text_tokens + TEMPLATE_TOKENS, config["text_config"]["hidden_size"]
        embeds = torch.empty(1, length, width, device=META, dtype=dtype, requires_grad=train)
        with LiveBytes(model.parameters()) as live, fused_attention(), torch.set_grad_enabled(train):
            out = model.model.language_model(
                inputs_embeds=embeds,
                attention_mask={"full_attention": None},
                position_ids=torch.zeros(3, 1, length, dtype=torch.long, device=META),
                output_hidden_states=True,
                use_cache=False,
            )
            if train:
                torch.autograd.backward(out.hidden_states[-1].float().sum())
        return int(live.peak)

    return along_blocks(peak_of, int(config["text_config"]["num_hidden_layers"]))


def eyes_peak(config: Config, dtype: torch.dtype, seen: int) -> int:
    """What the vision tower holds while it looks at ``seen`` pictures: by formula, for it needs data to run.
    Of each patch there are the pixels, twice the stream, and three times the MLP's width."""
    eyes = Qwen2_5_VLConfig.from_dict(dict(config)).vision_config
    pixels = eyes.in_channels * eyes.temporal_patch_size * eyes.patch_size**2
    patches = seen * SEEN_TOKENS * eyes.spatial_merge_size**2
    return int(patches * (pixels + 2 * eyes.hidden_size + 3 * eyes.intermediate_size) * dtype.itemsize)


def vae_peak(config: Config, dtype: torch.dtype, size_px: tuple[int, int], *, decode: bool) -> int:
    """One picture of (width, height) through the VAE's decoder or encoder."""
    model = new_vae(config, dtype)
    width, height = size_px
    factor = 2 ** len(model.temperal_downsample)
    with LiveBytes(model.parameters()) as live, fused_attention(), torch.no_grad():
        if decode:
            latents = (1, model.config.z_dim, 1, height // factor, width // factor)
            model.decode(torch.empty(latents, device=META, dtype=dtype))
        else:
            model.encode(torch.empty((1, 3, 1, height, width), device=META, dtype=dtype))
    return int(live.peak)


def _velocity(
    model: Any,
    dtype: torch.dtype,
    tokens: tuple[int, int],
    text_tokens: int,
    shown: Sequence[tuple[int, int]] = (),
) -> Tensor:
    pictures = [tokens, *shown]

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device=META, dtype=dtype)

    out: Tensor = model(
        hidden_states=empty(1, sum(rows * columns for rows, columns in pictures), model.config.in_channels),
        encoder_hidden_states=empty(1, text_tokens, model.config.joint_attention_dim),
        timestep=empty(1),
        img_shapes=[[(1, rows, columns) for rows, columns in pictures]],
        return_dict=False,
    )[0]
    return out
