"""The forms of suites in data sets: what each row is read as, through the columns that it has on the Hub."""

import asyncio
import json

import numpy as np
import pytest
from datasets import Dataset

from rewards import get_reward
from rewards.programs.suites.formats import json_text, read_suite
from rewards.programs.suites.rows import read_suites
from rewards.programs.test_cases import describe_tests, read_tests
from rewards.shared.columns import rename_columns
from tests.rewards.builders import block

STDIN_RIGHT, STDIN_WRONG = "print(int(input()) + 17)", "print(int(input()) + 16)"
CALL_RIGHT, CALL_WRONG = "def shift(x, by): return x + by", "def shift(x, by): return x - by"
LARGE = 10**5000 + 7

KODCODE = """
from solution import shift

def test_small():
    assert shift(28, 26) == 54

def test_loop():
    for x in range(3):
        assert shift(x, 9) == x + 9
"""
MBPP_PLUS = """
import math

def assertion(out, exp, atol):
    if isinstance(exp, float):
        assert math.isclose(out, exp, abs_tol=atol)
    else:
        assert out == exp

inputs = [[2, 5], [3, 0]]
results = [7, 3]
for inp, exp in zip(inputs, results):
    assertion(shift(*inp), exp, 0)
"""
# as MBPP+ and HumanEval+ write it: numpy, and a helper that decides on the tolerance
PLUS_CHECK = """
import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"

def check(candidate):
    inputs = [[1, 2], [0.5, 0.25]]
    results = [3, 0.75000001]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
"""

