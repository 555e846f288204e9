r"""The reward `math`: the status of each completion, hostile completions, and grading at the same time."""

import asyncio
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rewards.answers.math_answer import SOFT_LIMIT, Math, _grade, _TooSlowError, _within
from rewards.shared.batch import REWARDS
from rewards.shared.boxed import MAX_ANSWER, boxed
from tests.rewards.builders import TOWER, worker_pids


@pytest.fixture(scope="module")
def shared():
    reward = Math(workers=2)
    yield reward
    reward.close()


@pytest.mark.parametrize(
    ("completion", "reference", "status"),
    [
        # values are compared, not text
        (r"So it is \boxed{142}.", "142.0", "ok"),
        (r"\boxed{142}", 142, "ok"),
        (r"\boxed{142.0}", 142.0, "ok"),
        (r"\boxed{0.0000001}", 1e-7, "ok"),
        (r"\boxed{25}", "025", "ok"),
        (r"\boxed{0.5}", r"\frac{1}{2}", "ok"),
        (r"\boxed{x(x+1)}", "x^2+x", "ok"),
        (r"\boxed{2x + 3}", "y = 2x + 3", "ok"),
        (r"\boxed{143}", "142.0", "wrong"),
        (r"\boxed{x(x+2)}", "x^2+x", "wrong"),
        (r"\boxed{\sqrt{2} + 10^{-20}}", r"\sqrt{2}", "wrong"),  # 15 digits would not distinguish them
        # all of a bare reference answer is read: math-verify alone reads each of these as 3
        (r"\boxed{3}", r"3\pi", "wrong"),
        (r"\boxed{3}", "(2, 3)", "wrong"),
        (r"\boxed{3}", "y = 2x + 3", "wrong"),
        (r"\boxed{36}", r"\$36", "ok"),  # a currency, not a delimiter
        # a delimited reference answer is not
        (r"\boxed{0.5}", r"$\frac12$", "ok"),
        (r"\boxed{0.5}", r"Hence \(\frac12\)", "ok"),
        (r"\boxed{0.5}", r"Hence \[\frac12\]", "ok"),
        (r"\boxed{5, 6}", "$5$ or $6$", "ok"),
        (r"\boxed{6}", "$5$ or $6$", "wrong"),
        (r"\boxed{6}", "As $x > 5$, it is $6$.", "ok"),
        (r"\boxed{0.5}", r"As $x = 7$, it is \boxed{\frac12}", "ok"),
        # an interval and an inequality
        (r"\boxed{(1,2)}", "1<x<2", "ok"),
        (r"\boxed{1<x<2}", "(1,2)", "ok"),
        (r"\boxed{1<x<2}", "x < 2", "wrong"),
        # infinity is in no interval, unless the reference answer says so
        (r"\boxed{[5,\infty]}", r"[5,\infty)", "wrong"),
        (r"\boxed{\left[-\infty, 5\right)}", r"x < 5", "wrong"),
        (r"\boxed{]-\infty, 5]}", r"x \le 5", "ok"),
        (r"\boxed{[5,\infty)}", r"[5,\infty]", "ok"),
        # of two moduli, both count
        (r"\boxed{n \equiv 4 \pmod{9}}", r"n \equiv 4 \pmod 9", "ok"),
        (r"\boxed{n \equiv 4 \text{ (mod 9)}}", r"4 \pmod 9", "ok"),
        (r"\boxed{4}", r"n \equiv 4 \pmod 9", "ok"),
        (r"\boxed{n \equiv 4 \pmod{11}}", r"n \equiv 4 \pmod 9", "wrong"),
        (r"\boxed{4 \pmod{11}}", r"n \equiv 4 \text{ (mod 9)}", "wrong"),
        # the letter of a parameter does not count
        (r"\boxed{4+2n\pi, n \in \mathbb{Z}}", r"4+2k\pi, k \in \mathbb{Z}", "ok"),
        (r"\boxed{4+3n\pi, n \in \mathbb{Z}}", r"4+2k\pi, k \in \mathbb{Z}", "wrong"),
        # a set that contains the empty set has an element
        (r"\boxed{\{\}}", r"\emptyset", "ok"),
        (r"\boxed{\{\emptyset\}}", r"\emptyset", "wrong"),
        (r"\boxed{\{\emptyset\}}", r"\{\emptyset\}", "ok"),
        # a letter under a command is not the letter
        (r"\boxed{\sqrt{x}}", "x", "wrong"),
        (r"\boxed{\overline{C}}", "C", "wrong"),
        (r"\boxed{R}", r"\mathbb{R}", "wrong"),
        # a value and its rounding
        (r"\boxed{x = \frac{5}{7} \approx 0.714}", r"\frac57", "ok"),
        (r"\boxed{\frac{5}{7} ≈ 0.714}", "0.714", "ok"),
        (r"\boxed{x \approx 0.714}", "0.714", "ok"),
        (r"\boxed{\frac{4}{7} \approx \frac57}", r"\frac57", "unparsed"),
        (r"\boxed{5 \approx 6}", "5", "unparsed"),
        (r"\boxed{\frac57 \approx 0.714 \approx 6}", r"\frac57", "unparsed"),
        (r"\boxed{\frac{5}{7}\ (\approx 0.714)}", r"\frac57", "ok"),
        (r"\boxed{\frac{5}{8} \text{ (or 0.625)}}", "0.625", "ok"),
        (r"\boxed{\frac{5}{7} \text{ or approximately } 0.714}", r"\frac57", "ok"),
        (r"\boxed{\frac{4}{7} \text{ (or } 0.714)}", "0.714", "unparsed"),
        (r"\boxed{\frac{4}{7}\ (\approx 0.714)}", r"\frac47", "unparsed"),
        # the answer is one letter
        (r"\boxed{$x$}", "x", "ok"),
        (r"\boxed{\mathbf{x}}", "x", "ok"),
        (r"\boxed{$x$}", "4", "wrong"),
        # a decimal comma next to a number that is not whole
        (r"\boxed{5,75}", "5.75", "ok"),
        (r"\boxed{5,75}", r"\frac{23}{4}", "ok"),
        (r"\boxed{5,74}", "5.75", "wrong"),
        (r"\boxed{5,75}", "575", "wrong"),
        # several choices
        (r"\boxed{BE}", "B, E", "ok"),
        (r"\boxed{B, E}", "BE", "ok"),
        (r"\boxed{BD}", "B, E", "wrong"),
        (r"\boxed{B or E}", "B, E", "wrong"),
        # the letter or the text of a choice
        (r"\boxed{\frac{5}{7}}", r"\textbf{(B)}\ \frac57", "ok"),
        (r"\boxed{\text{(B)}}", r"\textbf{(B)}\ \frac57", "ok"),
        (r"\boxed{\textbf{(C)}\ \frac57}", r"\textbf{(B)}\ \frac57", "wrong"),
        (r"\boxed{\frac{4}{7}}", r"\textbf{(B)}\ \frac57", "wrong"),
        # the value of something whose name cannot be read
        (r"\boxed{\dim W = 6}", "6", "ok"),
        (r"\boxed{P(X \mid Y) = \frac{6}{7}}", r"\frac67", "ok"),
        (r"\boxed{\dim W = 5}", "6", "wrong"),
        (r"\boxed{\dim W \ne 6}", "6", "unparsed"),
        (r"\boxed{\dim W < 5 = 6}", "6", "unparsed"),
        (r"\boxed{5 ? 4 = 6}", "6", "unparsed"),
        # times
        (r"\boxed{\text{6:40 p.m.}}", "6:40 PM", "ok"),
        (r"\boxed{6:40\text{ a.m.}}", "6:40 PM", "wrong"),
        # which of several answers is graded
        (r"\boxed{5.0}. The final answer is $7$.", "5", "ok"),  # a box has priority
        (r"\boxed{4} or rather \boxed{5}", "5", "ok"),
        (r"\boxed{9}. The final answer is $6$. I hope it is correct.", "6", "wrong"),
        (r"\boxed{9}. The final answer is $6$. I hope it is correct.", "9", "ok"),
        (r"\boxed{31}, so we check again: \boxed{32", "31", "unparsed"),  # the last box is cut off
        (r"The roots are \boxed{2} and \boxed{9}.", "9, 2", "ok"),  # a list of boxes is one answer
        (r"The roots are \boxed{2} and \boxed{9}.", "9", "wrong"),
        (r"$\boxed{4.0}$, or $\boxed{(}$", "4", "unparsed"),  # earlier answers are ignored if the last is unreadable
        # an answer outside a box is not read
        ("The final answer is $21$. I hope it is correct.", "21", "wrong"),
        ("Answer: $21$", "21", "wrong"),
        ("Answer: 21", "21", "wrong"),
        ("So $x = 4$.", "4", "unparsed"),
        ("4", "4", "unparsed"),
        (r"\boxed{}", "4", "unparsed"),
        # equal text is accepted without parsing, and other long answers are not parsed
        (r"\boxed{ ( }", "(", "ok"),
        (r"\boxed{" + "1+" * MAX_ANSWER + "1}", "1+" * MAX_ANSWER + "1", "ok"),
        (r"\boxed{" + "0" * MAX_ANSWER + "4}", "4", "unparsed"),
        (r"\boxed{" + "0" * (MAX_ANSWER - 1) + "4}", "4", "ok"),
        # a call of code
        (r"\boxed{\frac{4}{7}}", "Rational(4, 7)", "ok"),
        (r"\boxed{720}", "factorial(6)", "ok"),
        (r"\boxed{\text{gcd}(4, 7) = 1}", "1", "ok"),
        (r"\boxed{mgl(1-\cos x)}", r"mgl - mgl\cos x", "ok"),  # a product
        # the reference answer cannot be read
        (r"\boxed{4}", "totient(5)", "no_gold"),  # not a product of letters
        (r"\boxed{5}", "(", "no_gold"),
        (r"\boxed{}", r"\boxed{}", "no_gold"),
        (r"\boxed{5}", None, "no_gold"),
        (r"\boxed{5}", " ", "no_gold"),
        (r"\boxed{5}", float("nan"), "no_gold"),
    ],
)
def test_the_status_of_one_completion(shared, completion, reference, status):
    assert shared.grade([completion], [reference]) == [status]


