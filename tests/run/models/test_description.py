"""What is said about a model that cannot be loaded."""

from pathlib import Path

import pytest

from gbpo.run.models import description
from gbpo.run.recipe.parsing import parse

TINY = str(Path(__file__).parents[3] / "recipes" / "tiny_math.yaml")


@pytest.mark.parametrize(("offline", "fix"), [(True, "HF_HUB_OFFLINE is set: remove it"), (False, "Check the name")])
def test_a_model_that_is_not_here_is_one_line_without_half_words(monkeypatch, offline, fix):
    monkeypatch.setattr(description, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ValueError, match=f"'no/such': its config cannot be loaded: .* {fix}") as refused:
        description.describe("no/such", parse([TINY]))
    assert "'https:/ " not in str(refused.value) and "\n" not in str(refused.value)


def test_a_long_error_is_cut_between_words():
    text = str(description._not_loaded("m", "config", ValueError("word " * 100), "Fix it."))
    assert text.endswith("word word … Fix it.") and len(text) < 270
