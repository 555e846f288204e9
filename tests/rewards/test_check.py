"""The check that reference answers grade themselves as correct, as a command and before a run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from rewards import check, get_reward
from rewards.answers.math_answer import _check
from rewards.answers.normalise import normalise
from rewards.check import SAMPLE, check_sample, failing_references

COUNT = "assert count('banana', 'a') == 3\nassert count('', 'a') == 0"


@pytest.mark.parametrize(
    ("reference", "status"),
    [
        ("57", "ok"),
        (r"\frac{1}{2}", "ok"),
        (r"3\pi", "ok"),
        ("$(2, 3)$", "ok"),
        (r"It is \[x = 7\]", "ok"),
        (r"So $n = 2$ and \boxed{(2, 3)}", "ok"),
        (142.0, "ok"),
        (None, "no_gold"),
        ("  ", "no_gold"),
        ("?", "no_gold"),
        (r"\text{Evelyn}", "ok"),
        (r"\frac{1}{", "no_gold"),
        ("9e-6", "ok"),
        ("4.7e11", "ok"),
        ("3*pi", "ok"),
        ("exp(4)", "ok"),
        ("12,700", "ok"),
        (r"12\,700", "ok"),
        ("B: the second", "ok"),
        (r"It is \boxed{3", "no_gold"),
        ("9+8=17 #### 17", "a whole solution; write dataset_extract: {solution: after ####}"),
    ],
)
def test_math_grades_a_reference_answer_as_an_answer_to_itself(reference, status):
    assert get_reward("math", workers=1).check_references(solution=[reference]) == [status]


def test_a_reference_answer_that_is_misread_fails_in_another_spelling(monkeypatch):
    """`_check` runs in this process. Both sides misread a number with an exponent, but not the number as a decimal."""

    def misread(answer):
        return answer.partition("e")[0] if re.fullmatch("[0-9.]+e[0-9]+", answer) else answer

    assert _check("4.7e3") == "ok"
    monkeypatch.setattr("rewards.answers.math_answer.normalise", lambda answer: normalise(misread(answer)))
    assert _check("4.7e3") == "wrong"


def test_what_a_reward_understands_a_reference_answer_to_be():
    solution = ["4.7e11", "12 700", r"\frac{6}{4}\text{ cm}", "x<1", "(D)", "?", None]
    assert get_reward("length").read_references(solution) == [
        "470000000000",
        "12700",
        "3/2",
        "x < 1",
        "D",
        "no_gold",
        "no_gold",
    ]


def test_code_checks_that_tests_can_be_read_and_that_the_reference_program_passes_them():
    code = get_reward("code", workers=1)
    tests = [COUNT, "assert True", COUNT, None]
    assert code.check_references(tests=tests) == ["ok", "no_gold", "ok", "no_gold"]
    right, wrong = "def count(text, c): return text.count(c)", "def count(text, c): return len(text)"
    assert code.check_references(tests=tests, reference=[right, right, wrong, right]) == [
        "ok",
        "no_gold",
        "wrong",
        "no_gold",
    ]


def test_code_uses_the_column_entry_point():
    code = get_reward("code", workers=1)
    tests = ["def check(candidate):\n    assert candidate([1, 2]) == 3\n", "assert sum([1, 2]) == 3"]
    reference = ["def total(x): return x[0] + x[1]", "def sum(x): return x[0] + x[1]"]
    assert code.check_references(tests=tests) == ["no_gold"] * 2
    assert code.check_references(tests=tests, entry_point=["total", "sum"], reference=reference) == ["ok"] * 2
    assert code.check_references(tests=tests, entry_point=["sum", "total"], reference=reference) != ["ok"] * 2


def test_length_uses_its_grader():
    assert get_reward("length").check_references(solution=["4", "?"]) == ["ok", "no_gold"]


def test_a_reward_without_reference_answers_has_no_failing_rows():
    assert failing_references(get_reward("boxed"), {"solution": [None]}) == []


def test_one_failing_row_in_a_hundred_is_tolerated_and_two_are_not():
    reward = get_reward("exact_match")
    check_sample("exact_match", reward, Dataset.from_dict({"solution": ["1"] * 99 + [None]}))
    with pytest.raises(ValueError, match=r"2 of 100 rows do not grade .* 'exact_match' \(row 98: no_gold, row 99: no_"):
        check_sample("exact_match", reward, Dataset.from_dict({"solution": ["1"] * 98 + [None] * 2}))


def test_a_sentence_about_the_reference_answers_is_printed_once():
    solutions = [f"1+{n} #### {1 + n}" for n in range(9)] + [None]
    with pytest.raises(ValueError) as caught:
        check_sample("exact_match", get_reward("exact_match"), Dataset.from_dict({"solution": solutions}))
    assert "(row 0: a whole solution; write dataset_extract: {solution: after ####}, row 9: no_gold, …)" in str(
        caught.value
    )


def test_a_large_data_set_is_sampled():
    seen = []

    class Counting:
        def check_references(self, solution, **columns):
            seen.extend(solution)
            return ["ok"] * len(solution)

    check_sample("counting", Counting(), Dataset.from_dict({"solution": list(map(str, range(10_000)))}))
    assert len(seen) == SAMPLE and len(set(seen)) == SAMPLE and max(map(int, seen)) > 5000


def run_check(tmp_path, rows, *flags):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "rewards.check", str(path), *flags]
    return subprocess.run(command, cwd=Path("/"), capture_output=True, text=True, timeout=360, check=False)


def test_the_command_prints_failing_rows(tmp_path):
    rows = [{"answer": "4"}, {"answer": "?"}, {"answer": r"\frac12"}]
    done = run_check(tmp_path, rows, "--reward", "math", "--columns", '{"answer": "solution"}')
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "row 1: no_gold  {'solution': '?'}",
        "2 of 3 reference answers grade themselves as correct",
    ]
    done = run_check(tmp_path, rows[:1], "--reward", "math", "--columns", '{"answer": "solution"}')
    assert done.returncode == 0 and done.stdout == "1 of 1 reference answers grade themselves as correct\n"


def test_the_command_reads_nested_columns_and_extracts(tmp_path):
    rows = [{"info": {"answer": "3 + 4 = 7\n#### 7"}}, {"info": {"answer": "no answer"}}]
    columns, extract = "{info.answer: solution}", '{"solution": "after ####"}'  # as in a recipe, and as JSON
    done = run_check(tmp_path, rows, "--reward", "exact_match", "--columns", columns, "--extract", extract)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "1 of 2 reference answers grade themselves as correct"
    assert done.stderr.startswith("--extract: 'after ####' finds nothing for 'solution' in 1 of 2 rows, first in row 1")


def test_the_command_shows_what_was_understood(tmp_path):
    rows = [{"solution": "4.7e11"}, {"solution": r"\frac24"}, {"solution": "3"}]
    done = run_check(tmp_path, rows, "--reward", "math", "--show", "2")
    assert done.stdout.splitlines() == [
        "row 0: '4.7e11' -> 470000000000",
        r"row 1: '\\frac24' -> 1/2",
        "3 of 3 reference answers grade themselves as correct",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--reward", "math", "--extract", '{"answer": "last boxes"}'], "--extract: the extractor 'last boxes'"),
        (["--reward", "maths"], "nearest known one is 'math'"),
        (["--reward", "math", "--columns", '{"reference": "solution"}'], "the columns answer"),
        (["--reward", "math"], "rows.jsonl' has answer. Rename a column, for example --columns '{answer: solution}'"),
        (["--reward", "code"], "'code' reads the column 'tests'"),
        (["--reward", "format"], "'format' has no method check_references, so no reference answer can be checked"),
    ],
)
def test_an_error_of_the_command_is_one_line(tmp_path, flags, message):
    done = run_check(tmp_path, [{"answer": "4"}], *flags)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--columns", "{1: solution}"], "has the name 1, which is not text. Put it in quotes"),
        (["--columns", "{answer: 3}"], "has the value 3, which is not text"),
        (["--extract", "{solution: [last box]}"], "has the value ['last box'], which is not text"),
        (["--reward_kwargs", "{1: 2}"], "has the name 1, which is not text"),
    ],
)
def test_names_that_are_no_text_are_refused(capsys, flags, words):
    with pytest.raises(SystemExit):
        check.main(["rows.jsonl", "--reward", "math", *flags])
    assert words in capsys.readouterr().err


def test_options_are_numbers_as_in_a_recipe(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"solution": "4"}) + "\n")
    with pytest.raises(SystemExit):
        check.main([str(tmp_path / "rows.jsonl"), "--reward", "math", "--reward_kwargs", "{hard_limit: 8e+0}"])
    printed = capsys.readouterr()
    assert "1 of 1 reference answers" in printed.out, printed.err


@pytest.mark.parametrize("text", ["answer", "answer=solution", "{answer: solution", "[answer]"])
def test_columns_that_are_no_mapping_are_refused(capsys, text):
    with pytest.raises(SystemExit, match="2"):
        check.main(["rows.jsonl", "--reward", "math", "--columns", text])
    assert f"argument --columns: {text!r} is not a mapping. Write it as {{key: value}}." in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--columns", "--extract"])
def test_a_mapping_without_a_space_after_its_colon_is_refused(capsys, option):
    with pytest.raises(SystemExit, match="2"):
        check.main(["rows.jsonl", "--reward", "math", option, "{answer:solution}"])
    assert "has no space after a colon. Write {answer: solution}." in capsys.readouterr().err
