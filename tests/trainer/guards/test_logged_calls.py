"""Calls with arguments of several types fit into one table of completions."""

import pandas
import pyarrow
import pytest

from gbpo.trainer.guards.logged_calls import with_text_arguments


def completion(name, arguments):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "name": name, "content": "3"}]


def test_one_table_of_all_calls(tmp_path):
    log = [completion("add", {"a": 1}), completion("add", {"a": "é"}), completion("wait", 5), completion("wait", {})]
    with pytest.raises(pyarrow.ArrowException):
        pandas.DataFrame({"completion": log}).to_parquet(tmp_path / "log.parquet")
    given, before = list(log), str(log)
    for _ in range(2):  # completions that have been converted stay
        log = [with_text_arguments(one) for one in log]
        pandas.DataFrame({"completion": log}).to_parquet(tmp_path / "log.parquet")
        read = [one[0]["tool_calls"][0]["function"] for one in pandas.read_parquet(tmp_path / "log.parquet").completion]
        assert [one["arguments"] for one in read] == ['{"a": 1}', '{"a": "é"}', "5", "{}"]
        assert log[0][1] == completion("add", {})[1]
    assert before == str(given), "the rewards still read the completions as they are"


def test_a_call_of_another_form_has_text_too():
    calls = [{"name": "add", "arguments": {"a": 1}}, {"name": "wait"}]
    assert with_text_arguments([{"role": "assistant", "tool_calls": calls}]) == [
        {"role": "assistant", "tool_calls": [{"name": "add", "arguments": '{"a": 1}'}, {"name": "wait"}]}
    ]


def test_completions_without_calls_stay():
    chat = [{"role": "assistant", "content": "3"}, {"role": "assistant", "content": "", "tool_calls": None}]
    assert with_text_arguments(chat) == chat
    assert with_text_arguments("3") == "3"
