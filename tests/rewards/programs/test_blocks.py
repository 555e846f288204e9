"""The program of a completion: which of its fenced blocks it is."""

import pytest

from pace import cpu_limit
from rewards.programs.blocks import find_program


def fenced(program, opening="```python", closing="```"):
    return f"{opening}\n{program}\n{closing}\n"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Thus:\n\n```py\nx = 1\n```\nDone.", "x = 1\n"),
        ("```Python3 \nx = 1\n```  \n", "x = 1\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\n"),
        ("```python\nx = 1\n```\n```python\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 1\n```\n```text\nx = 2\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```bash\npython solution.py\n```", "x = 1\n"),
        ("```python\nx = 1\n```\nand now\n```python\nx = 2", "x = 1\n"),  # not closed
        ("```python\n```", ""),
        ("```python\nx = '```'\n```", "x = '```'\n"),
        ("```python\nx = 1\n ```\ny\n```", "x = 1\n ```\ny\n"),
        ("```python\nx = 1\nBut better:\n```python\nx = 2\n```", "x = 2\n"),  # the first is not closed
        ("```\nstray\n\n```python\nx = 1\n```", "x = 1\n"),
        ("Use ```x``` so:\n```python\nx = 1\n```", "x = 1\n"),
        ("<answer>```python\nx = 1\n```</answer>", "x = 1\n"),
        (
            "<think>\n```python\nx = 2\n```\n</think>\n <answer>~~~py\n x = '<answer>'\n ~~~ </answer>",
            "x = '<answer>'\n",
        ),
        ("<solution>```py\nx = 1\n```</solution>", "x = 1\n"),
        ("```py\nx = 1\n```<|im_end|>", "x = 1\n"),
        ("```solution.py\nx = 1\n```", "x = 1\n"),
        ("```solution.pyx\nx = 1\n```", None),
        ("The answer: ```python\nx = 1\n```", "x = 1\n"),
        ("The answer: ```python\nx = 1\n```\n```py\nx = 2\n```", "x = 2\n"),  # an ordinary block comes first
        ("Code: ```python\nx = 1\n```\n\nOutput:\n```\n1\n```", "x = 1\n"),
        ("```\n> x = 1\n```", "> x = 1\n"),
        ("**The answer:**```python\nx = 1\n```", "x = 1\n"),
        ("````markdown\nSo:\n```python\nx = 1\n```\nIt prints:\n```\n1\n```\n````", "x = 1\n"),
        ("~~~~ md\n~~~py\nx = 1\n~~~\n~~~~", "x = 1\n"),
        ("````md\n```py\nx = 1\n```\n````\n```py\nx = 2\n```", "x = 2\n"),  # an ordinary block comes first
        ("> So:\n> ```py\n> x = 1\n> if x:\n>     y = 2\n> ```", "x = 1\nif x:\n    y = 2\n"),
        ("```py\nx = (1\n> 0)\n```", "x = (1\n> 0)\n"),  # no quotation
        ("<answer>```</answer> x\n```python\nx = 1\n```", "x = 1\n"),
        ("x = 1", None),
        ("```javascript\nx = 1\n```", None),
        ("```python\nx = 1", None),
        ("```python\nx = 1```", None),
        ("", None),
        ("```python", None),
    ],
)
def test_the_last_closed_block_is_the_program(text, program):
    assert find_program(text) == program


@pytest.mark.parametrize(
    "opening",
    [
        *("```", "``` ", "```py", "```python3", "```python3.11", "```Python 3", "```PYTHON", "```pypy3", "``` python"),
        *("```{python}", "```{.python}", "```{.python .numberLines}", '```{#id .python startFrom="1"}', "```{ .py }"),
        *(
            '```python title="solution.py"',
            "```python {1,3}",
            "```python=",
            "```python:solution.py",
            "```py linenums='1'",
        ),
    ],
)
def test_fences_of_python_and_of_no_language(opening):
    assert find_program(fenced("x = 1", opening)) == "x = 1\n"
    assert find_program(fenced("x = 1", opening.replace("`", "~"), "~~~")) == "x = 1\n"
    assert find_program(fenced("x = 1", "``" + opening, "`````")) == "x = 1\n"


@pytest.mark.parametrize(
    "language",
    ["text", "bash", "python-repl", "pycon", "pythonic", "pyx", "cpp", "json", "{.bash}", "py+x", "java", "c#"],
)
def test_a_block_in_another_language_is_not_the_program(language):
    other = fenced("print(2)", f"```{language}")
    assert find_program(other) is None
    assert find_program(fenced("x = 1") + other) == "x = 1\n"
    assert find_program(other + fenced("x = 1")) == "x = 1\n"


FUNCTION = "def f(x):\n    if x:\n\n        return x\n"


