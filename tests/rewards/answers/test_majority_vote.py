r"""The reward `majority_vote`: the winner, equal answers, limits on comparisons, metrics, and several ranks."""

import math
import pickle
import random
import time
from collections import Counter

import pytest
from PIL import Image

from rewards import get_reward
from rewards.answers import vote_counting
from rewards.answers.majority_vote import MajorityVote
from rewards.answers.math_answer import Math
from rewards.answers.plain_numbers import parse_number
from rewards.answers.vote_counting import CHUNK, MAX_PASSES
from rewards.shared.batch import REWARDS
from rewards.shared.boxed import MAX_ANSWER, boxed
from tests.rewards.answers.test_catalogue import read_catalogue
from tests.rewards.builders import run_on_two_ranks

HARD_LIMIT = Math().hard_limit


def vote(answers, reward=None, prompts=None, **columns):
    """The rewards of the answers, each in a box. They answer the same prompt unless `prompts` is given."""
    reward = reward or MajorityVote()
    return reward([boxed(answer) for answer in answers], prompts=prompts or ["?"] * len(answers), **columns)


@pytest.fixture(scope="module", autouse=True)
def close_workers():
    yield
    Math().close()


@pytest.fixture
def no_workers(monkeypatch):
    """Makes every comparison by workers an error."""

    def refuse(*args):
        raise AssertionError(f"compared {args}")

    monkeypatch.setattr(vote_counting, "_compare", refuse)


@pytest.fixture
def compared(monkeypatch):
    """Replaces the workers. Returns the list of comparisons: the reference and the answers of each call.

    Answers such as `a3` and `b3` are equal if their numbers are. `late…` times out, and `unread…` cannot be read. Every
    answer that is compared with `slow…` times out, except 0, 1 and 2.
    """
    calls = []

    def value(text):
        number = parse_number(text)
        return text.lstrip("abcdefgh") if number is None else f"{number}"

    def compare(reference, answers):
        calls.append((reference, list(answers)))
        reference = reference.removeprefix(r"\boxed{").removesuffix("}")
        return [status(reference, answer) for answer in answers]

    def status(reference, answer):
        if answer.startswith("late"):
            return "timeout"
        if answer.startswith("unread"):
            return "unparsed"
        if reference.startswith("unread"):
            return "no_gold"
        if {reference[:4], answer[:4]} & {"slow"} and not {reference, answer} & {"0", "1", "2"}:
            return "timeout"
        return "ok" if value(reference) == value(answer) else "wrong"

    monkeypatch.setattr(vote_counting, "_compare", compare)
    return calls


# ---------------------------------------------------------------------------------------------------------------------
# the winner
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["7", "7", "8"], [1, 1, 0]),
        (["8", "7", "7"], [0, 1, 1]),
        (["7"], [1]),
        # different notations of the same number
        (["0.5", r"\frac12", "2", "2", "1/2"], [1, 1, 0, 0, 1]),
        ([r"\frac{1}{2}", "3", "3", r"\dfrac{2}{4}", r"\tfrac12"], [1, 0, 0, 1, 1]),
        (["-.5", r"-\frac 12", "0.5"], [1, 1, 0]),
        (["7", "8", "8", "7.0", "+7", "007", "7."], [1, 0, 0, 1, 1, 1, 1]),
        # numbers are compared exactly
        (["0.333333333333", r"\frac13", r"\frac{2}{6}"], [0, 1, 1]),
        (["1" + "0" * 300, "1" + "0" * 300 + ".0", "1" + "0" * 299 + "1"], [1, 1, 0]),
        # a tie goes to the group whose first vote came first
        (["7", "8", "8", "7"], [1, 0, 0, 1]),
        (["8", "7", "7", "8"], [1, 0, 0, 1]),
        (["9", r"\frac{16}{2}", "7.0", "7", "8"], [0, 1, 0, 0, 1]),
    ],
)
def test_the_most_common_number_wins_without_any_worker(no_workers, answers, expected):
    assert vote(answers) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["x+1", "1+x", "x+2"], [1, 1, 0]),
        (["2", "2", r"\sqrt{9}", "3", "6-3"], [0, 0, 1, 1, 1]),  # counted together with the number that they equal
        (["1000", "1,000", "5", "5", "1{,}000"], [1, 1, 0, 0, 1]),
        ([r"\{1, 2\}", r"\{2, 1\}", "3"], [1, 1, 0]),
        ([r"\sqrt{8}", r"2\sqrt2", "1"], [1, 1, 0]),
        (["2", "2", "x", r"\sqrt{4}"], [1, 1, 0, 1]),  # 2 has won already, and a third completion is also correct
        (["x+1", "y", "y", "1+x"], [1, 0, 0, 1]),
    ],
)
def test_answers_that_are_equal_as_mathematics_are_counted_together(answers, expected):
    assert vote(answers) == expected


