"""Prompts as data sets have them become text or messages with a role and a text."""

import json

import pytest
from datasets import Dataset

from gbpo.run.data.loading import load
from gbpo.run.data.messages import read_prompts
from gbpo.run.recipe.arguments import RunArguments


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}


def read(*prompts):
    dataset = Dataset.from_dict({"prompt": list(prompts), "solution": ["5"] * len(prompts)})
    dataset, notes = read_prompts(dataset, "mine.jsonl")
    assert dataset["solution"] == ["5"] * len(prompts)
    return list(dataset["prompt"]), notes


@pytest.mark.parametrize("prompt", ["3+8?", "[3, 8]", "[{", '[{"x": 1}]', [user("3+8?")], [SYSTEM, user("3+8?")]])
def test_text_and_messages_stay_as_they_are(prompt):
    assert read(prompt, prompt) == ([prompt, prompt], [])


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": "3+8?"}]}], [user("3+8?")]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "3+"}, {"type": "text", "text": "8?"}]}],
            [user("3+8?")],
        ),
        ([{"role": "user", "content": ["3+", "8?"]}], [user("3+8?")]),
        ([{"from": "system", "value": "Be brief."}, {"from": "human", "value": "3+8?"}], [SYSTEM, user("3+8?")]),
        (json.dumps([SYSTEM, user("3+8?")]), [SYSTEM, user("3+8?")]),
        (json.dumps([{"from": "human", "value": "3+8?"}]), [user("3+8?")]),
        (str([SYSTEM, user("It's 3+8?")]), [SYSTEM, user("It's 3+8?")]),  # as a CSV file of pandas has it
        ([{"role": "Human", "content": "3+8?"}], [user("3+8?")]),
        ([{"role": "critic", "content": "Hm."}, user("3+8?")], [{"role": "critic", "content": "Hm."}, user("3+8?")]),
    ],
)
def test_other_spellings_of_messages(given, prompt):
    assert read(given) == ([prompt], [])


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ([user("3+8?"), assistant("11")], [user("3+8?")]),
        ([SYSTEM, user("3+8?"), assistant("11")], [SYSTEM, user("3+8?")]),
        ([user("1+1?"), assistant("2"), user("3+8?"), assistant("11")], [user("1+1?"), assistant("2"), user("3+8?")]),
        ([user("3+8?"), assistant("10 or"), assistant("11")], [user("3+8?")]),
        ([{"from": "human", "value": "3+8?"}, {"from": "gpt", "value": "11"}], [user("3+8?")]),
        ([{"role": "human", "content": "3+8?"}, {"role": "gpt", "content": "11"}], [user("3+8?")]),
        ([{"role": "USER", "content": "3+8?"}, {"role": "Assistant", "content": "11"}], [user("3+8?")]),
        ([user("3+8?"), {"role": "model", "content": "11"}], [user("3+8?")]),
        (str([user("3+8?"), assistant("11")]), [user("3+8?")]),
        ([user("3+8?"), {"role": "assistant", "content": None}], [user("3+8?")]),
        (
            json.dumps([{"from": "human", "value": "3+8?"}, {"from": "assistant", "truth": {"value": "11"}}]),
            [user("3+8?")],
        ),
    ],
)
def test_the_answer_at_the_end_of_a_prompt_is_left_out_and_counted(given, prompt):
    prompts, notes = read(given)
    assert prompts == [prompt] and len(notes) == 1
    for words in ("1 of 1 prompts of 'mine.jsonl'", "first in row 0", "give the answer away"):
        assert words in notes[0]


def test_a_data_set_may_have_prompts_only():
    rows = Dataset.from_dict({"prompt": [[user("3+8?"), assistant("11")]] * 2})
    assert read_prompts(rows, "mine.jsonl")[0].to_list() == [{"prompt": [user("3+8?")]}] * 2


def test_messages_of_json_text_may_differ_in_their_keys():
    named = [{**user("3+8?"), "name": "Ada"}]
    prompts, _ = read(json.dumps(named), json.dumps([user("4+8?")]))
    assert prompts == [named, [user("4+8?")]]


