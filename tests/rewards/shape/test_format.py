r"""The rewards `format` and `boxed`: which completions match, and hostile completions."""

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pace import cpu_limit
from rewards.shape.format import TIME_LIMIT, Boxed, Format
from rewards.shared.batch import REWARDS
from tests.rewards.builders import property_test

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
# texts that are not blank and contain no tag
inner = st.lists(
    st.sampled_from(["a", "4", " ", "\n", "<", "/", ">", "think", "</", "<think ", "<ANSWER>"]), min_size=1
)
inner = inner.map("".join).filter(lambda text: text.strip() and not any(tag in text for tag in TAGS))


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<think>a</think><answer>4</answer>", 1.0),
        ("\n<think>\na\nb\n</think>\n\n<answer>\n4\n</answer> \n", 1.0),
        ("<think>3 < 4, if x > 1</think><answer><b>4</b></answer>", 1.0),
        ("<think>the tag <THINK>, or < think></think><answer>4</answer>", 1.0),
        ("<think>日本語\u2028</think><answer>\x00\ud800</answer>", 1.0),
        # text outside the two blocks
        ("So: <think>a</think><answer>4</answer>", 0.0),
        ("<think>a</think>So: <answer>4</answer>", 0.0),
        ("<think>a</think><answer>4</answer>.", 0.0),
        # a tag that is missing, repeated, nested, out of order, or not closed
        ("", 0.0),
        ("4", 0.0),
        ("<answer>4</answer>", 0.0),
        ("<think>a</think>", 0.0),
        ("a</think><answer>4</answer>", 0.0),
        ("<think>a<answer>4</answer>", 0.0),
        ("<think>a</think>4</answer>", 0.0),
        ("<think>a</think><answer>4", 0.0),
        ("<answer>4</answer><think>a</think>", 0.0),
        ("<think>a</think><think>b</think><answer>4</answer>", 0.0),
        ("<think>a</think><answer>4</answer><answer>5</answer>", 0.0),
        ("<think><think>a</think></think><answer>4</answer>", 0.0),
        ("<think>a<answer>5</answer></think><answer>4</answer>", 0.0),
        ("<think>a</think><answer><answer>4</answer></answer>", 0.0),
        ("<think>a</think><answer>4<think>b</think></answer>", 0.0),
        ("<think>a</answer></think><answer>4</answer>", 0.0),
        ("<think>a</think><answer>4</think></answer>", 0.0),
        ("<think>a</think><answer>4</answer>" * 2, 0.0),
        # blank
        ("<think></think><answer>4</answer>", 0.0),
        ("<think> \n</think><answer>4</answer>", 0.0),
        ("<think>a</think><answer></answer>", 0.0),
        ("<think>a</think><answer>\t </answer>", 0.0),
        # another spelling is not a tag
        ("<Think>a</Think><answer>4</answer>", 0.0),
        ("<think >a</think><answer>4</answer>", 0.0),
    ],
)
def test_think_then_answer(completion, reward):
    assert Format()([completion]) == [reward]


@property_test
@given(inner, inner, st.text(" \n\t", max_size=3))
def test_the_blocks_may_contain_any_text_except_tags(thought, answer, gap):
    text = f"{gap}<think>{thought}</think>{gap}<answer>{answer}</answer>{gap}"
    assert Format()([text]) == [1.0]


@property_test
@given(inner, inner, st.sampled_from(TAGS), st.data())
def test_an_additional_or_missing_tag_does_not_match(thought, answer, tag, data):
    pieces = ["<think>", thought, "</think>", "<answer>", answer, "</answer>"]
    place = data.draw(st.integers(0, len(pieces)))
    more = "".join(pieces[:place] + [tag] + pieces[place:])
    less = "".join(piece for piece in pieces if piece != tag)
    assert Format()([more, less]) == [0.0, 0.0]


def test_a_pattern_must_match_the_whole_completion_including_line_breaks():
    reward = Format(r"Thought:.*Answer: \d+")
    texts = ["Thought: a\nb\nAnswer: 42", "Thought: a Answer: 42.", " Thought: a Answer: 42", "Thought: a Answer: "]
    assert reward(texts) == [1.0, 0.0, 0.0, 0.0]
    # "42" matches the second alternative, because the first does not match all of it.
    assert Format("4|42")(["42", "4", "2"]) == [1.0, 1.0, 0.0]
    assert Format("")(["", "4"]) == [1.0, 0.0]