def test_only_the_last_box_is_a_vote(no_workers):
    completions = [
        r"First \boxed{1}, no: \boxed{2}.",
        r"\boxed{2} ",
        "The final answer is $3$.",
        "3",
        r"\boxed{3",
        r"\boxed{}",
        boxed("3" * (MAX_ANSWER + 1)),
        "",
        [{"role": "assistant", "content": None}],
    ]
    columns, metrics = {}, {}
    values = MajorityVote()(
        completions,
        prompts=["?"] * 9,
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert values == [1.0, 1.0] + [0.0] * 7
    assert columns["majority_vote/status"] == ["ok"] * 2 + ["unparsed"] * 7
    assert columns["majority_vote/label"] == ["2"] * 9
    # 2 of all 9 votes, including unreadable ones
    assert metrics["rewards/majority_vote/majority_ratio"] == pytest.approx(2 / 9)


@pytest.mark.parametrize("completions", [["3", "", r"\boxed{}"], [boxed("("), boxed("("), boxed(")")]])
def test_a_prompt_without_a_readable_vote_has_no_label(completions):
    columns, metrics = {}, {}
    reward = MajorityVote()
    values = reward(completions, prompts=["?"] * 3, log_extra=columns.__setitem__, log_metric=metrics.__setitem__)
    assert values == [0.0] * 3
    assert columns == {"majority_vote/status": ["unparsed"] * 3, "majority_vote/label": [""] * 3}
    assert metrics["rewards/majority_vote/majority_ratio"] == 0.0


def test_unreadable_answers_are_never_the_label():
    columns = {}
    assert vote(["(", "(", "(", "x", "5"], log_extra=columns.__setitem__) == [0, 0, 0, 1, 0]
    assert columns["majority_vote/status"] == ["unparsed"] * 3 + ["ok", "wrong"]


def test_a_list_of_boxes_is_one_vote_and_a_box_that_is_cut_off_is_none():
    completions = [
        r"\boxed{4} and \boxed{6}",
        r"\boxed{6, 4}",
        r"\boxed{6}",
        r"\boxed{6}. We check: \boxed{6",
    ]
    columns = {}
    assert MajorityVote()(completions, prompts=["?"] * 4, log_extra=columns.__setitem__) == [1.0, 1.0, 0.0, 0.0]
    assert columns["majority_vote/status"] == ["ok", "ok", "wrong", "unparsed"]


def test_no_vote_counts_what_the_reward_math_would_not_pay():
    """The reference answers of the catalogue have two votes, each of the other answers has one."""
    rows = [
        (reference, answer, is_right)
        for reference, answers in read_catalogue().items()
        for answer, is_right in [(reference, True), (reference, True), *answers]
    ]
    values = vote([row[1] for row in rows], prompts=[row[0] for row in rows])
    assert [row for row, value in zip(rows, values, strict=True) if value and not row[2]] == []
    missed = {row[0] for row, value in zip(rows, values, strict=True) if row[2] and not value}
    assert missed <= {"15%"}  # 15 and 0.15 equal 15%, but not each other


def test_votes_are_counted_per_prompt_in_any_order_of_the_rows(no_workers):
    prompts = ["p", "q", "p", "q", "p", "q"]
    assert vote(["1", "2", "1", "2", "2", "1"], prompts=prompts) == [1, 1, 1, 1, 0, 0]
    chats = [[{"role": "user", "content": text}] for text in prompts]
    completions = [[{"role": "assistant", "content": boxed(n)}] for n in (1, 2, 1, 2, 2, 1)]
    assert MajorityVote()(completions, prompts=chats) == [1, 1, 1, 1, 0, 0]


def test_the_whole_completion_may_be_the_answer(no_workers):
    reward = MajorityVote(boxed=False)
    completions = [" Paris", "Paris\n", "paris", "Pairs", "", boxed("Paris")]
    assert reward(completions, prompts=["?"] * 6) == [1, 1, 0, 0, 0, 0]
    assert reward(["57", "57.0", "58"], prompts=["?"] * 3, solution=["57"] * 3) == [1, 1, 0]
    assert reward(["x+1", "1+x", "1+x"], prompts=["?"] * 3) == [0, 1, 1]  # compared as text, not as mathematics


def test_extra_votes_are_counted_and_get_no_reward(no_workers):
    reward = MajorityVote(votes=6)
    extra = [[boxed(8), boxed(8)], [boxed(8), "none"]]
    metrics, columns = {}, {}
    prompts = ["?"] * 2
    values = reward(
        [boxed(7), boxed(7)],
        prompts=prompts,
        extra_votes=extra,
        solution=["7"] * 2,
        log_metric=metrics.__setitem__,
        log_extra=columns.__setitem__,
    )
    assert values == [0.0, 0.0]
    assert columns == {"majority_vote/status": ["wrong"] * 2, "majority_vote/label": ["8"] * 2}
    assert metrics["rewards/majority_vote/majority_ratio"] == pytest.approx(3 / 6)
    assert metrics["rewards/majority_vote/reward_accuracy"] == metrics["rewards/majority_vote/label_accuracy"] == 0.0
    reward([boxed(7), boxed(7)], prompts=prompts, extra_votes=extra, solution=["8"] * 2, log_metric=metrics.__setitem__)
    assert metrics["rewards/majority_vote/reward_accuracy"] == metrics["rewards/majority_vote/label_accuracy"] == 1.0
    chats = [[[{"role": "assistant", "content": boxed(8)}]] * 2] * 2
    assert reward([boxed(7), boxed(8)], prompts=prompts, extra_votes=chats) == [0.0, 1.0]
    assert reward([boxed(7), boxed(8)], prompts=prompts, extra_votes=[[], []]) == [1.0, 0.0]  # as in evaluation


# ---------------------------------------------------------------------------------------------------------------------
# the number of comparisons
# ---------------------------------------------------------------------------------------------------------------------


def test_numbers_of_a_large_batch_are_counted_fast(no_workers):
    prompts = [f"p{i // 64}" for i in range(8 * 64)]
    start = time.monotonic()
    values = vote([str(i) for i in range(8 * 64)], prompts=prompts)
    assert time.monotonic() - start < 5
    assert values == [float(i % 64 == 0) for i in range(8 * 64)]


def test_the_number_of_comparisons_of_different_answers_is_limited(compared):
    vote([f"a{i}" for i in range(64)])
    assert sum(len(answers) for _, answers in compared) <= 64 * (MAX_PASSES + 1)


def test_only_the_winner_is_compared_if_no_group_can_overtake_it(compared):
    answers = ["5"] * 10 + ["a6"] * 5 + ["a7", "b6", "a5", "8"]
    assert vote(answers) == [1.0] * 10 + [0.0] * 7 + [1.0, 0.0]
    assert compared == [("\\boxed{5}", ["a6", "a7", "b6", "a5"])]


def test_answers_that_are_not_numbers_are_compared_from_the_largest_group_on(compared):
    answers = ["a7"] + ["a6"] * 2 + ["b6", "b7", "8"]
    assert vote(answers) == [0, 1, 1, 1, 0, 0]
    assert compared == [
        ("\\boxed{8}", ["a6", "a7", "b6", "b7"]),
        ("\\boxed{a6}", ["a7", "b6", "b7"]),  # has 3 votes; the remaining groups have 2
    ]


def test_a_possible_tie_is_decided_by_the_first_vote_after_all_comparisons(compared):
    assert vote(["a7", "a6", "a6", "b7"]) == [1, 0, 0, 1]


def test_a_rare_number_is_compared_with_an_answer_that_equals_it(compared):
    """Only `a60` can equal another answer, so it is compared first among the groups with one vote."""
    values = vote([str(i) for i in range(64)] + ["a60"])
    assert [i for i, value in enumerate(values) if value] == [60, 64]
    assert {reference for reference, _ in compared} == {"\\boxed{0}", "\\boxed{a60}"}


def test_the_winner_is_the_same_as_when_all_values_are_counted(compared):
    """Random votes with fewer groups than `MAX_PASSES`."""
    rng = random.Random(0)
    for _ in range(400):
        names = [rng.choice(["", "a", "b", "c"]) + str(int(rng.expovariate(0.5)) % MAX_PASSES) for _ in range(12)]
        values = [name.lstrip("abc") for name in names]
        counts = Counter(values)
        first = {value: values.index(value) for value in counts}
        winner = max(counts, key=lambda value: (counts[value], -first[value]))
        assert vote(names) == [float(value == winner) for value in values], names


HOSTILE = [
    "9^{9^{9^9}}",
    "9^{" * 50 + "9" + "}" * 50,
    r"9^{9^8} \mod 7",
    "(10^{8})!",
    "2^{10^{10}}",
    "(x+1)^{100000}",
]


def test_hostile_answers_are_disqualified_in_time(monkeypatch):
    """The most common answer is hostile. Each distinct hostile answer takes at most one hard limit."""
    answers = [HOSTILE[0]] * 20 + HOSTILE[1:] + ["4", r"\sqrt{16}", "x", "x"]
    columns = {}
    start = time.monotonic()
    values = vote(answers, log_extra=columns.__setitem__)
    assert time.monotonic() - start < HARD_LIMIT * len(HOSTILE)
    assert values == [0.0] * 25 + [1.0, 1.0, 0.0, 0.0]
    assert set(columns["majority_vote/status"][:25]) <= {"timeout", "died", "unparsed", "wrong"}
    assert columns["majority_vote/status"][0] == "timeout"


def test_hostile_answers_alone_give_no_label():
    columns = {}
    assert vote([HOSTILE[0]] * 3 + [HOSTILE[1]], log_extra=columns.__setitem__) == [0.0] * 4
    assert columns["majority_vote/status"][:3] == ["timeout"] * 3


def test_an_answer_that_times_out_next_to_a_number_is_not_compared_again(compared):
    columns = {}
    values = vote(["late1"] * 5 + ["late2", "unread", "a1", "b1", "2"], log_extra=columns.__setitem__)
    assert values == [0.0] * 7 + [1.0, 1.0, 0.0]
    assert columns["majority_vote/status"] == ["timeout"] * 6 + ["unparsed", "ok", "ok", "wrong"]
    assert [reference for reference, _ in compared] == ["\\boxed{2}", "\\boxed{a1}"]
    assert not [answer for _, answers in compared[1:] for answer in answers if answer.startswith(("late", "unread"))]


def test_an_answer_that_makes_others_time_out_is_compared_with_one_chunk_only(compared):
    """The votes of `slow` and of the other answers still count."""
    answers = ["slow"] * 4 + [f"a{i}" for i in range(10, 40)] + ["b12", "c12", "d12", "e12"]
    values = vote(answers)
    assert [answers[i] for i, value in enumerate(values) if value] == ["a12", "b12", "c12", "d12", "e12"]
    assert [len(others) for reference, others in compared if reference == "\\boxed{slow}"] == [CHUNK]


def test_the_most_common_answer_is_not_at_fault_if_a_few_others_time_out(compared):
    answers = ["a3"] * 3 + ["slow1", "slow2", "b3", "c3", "a4", "b4", "a5"]
    columns = {}
    values = vote(answers, log_extra=columns.__setitem__)
    assert values == [1, 1, 1, 0, 0, 1, 1, 0, 0, 0]
    assert columns["majority_vote/status"][3:5] == ["timeout"] * 2


def test_a_number_is_never_disqualified(compared):
    columns = {}
    assert vote(["slow"] * 3 + ["0", "1", "2", "7"], log_extra=columns.__setitem__) == [1, 1, 1, 0, 0, 0, 0]
    assert compared[1] == ("\\boxed{slow}", ["1", "2", "7"])  # 7 times out in this comparison
    assert columns["majority_vote/status"][6] == "wrong"


def test_disqualified_answers_are_not_compared_with_the_reference_answer(compared):
    assert vote(["late", "a5", "b5"], solution=["c5"] * 3) == [0, 1, 1]
    assert compared[-1] == ("c5", ["a5", "b5"])


def test_workers_that_fail_stop_the_run(monkeypatch):
    monkeypatch.setattr(Math, "grade", lambda self, completions, references: ["infra"] * len(completions))
    with pytest.raises(RuntimeError, match="'majority_vote' could not compare the votes: .* traceback on stderr"):
        vote(["x", "y"])


# ---------------------------------------------------------------------------------------------------------------------
# metrics
# ---------------------------------------------------------------------------------------------------------------------

NAMES = {f"rewards/majority_vote/{status}" for status in REWARDS} | {"rewards/majority_vote/majority_ratio"}


KNOWN = {"rewards/majority_vote/label_accuracy", "rewards/majority_vote/reward_accuracy"}


def metrics_of(answers, **columns):
    metrics = {}
    vote(answers, log_metric=metrics.__setitem__, **columns)
    return metrics


def test_metrics_by_hand():
    """Four prompts: the label 7 is correct, the label 7 is wrong, no label, no reference answer."""
    answers = ["7", "7", "8", *("7", "7", r"\sqrt{64}"), *("(", "(", "("), *("1", "1", "2")]
    prompts = [prompt for prompt in "pqrs" for _ in range(3)]
    references = [7] * 3 + ["$8$"] * 3 + ["7"] * 3 + [None] * 3
    metrics = metrics_of(answers, prompts=prompts, solution=references)
    assert set(metrics) == NAMES | KNOWN
    assert metrics["rewards/majority_vote/majority_ratio"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 2 / 3) / 4)
    assert metrics["rewards/majority_vote/label_accuracy"] == pytest.approx(1 / 3)
    # p: all three. q: none, because two wrong completions get 1 and the correct one gets 0. r: all three get 0.
    assert metrics["rewards/majority_vote/reward_accuracy"] == pytest.approx(6 / 9)
    assert metrics["rewards/majority_vote/ok"] == pytest.approx(6 / 12)
    assert metrics["rewards/majority_vote/unparsed"] == pytest.approx(3 / 12)