def test_what_each_exception_means(monkeypatch):
    """`_grade` runs in this process. A timeout is not a subclass of Exception."""

    def fail(step, error):
        def stand_in(*args):
            steps.append(None)
            if len(steps) == step:
                raise error
            return 4

        steps = []
        monkeypatch.setattr("rewards.answers.math_answer._value", stand_in)
        monkeypatch.setattr("rewards.answers.math_answer.equal", stand_in)
        return _grade(r"\boxed{4}", "x")

    assert [fail(step, ValueError()) for step in (1, 2, 3)] == ["no_gold", "unparsed", "wrong"]
    assert [fail(step, RecursionError()) for step in (1, 2, 3)] == ["no_gold", "unparsed", "wrong"]
    assert [fail(step, _TooSlowError()) for step in (1, 2, 3)] == ["no_gold", "timeout", "timeout"]
    monkeypatch.setattr("os._exit", sys.exit)
    for step in (1, 2, 3):
        with pytest.raises(SystemExit):
            fail(step, MemoryError())


def test_the_soft_limit_counts_the_time_of_this_process_alone():
    def work():
        while time.process_time() - start < 10:
            pass

    start = time.process_time()
    with pytest.raises(_TooSlowError):
        _within(0.2, work)
    assert time.process_time() - start < 1
    assert _within(0.2, lambda: time.sleep(0.5) or 4) == 4  # a machine that is busy with other work


