"""The tokenizer: the template's head is 34 ids, captions are words, a trigger stays whole."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AddedToken, Qwen2Tokenizer

from oblik.miniature.architecture import VOCABULARY_ROWS
from oblik.miniature.corpus import shot_of
from oblik.miniature.people import Person
from oblik.miniature.prompts import LENGTHS, NAME_ID, all_phrases, write_prompts
from oblik.miniature.vocabulary import HEAD_IDS, head_length, train_tokenizer


@pytest.fixture(scope="module")
def descriptors() -> list[dict[str, str]]:
    return [
        {**Person.from_seed(seed).descriptors, **shot_of(seed, index)[0].descriptors}
        for seed in range(150)
        for index in range(3)
    ]


@pytest.fixture(scope="module")
def tokenizer(descriptors: list[dict[str, str]]) -> Qwen2Tokenizer:
    return train_tokenizer(all_phrases(descriptors))


def test_the_head_of_the_pipelines_template_is_cut_exactly(tokenizer: Qwen2Tokenizer) -> None:
    assert head_length(tokenizer) == HEAD_IDS == 34


def test_there_are_spare_rows_as_in_the_real_model(tokenizer: Qwen2Tokenizer) -> None:
    assert len(tokenizer) < VOCABULARY_ROWS - 100


def test_a_new_token_takes_the_space_before_it(tokenizer: Qwen2Tokenizer) -> None:
    from copy import deepcopy

    taught = deepcopy(tokenizer)
    taught.add_tokens([AddedToken("<oblik_x>", lstrip=True, normalized=False)])
    ids = taught("photo of <oblik_x> woman")["input_ids"]
    assert ids[2] == len(tokenizer)
    assert len(ids) == 4


def turned(descriptors: list[dict[str, str]], side: int) -> NDArray[np.float32]:
    """Landmarks (N, 5, 2) of heads whose noses point to one side of the picture."""
    face = np.array([[40, 40], [60, 40], [50 + 5 * side, 50], [42, 60], [58, 60]], np.float32)
    return np.tile(face, (len(descriptors), 1, 1))


def test_heads_turned_one_way_only_are_described(
    descriptors: list[dict[str, str]], tokenizer: Qwen2Tokenizer
) -> None:
    views = []
    for side in (1, -1):
        prompts = write_prompts(descriptors, turned(descriptors, side), tokenizer, seed=0)
        views.append({descriptors[row]["view"] for rows in prompts.rows.values() for row in rows})
    assert views == [{"frontal", "three-quarter"}, {"frontal"}]


def test_prompts_have_exact_lengths_and_one_name_or_none(
    descriptors: list[dict[str, str]], tokenizer: Qwen2Tokenizer
) -> None:
    prompts = write_prompts(descriptors, turned(descriptors, 1), tokenizer, seed=0)
    assert set(prompts.ids) <= set(LENGTHS)
    named = 0
    for length, ids in prompts.ids.items():
        assert ids.shape == (len(prompts.rows[length]), HEAD_IDS + length)
        names = (ids == NAME_ID).sum(1)
        assert names.max() <= 1
        named += int(names.sum())
    assert 0.4 < named / sum(len(rows) for rows in prompts.rows.values()) < 0.6
