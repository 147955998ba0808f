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


def test_the_negative_prompts_call_sees_what_it_is_to_see() -> None:
    transformer = torch.nn.Module()
    seen: list[tuple[int, list[tuple[int, int, int]]]] = []

    def forward(
        hidden_states: torch.Tensor, img_shapes: list[list[tuple[int, int, int]]]
    ) -> list[torch.Tensor]:
        seen.append((hidden_states.shape[1], img_shapes[0][1:]))
        return [hidden_states]

    transformer.forward = forward
    frame, head = Shown(torch.zeros(1, 4, 2), 2, 2), Shown(torch.zeros(1, 1, 2), 1, 1)
    with beside(transformer, [frame, head], [frame]):
        for _ in range(4):
            (answered,) = transformer(hidden_states=torch.ones(1, 4, 2), img_shapes=[[(1, 2, 2)]])
            assert answered.shape[1] == 4
    assert seen == [(9, [(1, 2, 2), (1, 1, 1)]), (8, [(1, 2, 2)])] * 2