HOSTILE = {
    "tower": TOWER,
    "tower after an anchor": "The final answer is $" + "9^{" * 50 + "9" + "}" * 50 + "$.",
    "tower in a remainder": r"\boxed{9^{9^8} \mod 7}",
    "factorial": r"\boxed{(10^{8})!}",
    "binomial": r"\boxed{\binom{10^9}{5 \cdot 10^8}}",
    "integral": r"\boxed{\int_0^1 e^{e^{e^x}} dx}",
    "power of a sum": r"\boxed{(x+1)^{100000}}",
    "long decimal": r"\boxed{10^{10^7}.0}",
    "memory": r"\boxed{2^{10^{10}}}",
    "division by zero": r"\boxed{\frac{1}{0}}",
    "parentheses": r"\boxed{" + "(" * 150 + "1" + ")" * 150 + "}",
    "braces": r"\boxed{" + "{" * 190 + "1" + "}" * 190 + "}",
    "fractions": r"\boxed{" + r"\frac{1}{" * 39 + "2" + "}" * 39 + "}",
    "unbalanced": "}{" * 50_000 + r"\boxed{{{4}",
    "megabyte of words": "x " * 500_000,
    "megabyte of dollars": "$" * 1_000_000,
    "megabyte of anchors": "answer " * 150_000 + "$5$",
    "megabyte between two boxes": r"\boxed{5}," + " " * 1_000_000 + r"\boxed{6}",
    "megabyte of braces in a list": r"\boxed{" + "{}" * 500_000 + r"}, \boxed{6}",
    "list of many boxes": r"\boxed{5}, " * 20_000 + r"\boxed{6}",
    "nested roots": r"\boxed{" + r"\sqrt(" * 50 + "4" + ")" * 50 + "}",
    "exponent": r"\boxed{1e999999999}",
    "long exponent": r"\boxed{10^{-999999999}}",
    "tower in an inequality": r"\boxed{x < 9^{9^{9^9}} \text{ or } x > 1}",
    "many boxes": r"\boxed{5} " * 20_000,
    "many boxes, none closed": r"\boxed{" * 100_000,
    "long number": r"\boxed{" + "9" * 399 + "}",
    "NUL": "\\boxed{\x00}",
    "lone surrogate": "\\boxed{\ud800}",
    "right to left, and bells": "\u202e\\boxed{\a\u0664}",
    "empty": "",
    "no content": [{"role": "assistant", "content": None}],
    "no assistant": [],
}