@pytest.mark.parametrize("reference", [None, "", float("nan"), "("])
def test_metric_names_are_the_same_if_no_reference_answer_can_be_read(reference):
    metrics = metrics_of(["7", "7"], solution=[reference] * 2)
    assert set(metrics) == NAMES | KNOWN
    assert all(math.isnan(metrics[name]) for name in KNOWN)


def test_without_a_column_solution_no_accuracy_is_logged(no_workers):
    assert set(metrics_of(["7", "8"])) == NAMES


def test_the_reward_does_not_depend_on_the_reference_answer(no_workers):
    for reference in ("7", "8", None):
        assert vote(["7", "7", "8"], solution=[reference] * 3) == [1, 1, 0]


@pytest.mark.parametrize(
    ("answers", "reference", "accuracy"),
    [
        (["0.5", "0.5"], r"\frac12", 1.0),
        (["x+1", "1+x"], "1+x", 1.0),
        (["x+1", "1+x"], r"As $y = x$, it is \boxed{x+1}", 1.0),
        ([r"\sqrt{25}", r"\sqrt{25}"], 5, 1.0),
        (["6", "6"], r"$\sqrt{25}$", 0.0),
    ],
)
def test_the_label_is_compared_with_the_reference_answer_as_mathematics(answers, reference, accuracy):
    metrics = metrics_of(answers, solution=[reference] * 2)
    assert [metrics[name] for name in sorted(KNOWN)] == [accuracy, accuracy]


