"""`max_prompt_tokens` drops prompts by their length in tokens, as the trainer counts them."""

from pathlib import Path

import pytest
from datasets import Dataset

from gbpo.run import train
from gbpo.run.data.arithmetic import arithmetic
from gbpo.run.data.long_prompts import drop_long_prompts
from gbpo.run.data.prompts import PromptFormat
from gbpo.run.models.tiny import character_tokenizer
from templates import SWITCH

# The tokenizer has one token per character. The chat template adds 3: <|user|>, <|end|> and <|assistant|>.
PROMPTS = ["12345", "1234567890", "123"]


def tokenizer_with_thoughts():
    tokenizer = character_tokenizer()
    tokenizer.chat_template = SWITCH
    return tokenizer


def dropped(limit, capsys, **fields):
    dataset = Dataset.from_dict({"prompt": PROMPTS, "solution": ["a", "b", "c"]})
    kept = drop_long_prompts(dataset, limit, PromptFormat(**fields), tokenizer_with_thoughts(), "training set")
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
        (27, {"chat_template_kwargs": {"enable_thinking": False}}, ["a", "c"]),  # 5 + 3 + 19: <think>, </think>, breaks
        (26, {"chat_template_kwargs": {"enable_thinking": False}}, ["c"]),
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
    assert drop_long_prompts(dataset, None, PromptFormat(), None, "training set") is dataset


def test_a_limit_below_every_prompt_is_refused(capsys):
    with pytest.raises(ValueError, match=r"max_prompt_tokens=5 would drop all 3 .* the shortest has 6 tokens"):
        dropped(5, capsys)


def test_a_line_is_printed_by_one_process_only(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert dropped(8, capsys) == (["a", "c"], "")


TINY = str(Path(__file__).parents[3] / "recipes" / "tiny_math.yaml")


@pytest.mark.slow
def test_a_run_drops_them_before_it_counts_prompts(random_model, capsys):
    size = 300
    flags = ["--model_name_or_path", random_model, "--dataset_kwargs", f"{{size: {size}}}", "--max_prompt_tokens", "8"]
    flags += ["--eval_strategy", "steps", "--eval_steps", "5"]
    train.main([TINY, *flags, "--dry_run", "true"])
    printed = capsys.readouterr()
    kept = sum(len(prompt) <= 5 for prompt in arithmetic(size)["prompt"])  # 8 tokens without the 3 of the template
    assert 0 < kept < size and f"on arithmetic, {kept} prompts" in printed.out
    lines = [line for line in printed.err.splitlines() if line.startswith("gbpo: note:")]
    assert lines[0] == f"gbpo: note: max_prompt_tokens=8 drops {size - kept} of {size} prompts of the training set."
    assert len(lines) == 2 and lines[1].endswith("prompts of the evaluation set.")
    with pytest.raises(SystemExit) as stop:  # a generation takes 32 prompts
        train.main([TINY, *flags, "--dataset_kwargs", "{size: 40}", "--max_prompt_tokens", "7", "--dry_run", "true"])
    assert stop.value.code == 2 and "'arithmetic' has" in capsys.readouterr().err.splitlines()[-1]


def test_a_dry_run_builds_no_model_to_count_tokens(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train.main([TINY, "--max_prompt_tokens", "8", "--dry_run", "true"])
    printed = capsys.readouterr()
    assert "on arithmetic, 2,048 prompts" in printed.out and list(tmp_path.iterdir()) == []
    assert "max_prompt_tokens=8 drops nothing yet, because builtin:tiny_math is not built" in printed.err
