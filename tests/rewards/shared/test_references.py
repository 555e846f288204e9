"""Hints for reference answers from which the answer must be extracted."""

import pytest

from rewards import get_reward
from rewards.shared.references import extraction_hint


@pytest.mark.parametrize(
    ("reference", "extractor"),
    [
        ("9 + 8 = 17 pens.\n#### 17", "after ####"),
        (r"We add, so it is $\boxed{17}$.", "last box"),
        ('["17"]', "json list"),
    ],
)
def test_the_hint_names_the_extractor(reference, extractor):
    assert extraction_hint(reference).endswith(f"write dataset_extract: {{solution: {extractor}}}")


@pytest.mark.parametrize(
    ("reference", "fix"),
    [
        ({"style": "rule", "gt": "17"}, "keys style, gt; name one of them, such as dataset_columns: {COLUMN.style: "),
        (["17"], "dataset_extract: {solution: json list}"),
        (["17", "18"], "a list of 2 values; name one, such as dataset_columns: {COLUMN.0: solution}"),
    ],
)
@pytest.mark.parametrize("reward", ["exact_match", "math"])
def test_an_object_or_a_list_is_named_with_the_fix(reference, fix, reward):
    assert fix in extraction_hint(reference)
    assert get_reward(reward).check_references(solution=[reference]) == [extraction_hint(reference)]


@pytest.mark.parametrize("reference", [None, {}, [], 17, "17", "", "# 17", "[17]", '["a", "b"]', '["17', r"\boxed 17"])
def test_an_answer_gets_no_hint(reference):
    assert extraction_hint(reference) is None
