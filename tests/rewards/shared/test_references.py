"""Hints for reference answers from which the answer must be extracted."""

import pytest

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


@pytest.mark.parametrize("reference", ["17", "", "# 17", "[17]", '["a", "b"]', '["17', r"\boxed 17"])
def test_an_answer_gets_no_hint(reference):
    assert extraction_hint(reference) is None