# name -> the row, its columns in a recipe, what the tests are read as, a right and a wrong program
ROWS = {
    "APPS, JSON text, stdin": (
        {"question": "q", "input_output": '{"inputs": ["5\\n", "0"], "outputs": ["22\\n", "17"]}'},
        {"question": "prompt", "input_output": "tests"},
        "stdin, 2 cases",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "APPS, lists of lines": (
        {"input_output": {"inputs": [["5"], ["8"]], "outputs": [["22"], ["25"]]}},
        {"input_output": "tests"},
        "stdin, 2 cases",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "APPS, lines that end": (
        {"input_output": '{"inputs": [["9\\n", "5\\n"]], "outputs": [["14\\n", "45\\n"]]}'},
        {"input_output": "tests"},
        "stdin, 1 case",
        ("a, b = int(input()), int(input())\nprint(a + b)\nprint(a * b)", "print(14)"),
    ),
    "APPS, JSON text within JSON text": (
        {"input_output": json.dumps(json.dumps({"inputs": '["5\\n", "0\\n"]', "outputs": '["22", "17"]'}))},
        {"input_output": "tests"},
        "stdin, 2 cases",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "APPS, texts of one case": (
        {"input_output": {"inputs": "5\n", "outputs": "22\n"}},
        {"input_output": "tests"},
        "stdin, 1 case",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "a boolean result": (
        {"input_output": '{"inputs": ["5"], "outputs": [true]}'},
        {"input_output": "tests"},
        "stdin, 1 case",
        ("print(int(input()) > 4)", "print('true')"),
    ),
    "TACO, a call": (
        {"input_output": '{"fn_name": "shift", "inputs": [[5, 2], [0, 1]], "outputs": [7, 1]}'},
        {"input_output": "tests"},
        "call shift, 2 cases",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "APPS, results in lists of one": (
        {"input_output": '{"fn_name": "shift", "inputs": [[5, 2], [0, 1]], "outputs": [[7], [1]]}'},
        {"input_output": "tests"},
        "call shift, 2 cases",
        (CALL_RIGHT, "def shift(x, by): return [[x + by]]"),
    ),
    "APPS, keys that were integers before JSON": (
        {"input_output": '{"fn_name": "count", "inputs": [[[5, 5], {"5": 1, "-10": 2}]], "outputs": [[{"5": 3}]]}'},
        {"input_output": "tests"},
        "call count, 1 case",
        ("def count(items, more): return {5: len(items) + more[5]}", "def count(items, more): return {'5': 3}"),
    ),
    "APPS, keys that are text": (
        {"input_output": '{"fn_name": "count", "inputs": [[{"5": 1, "05": 2}]], "outputs": [{"5": 1, "x": {}}]}'},
        {"input_output": "tests"},
        "call count, 1 case",
        ("def count(more): return {'5': more['5'], 'x': {}}", "def count(more): return {5: 1, 'x': {}}"),
    ),
    "a function that returns a list of one": (
        {"input_output": '{"fn_name": "shift", "inputs": [[5, 2]], "outputs": [[7]]}'},
        {"input_output": "tests"},
        "call shift, 1 case",
        ("def shift(x, by): return [x + by]", "def shift(x, by): return [x]"),
    ),
    "Eurus-2-RL": (
        {"reward_model": {"ground_truth": '{"inputs": ["5\\n"], "outputs": ["22\\n"], "fn_name": null}'}},
        {"reward_model.ground_truth": "tests"},
        "stdin, 1 case",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "LiveCodeBench, stdin": (
        {"public_test_cases": '[{"input": "5\\n", "output": "22\\n", "testtype": "stdin"}]', "metadata": "{}"},
        {"public_test_cases": "tests"},
        "stdin, 1 case",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "LiveCodeBench, functional": (
        {
            "public_test_cases": json.dumps([{"input": "[1, 2]\n2", "output": "true", "testtype": "functional"}]),
            "metadata": '{"func_name": "has"}',
        },
        {"public_test_cases": "tests"},
        "call has, 1 case",
        ("class Solution:\n    def has(self, items, x): return x in items", "def has(items, x): return False"),
    ),
    "open-r1": (
        {
            "verification_info": {
                "language": "python",
                "test_cases": [{"fn_name": None, "input": "5\n", "output": "22\n", "type": "stdin_stdout"}],
            }
        },
        {"verification_info": "tests"},
        "stdin, 1 case",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "open-r1, function calls": (
        {
            "verification_info": json.dumps(
                {
                    "language": "python",
                    "test_cases": [
                        {"type": "function_call", "fn_name": "shift", "input": [5, 2], "output": [7]},
                        {"type": "function_call", "fn_name": "shift", "input": [1, 2], "output": [3]},
                    ],
                }
            )
        },
        {"verification_info": "tests"},
        "call shift, 2 cases",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "inputs and outputs in two lists": (
        {"public_tests": {"input": ["5\n", "6"], "output": ["22", "23\n"]}},
        {"public_tests": "tests"},
        "stdin, 2 cases",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "KodCode": ({"test": KODCODE}, {"test": "tests"}, "2 tests", (CALL_RIGHT, CALL_WRONG)),
    "MBPP": (
        {
            "test_list": ["assert shift(3, 4) == 7", "assert math.isclose(shift(0.5, 1), 1.5)"],
            "test_imports": ["import math"],
        },
        {"test_list": "tests"},
        "call shift, 2 cases",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "MBPP, a JSON list": (
        {"test_list": '["assert shift(3, 4) == 7"]'},
        {"test_list": "tests"},
        "call shift, 1 case",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "MBPP+": ({"test": MBPP_PLUS}, {"test": "tests"}, "call shift, 2 cases", (CALL_RIGHT, CALL_WRONG)),
    "HumanEval": (
        {"test": "def check(candidate):\n    assert candidate(3, 4) == 7\n", "entry_point": "shift"},
        {"test": "tests"},
        "call shift, 1 case",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "HumanEval+": (
        {"test": PLUS_CHECK, "entry_point": "shift"},
        {"test": "tests"},
        "call shift, 2 cases",
        (CALL_RIGHT, "def shift(x, by): return 3 if x == 1 else 0.76"),
    ),
    "LeetCodeDataset": (
        {
            "test": "def check(candidate):\n    assert candidate(x = 3, by = 4) == 7\n"
            "    assert candidate(1, 1) == 2\n",
            "entry_point": "Solution().shift",
        },
        {"test": "tests"},
        "call shift, 2 cases",
        ("class Solution:\n    def shift(self, x: int, by: int) -> int: return x + by", CALL_WRONG),
    ),
    "Python text": (
        {"verification_info": str({"test_cases": [{"fn_name": "shift", "input": [3, 4], "output": [7]}], "id": None})},
        {"verification_info": "tests"},
        "call shift, 1 case",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "code-r1": (
        {"truth": json.dumps({"functional": "def check(candidate):\n    assert candidate(3, 4) == 7\n\ncheck(shift)"})},
        {"truth": "tests"},
        "call shift, 1 case",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "code-r1 with test functions": (
        {"truth": json.dumps({"pytest": "from solution import shift\ndef test_it():\n    assert shift(3, 4) == 7\n"})},
        {"truth": "tests"},
        "1 test",
        (CALL_RIGHT, CALL_WRONG),
    ),
    "Skywork-OR1 code": (
        {
            "truth": {
                "import_prefix": "import math\n",
                "test_code": "def check(candidate):\n    assert candidate(x = 3, by = 4) == math.isqrt(49)\n",
                "entry_point": "Solution().shift",
            }
        },
        {"truth": "tests"},
        "call shift, 1 case",
        ("class Solution:\n    def shift(self, x: int, by: int) -> int: return x + by", CALL_WRONG),
    ),
    "open-r1/codeforces without a checker": (
        {
            "official_tests": [{"input": "5\n", "output": "22\n"}],
            "generated_checker": None,
            "interaction_format": "",
        },
        {"official_tests": "tests"},
        "stdin, 1 case",
        (STDIN_RIGHT, STDIN_WRONG),
    ),
    "the project's own form": (
        {"tests": {"type": "call", "fn_name": "shift", "cases": [{"args": [3, 4], "expected": 7}], "tol": None}},
        {},
        "call shift, 1 case",
        (CALL_RIGHT, CALL_WRONG),
    ),
}


@pytest.fixture(scope="module")
def code():
    return get_reward("code", workers=2)


@pytest.mark.parametrize(("row", "columns", "wanted", "programs"), ROWS.values(), ids=ROWS)
def test_a_row_pays_the_right_program_alone(row, columns, wanted, programs, code):
    dataset, _ = rename_columns(Dataset.from_list([row]), columns)
    dataset, notes = read_suites(dataset)
    (tests,), name = dataset["tests"], row.get("entry_point")
    assert describe_tests(read_tests(tests, name)) == wanted
    assert len(notes) == 1 and notes[0].startswith("tests: ")
    rewards = asyncio.run(code(list(map(block, programs)), tests=[tests] * 2, entry_point=[name] * 2))
    assert rewards == [1.0, 0.0]


def test_rows_of_one_set_are_named_in_one_line():
    rows = [{"input_output": '{"inputs": ["1"], "outputs": ["2"]}'}] * 3
    rows += [{"input_output": '{"fn_name": "f", "inputs": [[1]], "outputs": [2]}'}] * 2
    dataset, _ = rename_columns(Dataset.from_list(rows), {"input_output": "tests"})
    dataset, notes = read_suites(dataset)
    assert notes == ["tests: inputs and outputs, 5 rows: stdin 3, call 2"]
    assert json.loads(dataset["tests"][4]) == {
        "type": "call",
        "fn_name": "f",
        "cases": [{"args": [1], "expected": 2}],
    }


def test_text_stays_text_and_numbers_have_any_length():
    tests = f'{{"fn_name": "f", "inputs": [["007", 3]], "outputs": [{json_text(LARGE)}]}}'
    (case,) = read_suite(tests).tests["cases"]
    assert case == {"args": ["007", 3], "expected": LARGE}
    again = read_suite(json_text(read_suite(tests).tests)).tests
    assert again["cases"] == [case]
    (case,) = read_suite('{"fn_name": "f", "inputs": [["1"]], "outputs": ["54"]}').tests["cases"]
    assert case["expected"] == "54"


def test_arrays_are_read_as_lists():
    cases = [{"input": "5", "output": "22", "type": "stdin_stdout", "fn_name": None}]
    stdin = {"type": "stdin", "cases": [{"input": "5", "output": "22"}]}
    for given in (
        np.array(cases, dtype=object),
        {"inputs": np.array(["5"]), "outputs": np.array(["22"]), "fn_name": None},
        {"type": "stdin", "cases": np.array(stdin["cases"], dtype=object)},
    ):
        assert read_suite(given).tests == stdin
    (case,) = read_suite({"fn_name": "f", "inputs": [np.array([1, 2])], "outputs": [np.int64(3)]}).tests["cases"]
    assert case == {"args": [1, 2], "expected": 3} and type(case["expected"]) is int
    assert read_suite(np.array(["assert f(1) == 2", "assert f(2) == 3"])).tests == "assert f(1) == 2\nassert f(2) == 3"


def test_a_tolerance_counts_in_every_form_that_is_an_object():
    case = {"input": "5", "output": "22.5"}
    for form in (
        {"inputs": ["5"], "outputs": ["22.5"]},
        {"test_cases": [case]},
        {"type": "stdin", "cases": [case]},
        case,
    ):
        assert read_suite({**form, "tol": 1e-6}).tests == {"type": "stdin", "cases": [case], "tol": 1e-6}
        assert "tol" not in read_suite({"type": "stdin", **form}).tests
    call = {"fn_name": "f", "inputs": [[5]], "outputs": [22.5]}
    assert read_suite(json.dumps({**call, "tol": 0.5})).tests["tol"] == 0.5


def test_indented_tests_and_all_names_of_python_are_read():
    assert read_suite(["assert f(1) == 2", "  assert f(2) == 3"]).tests == "assert f(1) == 2\nassert f(2) == 3"
    assert (
        read_suite("\n    assert f(1) == 2\n    assert f(2) == 3").tests.split()
        == read_suite("assert f(1) == 2\nassert f(2) == 3").tests.split()
    )
    text = 'for x in [1]:\n    assert f(x) == """a\n   \nb"""'
    assert read_suite(text).tests == text
    for language in ("Python", "python3.8", "py", "pypy3", ""):
        read_suite([{"input": "1", "output": "2"}], {"language": language})


def test_tests_that_are_no_json_keep_their_types():
    rows = [
        {"tests": "{'fn_name': 'f', 'inputs': [[{4: 1}]], 'outputs': [(1, 2)]}"},
        {"tests": "{'fn_name': 'f', 'inputs': [[{4, 5}]], 'outputs': [3]}"},
    ]
    dataset, _ = read_suites(Dataset.from_list(rows))
    first, second = (read_suite(text).tests["cases"][0] for text in dataset["tests"])
    assert first == {"args": [{4: 1}], "expected": (1, 2)} and second == {"args": [{4, 5}], "expected": 3}


UNREADABLE = {
    "another language": (
        {"tests": '{"language": "cpp", "test_cases": [{"input": "1", "output": "2", "type": "stdin_stdout"}]}'},
        ["'cpp'", "only Python runs"],
    ),
    "compressed": ({"tests": "eJxrYJmqzoAGSrOLM8sA"}, ["never unpickled", "public_test_cases"]),
    "a checker": (
        {"tests": '[{"input": "1", "output": "2"}]', "generated_checker": "import sys\nprint(1)"},
        ["generated_checker", "several outputs", "leave these rows out"],
    ),
    "a checker in the object": (
        {"tests": '{"test_cases": [{"input": "1", "output": "2"}], "checker": "import sys"}'},
        ["checker", "several outputs"],
    ),
    "an interactive task": (
        {"tests": '[{"input": "1", "output": "2"}]', "interaction_format": "Print ? x"},
        ["interaction_format", "talk to a judge"],
    ),
    "no name": (
        {"tests": '[{"input": "3", "output": "4", "testtype": "functional"}]'},
        ["'functional'", "func_name"],
    ),
    "calls written as text": (
        {"tests": '[{"input": "nums = [3], target = 6", "output": "[0]"}]', "entry_point": "Solution().two"},
        ["entry_point='Solution().two'", "calls written as text"],
    ),
    "a call without a name": ({"tests": '{"type": "call", "inputs": [[3]], "outputs": [3]}'}, ["'call'", "fn_name"]),
    "unequal lists": ({"tests": '{"inputs": ["1", "2"], "outputs": ["1"]}'}, ["2 inputs", "1 outputs"]),
    "unknown keys": ({"tests": '{"questions": [1]}'}, ["questions", "unknown form"]),
    "no case": ({"tests": '{"inputs": [], "outputs": []}'}, ["no case"]),
    "a type": ({"tests": '[{"input": "3", "output": "4", "type": "interactive"}]'}, ["'interactive'", "stdin"]),
    "no JSON": ({"tests": '[{"input": "3", '}, ["not valid JSON"]),
    "nothing": ({"tests": None}, ["tests are empty"]),
    "a method of another class": (
        {"tests": '{"fn_name": "Calculator.add", "inputs": [[3]], "outputs": [3]}'},
        ["'Calculator.add'", "class Solution"],
    ),
    "arguments that are no list": ({"tests": '{"fn_name": "f", "inputs": [3], "outputs": [3]}'}, ["list of arguments"]),
}


@pytest.mark.parametrize(("row", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_rows_that_cannot_be_read_are_refused_in_one_line(row, words):
    good = dict.fromkeys(row) | {"tests": '{"inputs": ["1"], "outputs": ["2"]}'}
    with pytest.raises(ValueError) as error:
        read_suites(Dataset.from_list([good, row, row]))
    message = str(error.value)
    assert "2 of 3 rows" in message and "row 1: " in message and "\n" not in message
    assert all(word in message for word in words), message


def test_a_few_rows_that_cannot_be_read_are_named_and_stay_as_they_are():
    rows = [{"tests": "assert f(1) == 2"}] * 199 + [{"tests": '{"questions": [1]}'}]
    dataset, notes = read_suites(Dataset.from_list(rows))
    assert notes[0] == "tests: a Python script, 199 rows"
    assert notes[1].startswith("tests: 1 of 200 rows cannot be read") and "row 199" in notes[1]
    assert dataset["tests"][199] == '{"questions": [1]}'
