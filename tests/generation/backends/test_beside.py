"""Pictures beside the noise: what diffusers' own Image-Edit pipeline computes, for pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline, QwenImagePipeline
from PIL import Image

from oblik.diffusion.families.qwen_image import QwenImage
from oblik.generation.backends.beside import Shown, beside
from oblik.packs.store import BUNDLED

pytestmark = pytest.mark.filterwarnings("ignore")
SIDE_PX = 64


def test_it_is_the_image_edit_pipeline_within_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers encodes every picture at a fixed area; here at that of the test."""
    module = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"
    monkeypatch.setattr(f"{module}.VAE_IMAGE_SIZE", SIDE_PX**2)
    monkeypatch.setattr(f"{module}.CONDITION_IMAGE_SIZE", SIDE_PX**2)
    pipeline = QwenImagePipeline.from_pretrained(
        BUNDLED / "miniature", dtype=torch.float32, local_files_only=True
    )
    theirs = QwenImageEditPlusPipeline(**pipeline.components, processor=None)
    for each in (pipeline, theirs):
        each.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8) for _ in range(2)]
    states = pipeline.encode_prompt("photo of a woman", device=torch.device("cpu"))[0]
    whole = torch.ones(states.shape[:2], dtype=torch.long)
    call = {
        "prompt_embeds": states, "prompt_embeds_mask": whole, "num_inference_steps": 2,
        "output_type": "latent", "width": SIDE_PX, "height": SIDE_PX, "true_cfg_scale": 1.0,
        "latents": QwenImage(pipeline).noise((1,), (SIDE_PX, SIDE_PX)),
    }  # fmt: skip
    wanted = theirs(image=[Image.fromarray(each) for each in pictures], **call).images
    family = QwenImage(pipeline)
    shown = [Shown(family.latents(each)[None], SIDE_PX // 16, SIDE_PX // 16) for each in pictures]
    alone = pipeline(**call).images
    with beside(pipeline.transformer, shown):
        found = pipeline(**call).images
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, alone, atol=1e-2), "the pictures are seen"
    assert torch.equal(pipeline(**call).images, alone), "and forgotten"
