"""Families on random weights: the formulas, and what reaches the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.tiny import open_tiny, sd_pack

from oblik.diffusion import tokens
from oblik.diffusion.families.family import Text, open_family, stack
from oblik.errors import NotFound, PackBroken
from oblik.packs.manifest import OpenPack

CPU = torch.device("cpu")


def opened(pack: OpenPack) -> Any:
    return open_tiny(pack, torch.float32, CPU)


def test_a_family_that_is_in_no_table_is_named() -> None:
    with pytest.raises(NotFound, match="flux"):
        open_family("flux", None)


def test_noise_and_velocity_lead_back_to_the_image(tmp_path: Path) -> None:
    x0, eps = (torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    time = torch.tensor([10.0, 500.0, 900.0])
    for name in ("tiny-sd", "tiny-v"):
        (tmp_path / name).mkdir()
        pipeline = opened(sd_pack(tmp_path / name, name))
        family = open_family("stable_diffusion", pipeline)
        noisy, target = family.noised(x0, eps, time), family.target(x0, eps, time)
        schedule = pipeline.scheduler
        assert torch.allclose(noisy, schedule.add_noise(x0, eps, time.long()))
        if name == "tiny-v":
            assert torch.allclose(target, schedule.get_velocity(x0, eps, time.long()))
        else:
            assert torch.equal(target, eps)


def test_another_prediction_is_refused(tmp_path: Path) -> None:
    pipeline = opened(sd_pack(tmp_path, "tiny-sd"))
    pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(PackBroken, match="sample"):
        open_family("stable_diffusion", pipeline)


def test_latents_are_the_pixels_of_the_vae_row_by_row(tmp_path: Path) -> None:
    pipeline = opened(sd_pack(tmp_path, "tiny-sd"))
    family = open_family("stable_diffusion", pipeline)
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    latents = family.latents(image)
    assert latents.shape == (4 * 6, 4)
    mask = np.zeros((32, 48), np.uint8)
    mask[:8, 40:] = 255
    assert family.face_share(mask).nonzero().flatten().tolist() == [5]
    seen: dict[str, Any] = {}
    pipeline.unet.register_forward_pre_hook(lambda _, asked: seen.update(sample=asked[0]))
    family.predict(latents[None], torch.tensor([5.0]), family.text(["a person"]), (48, 32))
    assert torch.equal(seen["sample"][0].flatten(1).T, latents)


def test_sdxl_is_told_the_size_and_the_pooled_text(tmp_path: Path) -> None:
    pipeline = opened(sd_pack(tmp_path, "tiny-xl"))
    family = open_family("stable_diffusion", pipeline)
    text = stack([family.text(["a person"]), family.text(["a park"])])
    assert text.pooled is not None
    seen: dict[str, Any] = {}
    pipeline.unet.register_forward_pre_hook(lambda _, __, words: seen.update(words), with_kwargs=True)
    family.predict(torch.zeros(2, 24, 4), torch.tensor([5.0, 7.0]), text, (48, 32))
    assert seen["added_cond_kwargs"]["time_ids"].tolist() == [[32, 48, 0, 0, 32, 48]] * 2
    assert torch.equal(seen["added_cond_kwargs"]["text_embeds"], text.pooled)


def test_the_pooled_text_is_that_of_the_end_not_of_the_new_token(tmp_path: Path) -> None:
    """With an ``eos_token_id`` of 2 in its configuration CLIP would take the largest id: the token's."""
    pipeline = opened(sd_pack(tmp_path, "tiny-xl"))
    family = open_family("stable_diffusion", pipeline)
    encoder, new = pipeline.text_encoder_2, len(pipeline.tokenizer_2)
    tokens.make_room(encoder, new)
    end = pipeline.tokenizer_2.eos_token_id
    ids = torch.tensor([[pipeline.tokenizer_2.bos_token_id, new, 5, end, end]])
    out = encoder(ids)
    assert torch.allclose(out.text_embeds[0], encoder.text_projection(out.last_hidden_state[0, 3]))
    assert family.encoders["clip_g"] is encoder


def test_padding_is_masked_only_where_lengths_differ() -> None:
    short, long = Text(torch.ones(1, 2, 3)), Text(torch.ones(1, 4, 3))
    assert stack([short, short]).mask is None
    both = stack([short, long])
    assert both.mask is not None
    assert both.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert both.of(slice(1, 2)).states.shape == (1, 4, 3)