@pytest.mark.parametrize("file", ["rows.jsonl", "rows.parquet"])
def test_calls_of_tools_keep_their_own_arguments(tmp_path, file):
    """Arrow gives all objects of a column the same keys, and a chat template would write those of other calls."""
    calls = [
        [user("?"), {**assistant(""), "tool_calls": [{"name": name, "arguments": {key: 1}}]}, user("!")]
        for name, key in (("add", "a"), ("wait", "seconds"))
    ]
    if file.endswith("parquet"):
        Dataset.from_dict({"prompt": calls}).to_parquet(tmp_path / file)
    else:
        (tmp_path / file).write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in calls))
    rows, _ = load(RunArguments(dataset_name=str(tmp_path / file)), evaluation=False)
    assert list(rows["prompt"]) == calls
    assert [row["prompt"] for row in rows.select([1])] == [calls[1]]


def test_keys_of_messages_without_a_value_are_removed():
    prompts, _ = read([{**user("3+8?"), "tool_calls": None, "name": None}])
    assert prompts == [[user("3+8?")]]


def test_only_prompts_with_an_answer_are_cut():
    prompts, notes = read([user("3+8?")], [user("4+8?"), assistant("12")], [user("1?"), assistant("1"), user("5+8?")])
    assert prompts == [[user("3+8?")], [user("4+8?")], [user("1?"), assistant("1"), user("5+8?")]]
    assert "1 of 3 prompts" in notes[0] and "first in row 1" in notes[0]


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (["3+8?", None], ["Row 1 of 'mine.jsonl'", "None", "a text or messages"]),
        (["3+8?", ""], ["Row 1", "''"]),
        (["3+8?", " \n"], ["Row 1", "a text or messages"]),
        (
            ["[{'role': 'user', 'content': '3+8?'}\n {'role': 'assistant', 'content': '11'}]"],
            ["neither JSON", "Write JSON"],
        ),
        ([[user("3+8?")], []], ["Row 1", "[]"]),
        ([3, 4], ["Row 0", "3"]),
        ([{"role": "user", "content": "3+8?"}], ["Row 0", "'role'"]),
        ([["3+8?"]], ["Row 0", "not a list of messages", "a role and a content"]),
        ([[{"role": "user"}]], ["Row 0", "not a list of messages"]),
        ([[{"role": "user", "content": None}]], ["Row 0", "content None", "Write a text"]),
        ([[{"role": "user", "content": 38}]], ["content 38"]),
        ([[user("3?"), {"role": "assistant", "content": None}, user("8?")]], ["Row 0", "content None"]),
        (
            [[{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Which?"}]}]],
            ["Row 0", "type 'image'", "text only"],
        ),
        ([[{"role": "user", "content": [{"type": "text", "text": None}]}]], ["type 'text'"]),
        ([[{"role": "user", "content": [{"type": "image", "text": "a cat"}]}]], ["type 'image'"]),
        ([[assistant("11")]], ["Row 0", "no user message"]),
        ([[SYSTEM, assistant("11")]], ["no user message"]),
        ([json.dumps([user("3+8?")]), "4+8?"], ["Row 1", "'4+8?'", "all text or all messages"]),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_in_one_line(prompts, words):
    with pytest.raises(ValueError) as refused:
        read(*prompts)
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_long_prompt_is_shortened_in_the_error():
    with pytest.raises(ValueError) as refused:
        read([{"role": "user", "content": "x" * 5000}, {"role": "user", "content": None}])
    assert len(str(refused.value)) < 400


def test_a_message_that_calls_a_tool_needs_no_content():
    calls = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}
    result = {"role": "tool", "content": "11", "tool_calls": None}
    prompts, notes = read([{**user("3+8?"), "tool_calls": None}, calls, result])
    assert [message["content"] for message in prompts[0]] == ["3+8?", None, "11"] and notes == []
