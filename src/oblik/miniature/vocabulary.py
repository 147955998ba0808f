"""A Qwen2-class tokenizer trained on the miniature's captions.

In: captions. Out: a `Qwen2Tokenizer`. The fixed head of QwenImagePipeline's prompt template is cut
off by position (34 ids), so the head's words are trained until each is one token and the count is
exact; `head_length` is what the test checks.
"""

from __future__ import annotations

from collections.abc import Iterable

from diffusers import QwenImagePipeline
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
HEAD_IDS = 34


def template() -> str:
    """QwenImagePipeline's own prompt template, with one ``{}``."""
    pipeline = QwenImagePipeline.__new__(QwenImagePipeline)
    pipeline.register_modules = lambda **_: None
    pipeline.vae = None
    QwenImagePipeline.__init__(pipeline, None, None, None, None, None)
    assert pipeline.prompt_template_encode_start_idx == HEAD_IDS
    return str(pipeline.prompt_template_encode)


def train_tokenizer(captions: Iterable[str], vocabulary: int = 900) -> Qwen2Tokenizer:
    """Byte-level BPE with Qwen2's pre-tokenizer; ids 0..6 are the special tokens."""
    head = template()
    for token in SPECIAL:
        head = head.replace(token, " ")
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [*captions, *[head] * 500, *["system\n", "user\n", "assistant\n"] * 500]
    bpe.train_from_iterator(texts, trainer)
    vocabulary_of = bpe.get_vocab()
    merges = _merges(bpe)
    shifted = {token: SPECIAL.index(token) for token in SPECIAL}
    for token, index in sorted(vocabulary_of.items(), key=lambda item: item[1]):
        shifted[token] = index + len(SPECIAL)
    tokenizer = Qwen2Tokenizer(vocab=shifted, merges=merges)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL], special_tokens=True)
    if head_length(tokenizer) != HEAD_IDS:
        raise ValueError(f"the template's head is {head_length(tokenizer)} ids, not {HEAD_IDS}")
    return tokenizer


def head_length(tokenizer: Qwen2Tokenizer) -> int:
    """Ids of the template's fixed head."""
    return len(tokenizer(template().split("{}")[0])["input_ids"])


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    import json

    return [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
