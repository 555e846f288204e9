r"""The answer of a text: which box is read, and lists of boxes."""

import time

import pytest

from rewards.shared.boxed import MAX_ANSWER, last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{17} and later \boxed{ 18 }", "18"),
        (r"\boxed{17}. Check: \boxed{18", None),
        (r"\boxed{}", ""),
        ("17", None),
        (r"\fbox{17}", None),
        (r"\boxed{\boxed{17}}", "17"),
        (r"\boxed {17}", "17"),
        (r"\boxed{17}, no: \boxed {18}", "18"),
        (r"\boxed{$\boxed{17}$ }", "17"),
        (r"\boxed{18 \text{ or } \boxed{17}}", r"18 \text{ or } \boxed{17}"),  # the outer box says more
        (r"\boxed{\boxed{17} and \boxed{18}}", r"\boxed{17} and \boxed{18}"),
        (r"\boxed{" + "7" * MAX_ANSWER + r"\boxed{17}}", "17"),
        (r"\boxed{18 \boxed{17}", "17"),
        # lists
        (r"\boxed{17},\quad\boxed{18}", "17, 18"),
        (r"\boxed{17} \quad \text{and} \;\; \boxed{18}", "17, 18"),
        (r"\boxed{17}, \boxed{18}", "17, 18"),
        (r"$\boxed{17}$ and $\boxed{18}$", "17, 18"),
        (r"\(\boxed{17}\) or \(\boxed{18}\).", "17, 18"),
        (r"\boxed{17} \text{ or } \boxed{18}", "17, 18"),
        (r"\boxed{16}; \boxed{17}, and \boxed{18}", "16, 17, 18"),
        (r"\boxed{17}, \boxed{17}", "17"),
        (r"\boxed{16}. So \boxed{17} or \boxed{18}", "17, 18"),
        (r"$x=\boxed{17}$ or $x=\boxed{18}$", "17, 18"),
        (r"\(t_1 = \boxed{17}\), \(t_2 = \boxed{18}\)", "17, 18"),
        # no lists
        (r"$x=\boxed{17}$ or $y=\boxed{18}$", "18"),
        (r"$\boxed{17}$ or $x=\boxed{18}$", "18"),
        (r"$x=\boxed{17}$, so $x=\boxed{18}$", "18"),
        (r"\boxed{17}\boxed{18}", "18"),
        (r"\boxed{17}, no: \boxed{18}", "18"),
        (r"\boxed{17} = \boxed{18}", "18"),
        (r"\boxed{17}, \boxed{18}, \boxed{19", None),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{1}, " * 100_000 + r"\boxed{2}",
        r"\boxed{1}," + " " * 2_000_000 + r"x\boxed{2}",
        r"\boxed{" + "{}" * 1_000_000 + r"}, \boxed{2}",
        r"\boxed{" * 200_000 + "}",
    ],
)
def test_a_long_text_is_read_in_time(text):
    start = time.process_time()
    answer = last_boxed(text)
    assert time.process_time() - start < 2
    assert answer in ("2", "") or len(answer) > MAX_ANSWER or answer == "1, 2"