def test_hostile_completions_get_no_reward_in_time_and_do_not_affect_others(shared):
    batch = [completion for hostile in HOSTILE.values() for completion in (hostile, r"\boxed{4.0}", r"\boxed{3.0}")]
    start = time.monotonic()
    statuses = shared.grade(batch, [44, 4, 4] * len(HOSTILE))
    assert time.monotonic() - start < 3 * SOFT_LIMIT * len(HOSTILE)
    rewards = {name: REWARDS[status] for name, status in zip(HOSTILE, statuses[::3], strict=True)}
    assert rewards == dict.fromkeys(HOSTILE, 0.0)
    assert statuses[1::3] == ["ok"] * len(HOSTILE)
    assert statuses[2::3] == ["wrong"] * len(HOSTILE)


def test_python_in_a_box_is_not_run(shared, tmp_path):
    code = f"__import__('os').system('touch {tmp_path}/pwned')"
    assert shared.grade([boxed(code), boxed(rf"\text{{{code}}}")], [4, 4]) == ["unparsed", "unparsed"]
    assert not (tmp_path / "pwned").exists()


def test_workers_that_cannot_start_stop_the_run_and_the_next_batch_starts_new_ones(monkeypatch):
    reward = Math(workers=1, memory_mb=1000)
    columns = {}
    with monkeypatch.context() as patch:
        patch.setattr("rewards.answers.math_answer._prepare", len)  # raises, because it is called without an argument
        assert reward.grade([r"\boxed{4}", "5"], [4, None]) == ["infra", "no_gold"]
        with pytest.raises(RuntimeError, match="'math' could not grade 1 of 2 .* traceback on stderr"):
            asyncio.run(reward([r"\boxed{4}", "5"], solution=[4, None], log_extra=columns.__setitem__))
    assert columns == {"math/status": ["infra", "no_gold"]}
    assert reward.grade([r"\boxed{4}"], [4]) == ["ok"]
    reward.close()