# ---------------------------------------------------------------------------------------------------------------------
# options and columns
# ---------------------------------------------------------------------------------------------------------------------


def test_the_registry_passes_the_option_votes():
    reward = get_reward("majority_vote", votes=4)
    assert reward == MajorityVote(votes=4) == pickle.loads(pickle.dumps(reward))


@pytest.mark.parametrize("votes", [1, 0, -4])
def test_too_few_votes_are_refused(votes):
    with pytest.raises(ValueError, match=f"votes={votes} .*num_generations"):
        MajorityVote(votes=votes)


def test_votes_without_extra_votes_are_refused():
    with pytest.raises(ValueError, match="votes=4, but no extra_votes .*GBPOTrainer"):
        vote(["1", "2"], MajorityVote(votes=4))


@pytest.mark.parametrize("columns", [{"prompts": ["?"]}, {"solution": ["1"]}, {"extra_votes": [[]]}])
def test_columns_of_unequal_length_are_refused(columns):
    with pytest.raises(ValueError):
        vote(["1", "2"], **columns)


# ---------------------------------------------------------------------------------------------------------------------
# several ranks
# ---------------------------------------------------------------------------------------------------------------------

# Each rank has 7 rows. Prompt p has rows on both ranks, and only all of its rows together outvote its answer 1.
ANSWERS = [*("1", "1", "x+2", "x+1", "y", r"\frac12", "1"), *("2+x", "2", "s", "0.5", "(", "t", "x+2")]