# Natural patterns that take quadratic time or worse on these texts.
HOSTILE = {
    "words": (r"(?:\s*\w+\s*)*\.", "word " * 20_000 + ".!"),
    "fields": (r".*,.*,.*,.*;", "a," * 50_000 + ";!"),
    "nested": (r"(?:x+x+)+y", "x" * 50_000 + "y!"),
    "a tag that never closes": (r"(?:.*?<a>.*?</a>)+.*?b", "<a>" * 30_000 + "b</a>!"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_completion_times_out_and_the_others_are_graded(case):
    pattern, hostile = HOSTILE[case]
    statuses = {}
    start = time.process_time()  # CPU time, which the limit also uses, so that a busy machine does not matter
    values = Format(rf"{pattern}|fine")(["fine", hostile, "else"], log_extra=statuses.__setitem__)
    assert time.process_time() - start < 5 * TIME_LIMIT
    assert values == [1.0, 0.0, 0.0]
    assert statuses == {"format/status": ["ok", "timeout", "wrong"]}


@pytest.mark.parametrize(
    "hostile",
    [
        "<think>" * 100_000,
        "<think>" + "</think><answer>" * 50_000,
        "<think>" + "<" * 100_000 + "</think><answer>4</answer>!",
        " " * 500_000,
        "<think>a</think>" + " " * 500_000 + "<answer>4</answer",
        "<think>a</think><answer>" + "a</answer " * 50_000,
    ],
)
def test_the_default_pattern_never_times_out(hostile):
    statuses = {}
    assert Format()([hostile], log_extra=statuses.__setitem__) == [0.0]
    assert statuses == {"format/status": ["wrong"]}


@pytest.mark.parametrize("pattern", ["(", "[a", "*a", r"\p{nothing}", "(?V2)a", "(?x)(\n", r"(?u)(?a)a", None, 57])
def test_an_invalid_pattern_is_refused_in_one_line(pattern):
    with pytest.raises(ValueError) as caught:
        Format(pattern)
    message = str(caught.value)
    assert (
        message.startswith(f"pattern={pattern!r} is not a valid regular expression")
        and "Correct the pattern" in message
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        (r"\boxed{4}", "ok"),
        (r"So it is $\boxed{\frac{1}{2}}$. I am sure.", "ok"),  # text may follow the box
        (r"\boxed{\{1, 2\}}", "ok"),
        (r"\boxed{\text{a } b}", "ok"),
        (r"\boxed{{4}}", "ok"),
        # no box that can be read
        ("", "unparsed"),
        ("4", "unparsed"),
        (r"\boxed 4", "unparsed"),
        (r"\boxed{4", "unparsed"),
        (r"\boxed{\frac{1}{2}", "unparsed"),
        (r"\boxed{4\}", "unparsed"),  # the brace is part of the answer
        (r"\boxed{}", "unparsed"),
        ("\\boxed{ \n}", "unparsed"),
        (r"\boxed{{ {}}}", "unparsed"),
        # several boxes, of any content
        (r"\boxed{4} or \boxed{5}", "wrong"),
        (r"\boxed{4} \boxed{4}", "wrong"),
        (r"\boxed{\boxed{4}}", "wrong"),
        (r"Put it in \boxed{}: \boxed{4}", "wrong"),
        (r"\boxed{4} \boxed{", "wrong"),
        (r"\boxed 4, so \boxed{4}", "wrong"),
    ],
)
def test_exactly_one_box(completion, status):
    statuses = {}
    assert Boxed()([completion], log_extra=statuses.__setitem__) == [REWARDS[status]]
    assert statuses == {"boxed/status": [status]}


@pytest.mark.parametrize(
    "hostile", [r"\boxed{" * 100_000, r"\boxed{" + "{" * 500_000, r"\boxed{" + "}{" * 250_000 + "4"]
)
def test_boxes_are_read_in_linear_time(hostile):
    with cpu_limit(10):
        Boxed()([hostile])


@pytest.mark.parametrize(
    ("reward", "text"),
    [(Format(), "<think>a</think><answer>4</answer>"), (Boxed(), r"\boxed{4}"), (Format("4+"), "44")],
)
def test_chat_completions_pickling_metrics_and_unused_columns(reward, text):
    columns, metrics = {}, {}
    chat = [[{"role": "assistant", "content": content}] for content in (text, "?", None, text)] + [[]]
    copy = pickle.loads(pickle.dumps(reward))
    values = copy(
        completions=chat,
        prompts=["?"] * 5,
        solution=[None] * 5,
        trainer_state=None,
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert values == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert list(columns) == [f"{reward.__name__}/status"]
    assert set(metrics) == {f"rewards/{reward.__name__}/{status}" for status in REWARDS}
    assert metrics[f"rewards/{reward.__name__}/ok"] == 0.4  # 2 of 5