@pytest.mark.parametrize(
    ("opening", "indentation"),
    [("   ```python", "   "), ("1. ```python", "   "), ("- ```", "  "), ("10) - ~~~py", "      "), ("\t```py", "\t")],
)
def test_an_indented_block_loses_its_indentation(opening, indentation):
    fence = "~~~" if "~" in opening else "```"
    lines = [indentation + line if line else "" for line in FUNCTION.splitlines()]
    text = "\n".join(["The steps:", opening, *lines, indentation + fence, "", "Done."])
    assert find_program(text) == FUNCTION
    assert find_program("\n".join([opening, FUNCTION.rstrip(), indentation + fence])) == FUNCTION  # not indented
    assert find_program("\n".join([opening, *lines, fence])) == FUNCTION  # the closing fence is not indented


def test_a_text_within_an_indented_program_keeps_its_lines():
    text = '  ```python\n  x = """\na\n   b\n"""\n  ```\n'
    assert find_program(text) == 'x = """\na\n b\n"""\n'


def test_a_fence_in_a_docstring_or_in_a_longer_fence_is_a_line_of_the_block():
    documented = 'def f(x):\n    """Example:\n    ```python\n    f(3)\n    ```\n    """\n    return x\n'
    assert find_program(fenced(documented.rstrip())) == documented
    quoted = 'x = """\n```python\nf(3)\n```\n"""\n'
    assert find_program(fenced(quoted.rstrip(), "````python", "````")) == quoted
    assert find_program(fenced(quoted.rstrip(), "~~~python", "~~~")) == quoted


SOLUTION = "def area(r):\n    return 3 * r * r"


@pytest.mark.parametrize(
    "after",
    [
        fenced("print(area(2))  # 12"),
        fenced("assert area(1) == 3\nassert area(2) == 12"),
        fenced("area(2)", "```"),
        fenced("12", "```"),
        fenced("area = area(2)\nprint(area)"),
        fenced("from solution import area\nareas = [area(r) for r in range(3)]"),
        fenced("def main():\n    print(area(2))\nmain()"),
        fenced("def area_of_square(a):\n    return a * a"),
        fenced("if area(1) == 3: print('def area')"),
    ],
)
def test_the_program_defines_what_the_tests_call(after):
    for opening in ("```python", "```"):
        assert find_program(fenced(SOLUTION, opening) + after, ["area"]) == SOLUTION + "\n"
        assert find_program(after + fenced(SOLUTION, opening), ["area"]) == SOLUTION + "\n"


@pytest.mark.parametrize(
    "program",
    [
        "def area(r): return 0",
        "async def area(r): return 0",
        "class Solution:\n    def area(self, r): return 0",
        "class area: pass",
        "area = lambda r: 0",
        "area: Callable = lambda r: 0",
        "if True:\n    area = print",
    ],
)
def test_the_last_definition_counts(program):
    demonstration = fenced("print(area(2))")
    assert find_program(fenced("r = 1") + fenced(program) + demonstration, ["area"]) == program + "\n"
    if "=" not in program.replace("==", ""):
        assert find_program(fenced(SOLUTION) + fenced(program) + demonstration, ["area"]) == program + "\n"


def test_the_program_defines_most_of_several_functions():
    both, one = "def f(): pass\ndef g(): pass", "def g(): return 1"
    assert find_program(fenced(both) + fenced(one), ["f", "g"]) == both + "\n"
    assert find_program(fenced(one) + fenced("def f(): pass") + fenced("x"), ["f", "g"]) == "def f(): pass\n"
    assert find_program(fenced("x = 1") + fenced("x = 2"), ["f", "g"]) == "x = 2\n"


def test_a_block_without_language_that_prints_nothing_is_an_example():
    program = "print(int(input()) * 2)"
    for example in ("54", "3 4\n5", "Yes", "x = 5", "[1, 2]"):
        for opening in ("```", "```python"):
            before, after = fenced("27", "```"), fenced(example, "```")
            assert find_program(f"For\n{before}I write\n{fenced(program, opening)}It prints\n{after}") == program + "\n"
    assert find_program(fenced("x = 1") + fenced(program, "```")) == program + "\n"
    assert find_program(fenced("54", "```")) == "54\n"


@pytest.mark.parametrize(
    "text",
    [
        "```python\n" * 200_000,
        "```python\nx\n```\n" * 100_000,
        "```\nprint (1)\n```\n" * 70_000,
        "```python" + " " * 10**6 + "x",
        "```python\n" + "```x\n" * 200_000,
        " " * 10**6 + "```",
        "- " * 500_000 + "x",
        ("-" + " " * 999) * 1000,
        "1" * 10**6,
        "`" * 10**6,
        "~" * 10**6 + "\n" + "~" * 10**6,
        "```{#" + "a" * 10**6,
        "```{ " + " " * 10**6,
        "  ```py\n" + " " * 10**6 + "\n  ```",
        "```py\n" + "def " * 250_000 + "\n```",
        "```py\n" + "f " * 500_000 + "\n```",
        "```py\n" + "f:" + " " * 10**6 + "\n```",
        "```\n" + "print " * 200_000 + "\n```",
        "```\n" + "print" + " " * 10**6 + "\n```",
    ],
    ids=lambda text: text[:8],
)
def test_blocks_are_found_in_linear_time(text):
    with cpu_limit(30):
        find_program(text, ["f", "g"])
