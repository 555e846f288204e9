"""Extractors: what they find, and what is said about rows in which they find nothing."""

import pytest
from datasets import Dataset

from rewards.shared.extraction import extract


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user on the path."""
    (tmp_path / "own_extraction.py").write_text(
        "def label(row): return row['text'].split('=')[-1]\n"
        "def sparse(row): return row['text'] if row['number'] > 1 else None\n"
        "def mixed(row): return row['number'] if row['number'] > 1 else 'one'\n"
        "def broken(row): return row['missing']\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("how", "text", "found"),
    [
        ("after ####", "12 + 7 = <<12+7=19>>19 pens.\n#### 19", "19"),
        ("after ####", "3 + 2,347\n####   2,350  ", "2350"),
        ("after ####", "#### -1,234,567.50", "-1234567.50"),
        ("after ####", "#### $4,300 a year", "$4300 a year"),
        ("after ####", "#### (1,200, 5)", "(1,200, 5)"),  # a pair
        ("after ####", "#### (1,200 m", "(1,200 m"),
        ("after ####", "#### 1,23", "1,23"),  # not thousands
        ("after ####", "#### 1234,567", "1234,567"),
        ("after ####", "#### 7\n#### 9\nsome notes", "9"),
        ("after Answer:", "Let us see. Answer: no. Answer: $x^2$", "$x^2$"),
        ("after the answer is", "so the answer is 5", "5"),
        ("last box", r"\boxed{1}, so \boxed{\frac{3}{4}}.", r"\frac{3}{4}"),
        ("json list", '["19"]', "19"),
        ("json list", "[1.50]", "1.50"),  # as it is written
        ("json list", "['1.50']", "1.50"),
        ("json list", r'["\\frac{1}{2}"]', r"\frac{1}{2}"),
    ],
)
def test_a_named_extractor(how, text, found):
    dataset, notes = extract(Dataset.from_dict({"solution": [text]}), {"solution": how})
    assert dataset.to_list() == [{"solution": found}] and notes == []


def test_a_list_of_one_element_needs_no_json_text():
    dataset, _ = extract(Dataset.from_dict({"solution": [[31], [32]]}), {"solution": "json list"})
    assert dataset["solution"] == ["31", "32"]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("after ####", "the answer is 5"),
        ("after ####", "5 ####  "),
        ("after ####", None),
        ("last box", "5"),
        ("last box", r"\boxed{5"),
        ("last box", r"\boxed{}"),
        ("json list", "54"),
        ("json list", "[54"),
        ("json list", "[]"),
        ("json list", '["5", "6"]'),  # which of them is right?
        ("json list", "[null]"),
        ("json list", '[["5"]]'),
    ],
)
def test_a_row_without_a_value_is_counted_and_gets_none(how, text):
    good = {"after ####": "#### 8", "last box": r"\boxed{8}", "json list": "[8]"}[how]
    dataset, notes = extract(Dataset.from_dict({"solution": [good, text, good]}), {"solution": how})
    assert dataset["solution"] == ["8", None, "8"]
    assert len(notes) == 1
    for words in (repr(how), "1 of 3 rows", "first in row 1", "correct or remove them"):
        assert words in notes[0]
    with pytest.raises(ValueError, match="^extract: .* in 2 of 2 rows, first in row 0: .* Write another extractor"):
        extract(Dataset.from_dict({"solution": [text, text]}), {"solution": how})


def test_numbers_hold_no_text(module):
    with pytest.raises(ValueError, match="in 1 of 1 rows"):
        extract(Dataset.from_dict({"solution": [5]}), {"solution": "after ####"})


def test_the_users_own_function_gets_the_row(module):
    rows = Dataset.from_dict({"text": ["x=1", "y=2"], "number": [1, 2]})
    dataset, notes = extract(rows, {"solution": "own_extraction.label"})
    assert dataset["solution"] == ["1", "2"] and notes == []
    assert dataset.column_names == ["text", "number", "solution"]
    dataset, notes = extract(rows, {"text": "own_extraction.sparse"})
    assert dataset["text"] == [None, "y=2"] and "1 of 2 rows, first in row 0" in notes[0]
    dataset, _ = extract(rows, {"solution": "own_extraction.mixed"})
    assert dataset["solution"] == ["one", "2"]


@pytest.mark.parametrize(
    ("extractors", "words"),
    [
        ({"answer": "last box"}, ["'answer'", "text", "rename"]),
        ({"text": "after"}, ["'after'", "# after a space for a comment", "'after ####'"]),
        ({"text": "last boxes"}, ["'last boxes'", "unknown", "'last box'", "your own function"]),
        ({"text": "####"}, ["'####'", "'after ####'"]),
        ({"text": "own_extraction.broken"}, ["'own_extraction.broken'", "row 0", "KeyError", "as a dict"]),
        ({"text": "own_extraction.nothing"}, ["'own_extraction.nothing'", "no attribute", "'last box'"]),
        ({"text": "own_extraction.constant"}, ["'constant'", "cannot be called"]),
        ({"text": "no_such_module.label"}, ["'no_such_module.label'", "ModuleNotFoundError"]),
    ],
)
def test_an_error_is_one_line(module, extractors, words):
    with pytest.raises(ValueError, match="^extract") as refused:
        extract(Dataset.from_dict({"text": ["x=1"]}), extractors)
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)
