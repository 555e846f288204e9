"""Renaming columns, reading nested values by dotted names, and storing values unchanged."""

import json

import pytest
from datasets import Dataset

from rewards.shared.columns import rename_columns, storable

NESTED = [
    {"reward": {"truth": "19", "kind": "rule"}, "info": json.dumps({"answers": ["8", "9"], "source": {"id": 3}})},
    {"reward": {"truth": "27", "kind": "rule"}, "info": json.dumps({"answers": ["5"], "source": {"id": 4}})},
]


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("reward.truth", ["19", "27"]),
        ("info.answers.0", ["8", "5"]),  # a place in a list, in JSON text
        ("info.source.id", [3, 4]),
        ("info.source", [{"id": 3}, {"id": 4}]),
    ],
)
def test_a_dotted_name_is_a_value_inside_a_column(source, values):
    dataset, notes = rename_columns(Dataset.from_list(NESTED), {source: "solution"})
    assert dataset["solution"] == values and notes == []
    assert dataset.column_names == ["reward", "info", "solution"]


def test_a_dotted_name_reads_the_text_of_a_python_dict():
    rows = [{"info": "{'truth': '19', 'seen': None}"}, {"info": '{"truth": "27"}'}]
    assert rename_columns(Dataset.from_list(rows), {"info.truth": "solution"})[0]["solution"] == ["19", "27"]


def test_a_column_whose_own_name_has_a_dot_is_renamed():
    dataset, notes = rename_columns(Dataset.from_list([{"a.b": "1", "a": {"b": "2"}}]), {"a.b": "solution"})
    assert dataset["solution"] == ["1"] and dataset.column_names == ["solution", "a"] and notes == []
    dataset, _ = rename_columns(Dataset.from_list([{"a.b": {"c": "3"}}]), {"a.b.c": "solution"})
    assert dataset["solution"] == ["3"]


def test_a_nested_value_may_take_the_place_of_its_column():
    dataset, notes = rename_columns(Dataset.from_list(NESTED), {"reward.truth": "reward"})
    assert dataset["reward"] == ["19", "27"]
    assert notes == ["columns: 'reward.truth' replaces the column 'reward' of the data set."]


def test_two_columns_with_one_new_name_are_refused():
    rows = Dataset.from_list([{"question": "2+3", "text": "4", "x": {"y": "5"}}])
    for source in ("text", "x.y"):
        with pytest.raises(ValueError, match=f"^columns gives the name 'prompt' to question, {source}: .* Keep one"):
            rename_columns(rows, {"question": "prompt", source: "prompt"})


def test_a_renamed_column_replaces_the_column_of_that_name():
    rows = Dataset.from_list([{"question": "3+4?", "solution": "Add them.", "answer": "7"}])
    dataset, notes = rename_columns(rows, {"question": "prompt", "answer": "solution"})
    assert dataset.to_list() == [{"prompt": "3+4?", "solution": "7"}]
    assert notes == ["columns: 'answer' replaces the column 'solution' of the data set."]


def test_the_only_column_may_be_replaced():
    dataset, notes = rename_columns(Dataset.from_list([{"reward": {"truth": "19"}}] * 2), {"reward.truth": "reward"})
    assert dataset.to_list() == [{"reward": "19"}] * 2 and len(notes) == 1


def test_columns_can_be_swapped():
    dataset, notes = rename_columns(Dataset.from_list([{"a": 1, "b": 2, "c": 3}]), {"a": "b", "b": "a", "c": "c"})
    assert dataset.to_list() == [{"b": 1, "a": 2, "c": 3}] and notes == []


def test_nested_values_that_some_rows_lack_are_counted():
    rows = [{"info": '{"answer": 1}'}, {"info": "{}"}, {"info": None}, {"info": "not JSON"}]
    dataset, notes = rename_columns(Dataset.from_list(rows), {"info.answer": "solution"})
    assert dataset["solution"] == [1, None, None, None]
    assert len(notes) == 1
    for words in ("'info.answer'", "3 of 4 rows", "first in row 1", "no 'solution'"):
        assert words in notes[0]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("verdict.truth", ["columns names 'verdict.truth'", "reward, info", "'solution'"]),
        ("reward.answer", ["columns names 'reward.answer'", "'answer'", "'reward'", '"truth": "19"']),
        ("info.answers.2", ["'answers.2'", "'info'"]),
        ("info.answers.first", ["'answers.first'"]),
        ("reward.truth.0", ["'truth.0'"]),
    ],
)
def test_a_name_that_does_not_exist_is_refused_in_one_line(source, words):
    with pytest.raises(ValueError) as refused:
        rename_columns(Dataset.from_list(NESTED), {source: "solution"})
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "fix"), [("prompt", "{problem: prompt} to rename it"), ("info.question", "another of these columns")]
)
def test_an_entry_for_a_column_that_exists_under_the_new_name_is_refused_with_both_fixes(source, fix):
    with pytest.raises(ValueError, match=f"'problem' exists: leave this entry out to use it, or write {fix}"):
        rename_columns(Dataset.from_list([{"problem": "2+3"}]), {source: "problem"})


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([4, None, 6], [4, None, 6]),
        ([0.5, 2.25], [0.5, 2.25]),
        (["0023", None], ["0023", None]),
        ([4, 2.5], ["4", "2.5"]),  # Arrow would store 4.0
        ([8, "none", None, True], ["8", "none", None, "true"]),
        ([10**30, 1], [str(10**30), "1"]),  # Arrow's integers have 64 bits
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([[1, 2.5]], ["[1, 2.5]"]),
        ([[1, "a"], ["b"]], ['[1, "a"]', '["b"]']),
        ([{"x": 1}, {"x": 2}], [{"x": 1}, {"x": 2}]),
        ([{"x": 1}, {"y": 2}], ['{"x": 1}', '{"y": 2}']),  # Arrow would add the other key with the value None
        ([{"x": [1]}, {"x": ["é"]}], ['{"x": [1]}', '{"x": ["é"]}']),
    ],
)
def test_values_are_stored_unchanged(values, stored):
    assert storable(values) == stored
    assert list(Dataset.from_dict({"column": storable(values)})["column"]) == stored
