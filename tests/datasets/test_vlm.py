"""The pack's text encoder as a caption source: plumbing on a tiny Qwen2.5-VL of the same architecture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from oblik.datasets.answers import QUESTION
from oblik.datasets.backends.vlm import IMAGE, VisionLanguage, prompt
from oblik.datasets.captions import IDENTITY_WORDS, STYLE_WORDS, words_of
from oblik.datasets.sources import Picture, open_source
from oblik.errors import BackendUnavailable, PackBroken

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", IMAGE]


def write_pack(folder: Path, image_token: str = IMAGE) -> Path:
    """A pack folder with a byte-level tokenizer and a tiny, untrained Qwen2.5-VL."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = ["red clothes, in a park, smiling, daylight, anime style, a long nose"] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet,
                                  show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator(words, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(fast, image_token))
    model.generation_config.eos_token_id = fast.convert_tokens_to_ids("<|im_end|>")
    model.save_pretrained(folder / "text_encoder")
    return folder


def tiny_config(tokenizer: Any, image_token: str) -> Any:
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024,
            "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {"rope_type": "default", "type": "mrope", "rope_theta": 10000.0,
                                "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [0], "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "window_size": 112,
        },
        image_token_id=ids[image_token], video_token_id=len(tokenizer) - 1,
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguage:
    opened = open_source("model", folder=write_pack(tmp_path_factory.mktemp("seeing")), device="cpu")
    assert isinstance(opened, VisionLanguage)
    return opened


def image(seed: int, width: int = 90, height: int = 130) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_every_merged_patch_has_its_image_token(source: VisionLanguage) -> None:
    for width, height in ((90, 130), (64, 64), (1200, 300)):
        inputs = source.inputs(image(1, width, height), QUESTION)
        frames, rows, columns = inputs["image_grid_thw"][0].tolist()
        assert frames == 1
        assert inputs["pixel_values"].shape == (rows * columns, 3 * 2 * 14 * 14)
        tokens = int((inputs["input_ids"] == source.ids[IMAGE]).sum())
        assert tokens == rows * columns // 4 == int(inputs["mm_token_type_ids"].sum())
        assert rows * columns * 14 * 14 <= 448 * 448
        assert abs(columns / rows / (width / height) - 1) < 0.35


def test_the_question_reaches_the_model(source: VisionLanguage) -> None:
    text = source.tokenizer.decode(source.inputs(image(1), QUESTION)["input_ids"][0])
    assert text.startswith("<|im_start|>system\n")
    assert QUESTION in text
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert prompt("?", 3).count(IMAGE) == 3


def test_the_picture_changes_what_the_model_sees(source: VisionLanguage) -> None:
    with torch.no_grad():
        first, second = (
            source.model(**source.inputs(Image.new("RGB", (64, 64), color), "what?")).logits[0, -1]
            for color in ("red", "navy")
        )
    assert not torch.allclose(first, second)


def test_the_same_picture_gets_the_same_answer(source: VisionLanguage) -> None:
    answers = [source.ask(image(3), QUESTION) for _ in range(2)]
    assert answers[0] == answers[1]
    assert not any(word in answers[0] for word in SPECIAL)


def test_what_is_described_is_plain(source: VisionLanguage) -> None:
    said = source.describe(Picture(image(4)))
    assert not set(words_of(said)) & (STYLE_WORDS | IDENTITY_WORDS)
    assert source.describe(Picture(image(4), words="red clothes")) == "red clothes"


def test_an_encoder_without_a_picture_token(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="no token for pictures"):
        VisionLanguage(write_pack(tmp_path, image_token="<|endoftext|>"), "cpu")


def test_a_broken_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackBroken):
        VisionLanguage(tmp_path, "cpu")


def test_torchvision_is_never_imported() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import oblik.datasets.backends.vlm as vlm\n"
        "from types import SimpleNamespace as N\n"
        "from PIL import Image\n"
        "made = vlm.image_processor(N(patch_size=14, spatial_merge_size=2, temporal_patch_size=2))\n"
        "print(made(images=[Image.new('RGB', (60, 60))], return_tensors='pt')['pixel_values'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1176" in done.stdout