PROMPTS = [*("p", "p", "p", "q", "q", "r", "q"), *("p", "r", "s", "r", "q", "s", "p")]


REWARDED = [*(0, 0, 1, 1, 0, 1, 0), *(1, 0, 1, 1, 0, 0, 1)]


SCRIPT = """
import json, sys

def main(answers, prompts, failing):
    import torch.distributed as distributed
    from rewards.answers import vote_counting
    from rewards.answers.majority_vote import MajorityVote

    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    share = len(answers) // distributed.get_world_size()
    mine = slice(rank * share, (rank + 1) * share)
    references, compare = [], vote_counting._compare

    def spy(reference, answers):
        if rank == failing:
            raise OSError("no worker here")
        references.append(reference)
        return compare(reference, answers)

    vote_counting._compare = spy
    columns, metrics = {}, {}
    try:
        rewards = MajorityVote()(
            [f"\\\\boxed{{{answer}}}" for answer in answers[mine]], prompts=prompts[mine], solution=["x+2"] * share,
            log_extra=columns.__setitem__, log_metric=metrics.__setitem__,
        )
    except RuntimeError as error:
        rewards = str(error)
    everything = [None] * distributed.get_world_size()
    distributed.all_gather_object(everything, [rewards, columns, metrics, references])
    if rank == 0:
        print("RESULT", json.dumps(everything))
    distributed.barrier()
    distributed.destroy_process_group()

if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
"""