def test_rewards_statuses_and_metrics_reach_trl(shared):
    columns, metrics = {}, {}
    completions = [[{"role": "assistant", "content": text}] for text in (r"\boxed{4}", r"\boxed{5}", "4", TOWER, "4")]
    rewards = asyncio.run(
        shared(
            completions=completions,
            prompts=["?"] * 5,
            solution=["4", "4", "4", "4", None],
            trainer_state=None,
            log_extra=columns.__setitem__,
            log_metric=metrics.__setitem__,
        )
    )
    assert rewards == [1.0, 0.0, 0.0, 0.0, None]
    assert columns == {"math/status": ["ok", "wrong", "unparsed", "timeout", "no_gold"]}
    seen = ("ok", "wrong", "unparsed", "timeout", "no_gold")
    assert metrics == {f"rewards/math/{status}": 0.2 if status in seen else 0.0 for status in REWARDS}


def test_what_the_reward_reads_in_a_time_and_a_base(shared):
    assert shared.read_references(["6:40 p.m.", "(64)_7"]) == ["6:40 pm", "64 in base 7"]
    assert shared.check_references(["6:40 p.m.", "(64)_7", "b-a", "BE", "6:40"]) == ["ok"] * 5


def test_a_reference_answer_that_python_cannot_print_passes_the_check(shared):
    assert shared.read_references([r"\frac{2023!}{7}", r"\frac13 \approx 0.33"]) == [
        r"\frac{2023!}{7}",
        "1/3 or 33/100",
    ]
    assert shared.check_references([r"\frac{2023!}{7}"]) == ["ok"]


def test_columns_of_unequal_length_are_refused(shared):
    with pytest.raises(ValueError):
        asyncio.run(shared(["4", "5"], solution=["4"]))


@pytest.mark.parametrize("option", [{"workers": 0}, {"hard_limit": 3}, {"memory_mb": 0}])
def test_an_option_out_of_range_is_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name}={option[name]} "):
        Math(**option)


def test_a_pickled_copy_shares_the_workers(shared):
    assert shared.grade([r"\boxed{4}"], [4]) == ["ok"]
    before = worker_pids()
    copy = pickle.loads(pickle.dumps(shared))
    assert copy == shared and asyncio.run(copy([r"\boxed{4.0}"], solution=[4])) == [1.0]
    assert worker_pids() == before


def test_threads_and_event_loops_grade_at_the_same_time(shared):
    def grade(answer):
        return shared([rf"\boxed{{{n}.0}}" for n in range(10)], solution=[answer] * 10)

    async def in_one_loop():
        return await asyncio.gather(*map(grade, range(5)))

    with ThreadPoolExecutor(2) as threads:
        results = threads.submit(asyncio.run, in_one_loop()), threads.submit(asyncio.run, grade(5))
    graded = [*results[0].result(), results[1].result()]
    assert graded == [[float(n == answer) for n in range(10)] for answer in range(6)]


def test_the_event_loop_continues_while_a_batch_is_graded(shared):
    """Another reward can then grade at the same time."""

    async def both():
        grading = asyncio.ensure_future(shared([TOWER], solution=[4]))
        await asyncio.sleep(0)
        turns = 0
        while not grading.done():
            turns += 1
            await asyncio.sleep(0.05)
        return await grading, turns

    rewards, turns = asyncio.run(both())
    assert rewards == [0.0] and turns >= 5  # the power tower takes until the soft limit of one second
