"""Loading local data files."""

import json
import re

import pandas
import pytest
from datasets import Dataset

from rewards.shared.data_files import FILE_FORMATS, load_file

ROWS = [{"question": "2+2", "solution": "4"}, {"question": "3+3", "solution": "6"}]


@pytest.fixture
def write_rows(tmp_path):
    """Writes `ROWS` to a file with the given suffix."""

    def write(suffix):
        path = tmp_path / f"rows{suffix}"
        if suffix == ".parquet":
            Dataset.from_list(ROWS).to_parquet(path)
        elif suffix == ".csv":
            Dataset.from_list(ROWS).to_csv(path)
        elif suffix == ".json":
            path.write_text(json.dumps(ROWS))
        else:
            path.write_text("\n".join(map(json.dumps, ROWS)))
        return path

    return write


@pytest.mark.parametrize("suffix", FILE_FORMATS)
def test_every_format_is_loaded(write_rows, suffix):
    dataset = load_file(str(write_rows(suffix)))
    assert [row["question"] for row in dataset] == ["2+2", "3+3"]
    assert list(map(str, dataset["solution"])) == ["4", "6"]


def test_the_home_folder_is_expanded(write_rows, monkeypatch):
    monkeypatch.setenv("HOME", str(write_rows(".jsonl").parent))
    assert len(load_file("~/rows.jsonl")) == 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.txt", "4", "is not a .jsonl, .json, .parquet, .csv file"),
        ("missing.jsonl", None, "not found from"),
        ("rows.jsonl", "", "has zero rows"),
        ("rows.jsonl", "\n\n", "has zero rows"),
        ("rows.csv", "question,solution\n", "has zero rows"),
        ("rows.jsonl", '{"question": ', "cannot be read as .jsonl"),
        ("rows.parquet", "4", "cannot be read as .parquet"),
        ("rows.json", '{"data": [{"question": "2+2"}]}', "cannot be read as .json: the file is one object of lists"),
        ("rows.csv", "question;solution\n2+2;4\n", "cannot be read as .csv: the first line has one name"),
        ("rows.csv", "question\tsolution\n2+2\t4\n", "cannot be read as .csv: the first line has one name"),
        ("rows.csv", 'question,solution\n1,1\n\n"2,2\n3,3\n', "cannot be read as .csv: the row of line 4"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line_that_begins_with_its_path(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(repr(str(path)))} {re.escape(reason)}") as refused:
        load_file(path)
    assert "\n" not in str(refused.value)


def test_a_file_in_another_encoding_gets_its_own_fix(tmp_path):
    (tmp_path / "rows.csv").write_bytes("question,solution\né,4\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"byte 0xe9 in position 18: .*\. Save the file as UTF-8\.$"):
        load_file(tmp_path / "rows.csv")


def load_text(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return load_file(tmp_path / name)


@pytest.mark.parametrize(
    "cells",
    [
        ["61"] * 9 + [""],  # pandas reads a column with one empty field as 61.0
        ["0023", "7", "00"],
        ["1e5", "-0", "+3", "2.50", "1_000"],
        ["NA", "None", "null", "nan", "inf", "N/A"],
        ["True", "false"],
        ["2024-03-01", "12:30"],
        [str(10**40), "1"],
        ["1,5", 'say ""no""', " 4 "],
        ["line\nbreak"],
    ],
)
def test_every_value_of_a_csv_file_is_text(tmp_path, cells):
    rows = "".join(f'q,"{cell}"\n' if cell else "q,\n" for cell in cells)
    dataset = load_text(tmp_path, "rows.csv", "prompt,solution\n" + rows)
    assert dataset["solution"] == [cell.replace('""', '"') for cell in cells]


def test_a_csv_file_as_spreadsheets_write_it(tmp_path):
    dataset = load_text(tmp_path, "rows.csv", "\ufeffprompt,solution,note\r\n2+3?,5\r\n\r\n4+5?,9,x\r\n")
    assert dataset.to_list() == [
        {"prompt": "2+3?", "solution": "5", "note": ""},
        {"prompt": "4+5?", "solution": "9", "note": "x"},
    ]
    assert len(load_text(tmp_path, "long.csv", f"prompt\n{'x' * 200_000}\n")[0]["prompt"]) == 200_000


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["61", "null", "62"], [61, None, 62]),
        (["61", '"sixty"', '"062"'], ["61", "sixty", "062"]),
        (["61", "2.5"], ["61", "2.5"]),
        (['"2024-03-01"', '"2024-03-02"'], ["2024-03-01", "2024-03-02"]),
        (['"12"', '"13"'], ["12", "13"]),
        (["61", "NaN"], [61, None]),
        ([str(10**25), "3"], [str(10**25), "3"]),
        (['{"a": [1, "2"]}', '{"a": [3, "4"]}'], ['{"a": [1, "2"]}', '{"a": [3, "4"]}']),
        (['[{"role": "user"}]', "null"], [[{"role": "user"}], None]),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_json_file_keeps_every_value(tmp_path, suffix, written, read):
    objects = [f'{{"prompt": "q", "solution": {value}}}' for value in written]
    text = f"[{', '.join(objects)}]" if suffix == ".json" else "\r\n".join(objects)
    assert load_text(tmp_path, f"rows{suffix}", text)["solution"] == read


def test_a_key_that_some_rows_lack_is_none_there(tmp_path):
    dataset = load_text(tmp_path, "rows.jsonl", '{"a": 1}\n{"b": "x"}\n')
    assert dataset.to_list() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_a_parquet_file_without_rows_is_named(tmp_path):
    pandas.DataFrame({"prompt": [], "solution": []}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet' has zero rows"):
        load_file(tmp_path / "rows.parquet")


def test_a_parquet_file_keeps_its_types(tmp_path):
    columns = {"integer": [4, None, 5], "text": ["0023", "4", None], "nested": [{"x": "1"}, {"x": "2"}, None]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "rows.parquet")
    assert load_file(tmp_path / "rows.parquet").to_dict() == columns


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.csv", "a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, but the first has 2 names"),
        ("rows.csv", 'a,b\n"1,2\n', "the row of line 2: "),
        ("rows.csv", "a,a\n1,2\n", "two columns the same name: a, a"),
        ("rows.jsonl", '{"a": 1}\n{"a": 2\n', "line 2: not JSON"),
        ("rows.jsonl", '{"a": 1}\n7\n', "row 1 is not a JSON object: '7'"),
        ("rows.json", '{\n "a": 1\n}', "Write one object per line, or a list of objects"),
    ],
)
def test_the_place_of_an_error_in_a_file_is_named(tmp_path, name, content, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        load_text(tmp_path, name, content)


def test_spaces_around_the_names_of_a_csv_file_are_left_out(tmp_path):
    assert load_text(tmp_path, "rows.csv", "question, solution\n2+2, 4\n")[0] == {"question": "2+2", "solution": " 4"}