def two_ranks(tmp_path, failing=None):
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT)
    return run_on_two_ranks(script, ANSWERS, PROMPTS, failing)


def test_votes_of_two_ranks_are_counted_together_and_once(tmp_path):
    columns, metrics = {}, {}
    alone = vote(
        ANSWERS,
        prompts=PROMPTS,
        solution=["x+2"] * 14,
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert alone == REWARDED
    first, second = two_ranks(tmp_path)
    assert first[0] + second[0] == REWARDED
    for name, values in columns.items():
        assert first[1][name] + second[1][name] == values
    assert set(first[2]) == set(second[2]) == NAMES | KNOWN
    for name in (*KNOWN, "rewards/majority_vote/majority_ratio"):
        assert first[2][name] == second[2][name] == pytest.approx(metrics[name])
    assert set(second[3]) == {"\\boxed{0}", "\\boxed{s}", "x+2"}  # prompt s begins on the second rank
    assert "\\boxed{s}" not in first[3]


def test_a_failure_on_one_rank_is_raised_on_both(tmp_path):
    outcomes = two_ranks(tmp_path, failing=0)
    for values, *_ in outcomes:
        assert values == "The reward 'majority_vote' could not compare the votes: no worker here"


def test_completions_are_pooled_by_the_images_of_their_prompt():
    """Every row has its own copy of its image. The two prompts have equal text and equal sizes of images."""
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))

    def prompt(image):
        return [{"role": "user", "content": [{"type": "image", "image": image.copy()}, {"type": "text", "text": "?"}]}]

    rewards = MajorityVote(boxed=False)(
        ["1", "1", "2", "3", "3", "1"], prompts=[prompt(image) for image in (red, red, red, blue, blue, blue)]
    )
    assert rewards == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
