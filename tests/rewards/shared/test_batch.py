"""Reading completions and reference answers from TRL's batch, and turning statuses into rewards."""

import pytest

from rewards.shared.batch import completion_text, reference_text, report


def test_the_text_of_a_completion():
    call = {"role": "assistant", "content": None, "tool_calls": []}
    result = {"role": "tool", "content": "the tool's 58"}
    assert completion_text("57") == "57"
    assert completion_text([call, result, {"role": "assistant", "content": "57"}]) == "57"
    assert completion_text([{"role": "assistant", "content": "57"}, result]) == "57"
    # the last message is a tool call without text
    assert completion_text([{"role": "assistant", "content": "57"}, call]) == ""
    assert completion_text([{"role": "assistant", "tool_calls": []}]) == ""
    assert completion_text([result]) == completion_text([]) == ""


@pytest.mark.parametrize(
    ("reference", "text"),
    [(" 7 ", "7"), (7, "7"), (142.0, "142.0"), (1e-7, "0.0000001"), (1e22, "10000000000000000000000"), (None, "")]
    + [(float("inf"), ""), (["7"], "")],
)
def test_the_text_of_a_reference_answer(reference, text):
    assert reference_text(reference) == text


def test_the_reward_of_each_status():
    statuses = ["ok", "wrong", "unparsed", "timeout", "died", "no_gold"]
    assert report("demo", statuses, None, None) == [1.0, 0.0, 0.0, 0.0, 0.0, None]
    assert report("demo", [], None, lambda name, share: None) == []


def test_grader_failures_give_none_up_to_one_percent_and_stop_the_run_above():
    assert report("demo", ["ok"] * 99 + ["infra"], None, None) == [1.0] * 99 + [None]
    with pytest.raises(RuntimeError, match="'demo' could not grade 2 of 100 completions .* Look here."):
        report("demo", ["ok"] * 98 + ["infra"] * 2, None, None, "Look here.")
    with pytest.raises(RuntimeError, match="1 of 8"):
        report("demo", ["ok"] * 7 + ["infra"], None, None)
