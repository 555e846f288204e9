"""`max_prompt_tokens` drops prompts by their length in tokens, as the trainer counts them."""

import pytest
from datasets import Dataset

from gbpo.run.data.long_prompts import drop_long_prompts
from gbpo.run.models.tiny import character_tokenizer
from gbpo.run.recipe.arguments import RunArguments

# The tokenizer has one token per character. The chat template adds 3: <|user|>, <|end|> and <|assistant|>.
PROMPTS = ["12345", "1234567890", "123"]


def dropped(limit, capsys, **fields):
    run = RunArguments(dataset_name="arithmetic", max_prompt_tokens=limit, **fields)
    dataset = Dataset.from_dict({"prompt": PROMPTS, "solution": ["a", "b", "c"]})
    kept = drop_long_prompts(dataset, run, character_tokenizer())
    return kept["solution"], capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "fields", "kept"),
    [
        (8, {}, ["a", "c"]),  # 5 + 3
        (7, {}, ["c"]),
        (13, {}, ["a", "b", "c"]),
        (12, {}, ["a", "c"]),
        (12, {"system_prompt": "Hi"}, ["a", "c"]),  # 5 + 3 + 2 + 2: <|system|>, <|end|> and two characters
        (11, {"system_prompt": "Hi"}, ["c"]),
        (12, {"prompt_template": "Q {prompt}?"}, ["a", "c"]),  # 5 + 3 + 3 = 11
        (10, {"prompt_template": "Q {prompt}?"}, ["c"]),
    ],
)
def test_prompts_are_counted_as_they_are_trained(limit, fields, kept, capsys):
    solutions, printed = dropped(limit, capsys, **fields)
    assert solutions == kept
    lost = 3 - len(kept)
    expected = f"gbpo: note: max_prompt_tokens={limit} drops {lost} of 3 prompts of the training set.\n" if lost else ""
    assert printed == expected


def test_without_a_limit_nothing_is_counted():
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    assert drop_long_prompts(dataset, RunArguments(dataset_name="arithmetic"), tokenizer=None) is dataset


def test_a_limit_below_every_prompt_is_refused(capsys):
    with pytest.raises(ValueError, match=r"max_prompt_tokens=5 would drop all 3 .* the shortest has 6 tokens"):
        dropped(5, capsys)


def test_a_line_is_printed_by_one_process_only(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert dropped(8, capsys) == (["a", "c"], "")
