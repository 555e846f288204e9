"""The reward `judge`: grades, options, what is asked only once, what is logged, and the check before a run."""

import asyncio
import json
import pickle
import subprocess
import sys

import pytest

from judge_servers import MODEL, chat, serving
from rewards import get_reward
from rewards.check import check_server, failing_references
from rewards.judges.judge import Judge, read_field, read_number
from tests.rewards.builders import ROOT

GOOD = {"base_url": "http://127.0.0.1:9/v1", "model": MODEL, "template": "{completion}", "cache": None}


def judge(server, **options):
    return Judge(**GOOD | {"base_url": server.url, "retries": 0} | options)


def grade(reward, completions, **columns):
    return asyncio.run(reward(completions, **{"prompts": ["?"] * len(completions)} | columns))


@pytest.mark.parametrize(
    ("reply", "options", "value"),
    [
        ("10", {}, 1.0),
        (" 0\n", {}, 0.0),
        ("2.5", {}, 0.25),
        ("3", {"scale": [1, 5]}, 0.5),
        ("-1", {"scale": [-1, 1]}, 0.0),
        ('{"score": 4}', {"field": "score", "scale": [0, 5]}, 0.8),
        ('{"why": {"score": 1}, "score": 10.0}', {"field": "score"}, 1.0),
    ],
)
def test_a_reply_becomes_a_value(reply, options, value):
    with serving(lambda request, body: reply) as server:
        assert grade(judge(server, **options), ["text"]) == [value]


@pytest.mark.parametrize(
    "text", ["", "7 ", "７", "1e1", "0x7", "7,5", "7/10", "seven", "**7**", "nan", "inf", "7\n8", "1_0", "٣"]
)
def test_what_is_no_number(text):
    assert read_number(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("7", "", "[7]", '[["score", 7]]', '"score"', '{"grade": 7}', '{"score": "7"}', '{"score": null}'),
        *('{"score": true}', '{"score": [7]}', '{"score": NaN}', '{"score": Infinity}', '{"score": 1e999}'),
        *('{"score": 7', 'Score: {"score": 7}', '{"score": 7} done', '```json\n{"score": 7}\n```'),
        '{"score": 0, "score": 10}',  # a judge that repeats what a completion wrote
        '{"score": ' + "9" * 400 + "}",
        '{"score": ' + "[" * 100_000,
    ],
)
def test_what_is_no_field(text):
    assert read_field(text, "score") is None


def test_the_judge_reads_what_the_template_names():
    prompt = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1="}]
    prompt[1]["content"] = [{"type": "image"}, {"type": "text", "text": "1+1="}]
    completion = [{"role": "assistant", "content": None}, {"role": "assistant", "content": "2"}]
    with serving(lambda request, body: "3") as server:
        reward = judge(server, template="Q {prompt} A {completion}", scale=[0, 4], max_tokens=9)
        assert grade(reward, [completion], prompts=[prompt], solution=["secret"]) == [0.75]
        (body,) = server.bodies
    (message,) = body.pop("messages")
    assert body == {"model": MODEL, "temperature": 0, "max_tokens": 9}
    assert "\nsystem: Add.\nuser: 1+1=\n" in message["content"] and "\n2\n" in message["content"]
    assert "secret" not in message["content"]
    assert message["content"].endswith("Reply with a number from 0 to 4 and nothing else.")


def test_a_missing_reference_answer_is_not_graded():
    with serving(lambda request, body: "10") as server:
        reward = judge(server, template="{completion} {solution}")
        assert grade(reward, ["a", "b", "c"], solution=["a", None, " "]) == [1.0, None, None]
        assert len(server.bodies) == 1
        assert failing_references(reward, {"prompt": ["?"] * 2, "solution": ["a", None]}) == [(1, "no_gold")]
        assert failing_references(judge(server), {"prompt": ["?"] * 2}) == []
        with pytest.raises(ValueError, match=r"\{solution\}, but the data set has prompt, answer\. .*answer: solution"):
            failing_references(reward, {"prompt": ["?"], "answer": ["a"]})


# ---------------------------------------------------------------------------------------------------------------------
# asked once
# ---------------------------------------------------------------------------------------------------------------------


def test_equal_completions_are_asked_once_and_the_metrics_tell():
    metrics = {}
    with serving(lambda request, body: chat("10" if "good" in body["messages"][0]["content"] else "5")) as server:
        batch = ["good", "bad", "good", "good"]
        assert grade(judge(server), batch, log_metric=metrics.__setitem__) == [1.0, 0.5, 1.0, 1.0]
        assert len(server.bodies) == 2
    assert metrics.pop("rewards/judge/seconds") > 0
    shares = {"ok": 3 / 4, "wrong": 1 / 4, "reused": 2 / 4, "tokens": 14 / 4, "retries": 0}
    zeros = dict.fromkeys(("unparsed", "timeout", "died", "no_gold", "infra"), 0)
    assert metrics == {f"rewards/judge/{name}": share for name, share in (shares | zeros).items()}


def test_a_kept_reply_is_not_asked_again(tmp_path):
    """By another process at another address too, but not for another model, template, scale or completion."""
    with serving(lambda request, body: "4") as server:
        options = {"cache": str(tmp_path / "kept"), "template": "Rate {completion}"}
        assert grade(judge(server, **options), ["a", "b"]) == [0.4, 0.4]
        assert len(server.bodies) == 2
        assert grade(judge(server, **options), ["b", "a"]) == [0.4, 0.4]
        assert len(server.bodies) == 2
        grade(judge(server, **options), ["c"])
        grade(judge(server, **options | {"scale": [0, 5]}), ["a"])
        grade(judge(server, **options | {"template": "Grade {completion}"}), ["a"])
        grade(judge(server, **options | {"model": "other"}), ["a"])
        assert len(server.bodies) == 6
    code = (
        "import asyncio, sys\nfrom rewards.judges.judge import Judge\n"
        f"reward = Judge(**{GOOD | options})\n"  # nothing answers at this address
        "print(asyncio.run(reward(['a', 'b'], prompts=['?', '?'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0.4, 0.4]"


def test_a_reply_without_a_grade_is_not_kept(tmp_path):
    replies = iter(["I think 7", "7"])
    with serving(lambda request, body: next(replies)) as server:
        reward = judge(server, cache=str(tmp_path))
        with pytest.raises(RuntimeError, match="the judge replied 'I think 7', but was told: Reply with a number"):
            grade(reward, ["a"])
        assert grade(reward, ["a"]) == [0.7]


# ---------------------------------------------------------------------------------------------------------------------
# options and the check before a run
# ---------------------------------------------------------------------------------------------------------------------

WRONG = {
    "no address": ({"base_url": "localhost:8000/v1"}, "'localhost:8000/v1' is not an address"),
    "another protocol": ({"base_url": "ftp://host/v1"}, "'ftp://host/v1' is not an address"),
    "port out of range": ({"base_url": "http://host:99999/v1"}, "'http://host:99999/v1' is not an address"),
    "address of the requests": ({"base_url": "http://h/v1/chat/completions/"}, r"Write http://h/v1\."),
    "password in the address": ({"base_url": "https://me:secret@host/v1"}, r"for host contains a password"),
    "key in the address": ({"base_url": "https://host/v1?key=secret"}, r"for host contains a password, a query"),
    "no model": ({"model": ""}, "model='' names no model"),
    "template without a completion": ({"template": "Rate {prompt}"}, r"'Rate \{prompt\}' has no \{completion\}"),
    "missing file": ({"template": "nowhere.txt"}, "'nowhere.txt' has no .* and is not a file"),
    "empty template": ({"template": ""}, "template='' has no"),
    "unknown placeholder": ({"template": "{completion} {answer}"}, r"\{answer\}.* Write one of \{prompt\}"),
    "scale of one number": ({"scale": [5]}, r"scale=\[5\] is not a lowest and a highest"),
    "scale of a number": ({"scale": 10}, r"scale=10 is not a lowest and a highest"),
    "scale of text": ({"scale": ["0", "10"]}, r"scale=\['0', '10'\] is not a lowest and a highest"),
    "scale upside down": ({"scale": [10, 0]}, r"scale=\[10, 0\]"),
    "endless scale": ({"scale": [0, float("inf")]}, r"scale=\[0, inf\]"),
    "empty field": ({"field": " "}, "field=' ' is not a key"),
    "no requests": ({"concurrency": 0}, "concurrency=0 would send no request"),
    "negative retries": ({"retries": -1}, "retries=-1"),
    "half a retry": ({"retries": 1.5}, r"retries=1\.5"),
    "no time": ({"timeout": 0}, "timeout=0 is not a time"),
    "endless time": ({"timeout": float("inf")}, "timeout=inf"),
    "no room": ({"max_tokens": 0}, "max_tokens=0"),
    "key that is not set": ({"api_key_env": "NO_SUCH_KEY"}, "'NO_SUCH_KEY' is not set"),
    "text for a number": ({"timeout": "long"}, "Write values of other types"),
    "number for an address": ({"base_url": 8000}, "base_url=8000 is not an address"),
    "number for a model": ({"model": 7}, "model=7 names no model"),
    "number for a template": ({"template": 7}, "Write values of other types"),
    "number for a folder": ({"cache": 7}, "Write values of other types"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_refused_in_one_line(case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        get_reward("judge", **GOOD | options)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_key_with_a_line_break_is_refused(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "two\nlines")
    with pytest.raises(ValueError, match="characters that a header cannot carry") as caught:
        Judge(**GOOD, api_key_env="JUDGE_KEY")
    assert "two" not in str(caught.value)


def test_it_pickles_and_has_the_default_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reward = Judge(base_url="http://h/v1/", model="m", template="{completion}")
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert reward.cache == str(tmp_path / "gbpo" / "judges") and reward.base_url == "http://h/v1"


ROWS = {"prompt": ["1+1=", "1+2="], "solution": ["2", "3"]}


class Rows:
    def __getitem__(self, part):
        return {name: values[part] for name, values in ROWS.items()}


def test_the_check_asks_for_the_models_and_one_score():
    with serving(lambda request, body: "8") as server:
        line = check_server(judge(server), Rows())
        assert line == f"{MODEL} at {server.url} gives 0.8 to the reference answer of the first row"
        (body,) = server.bodies
        assert "\n2\n" in body["messages"][0]["content"]
    assert check_server(get_reward("exact_match"), Rows()) is None


CHECKS = {
    "another model": ({"model": "missing"}, "10", f"model='missing' is not one of the models there: {MODEL}"),
    "no grade": ({}, "Seven.", "the judge replied 'Seven.', but was told"),
    "wrong address": ({"base_url": "v2"}, "10", "status 404: '{}'. The address or the model does not exist"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_the_check_says_in_one_line_why_a_run_would_fail(case):
    options, reply, message = CHECKS[case]
    with serving(lambda request, body: reply) as server:
        if "base_url" in options:
            options = {"base_url": f"{server.root}/{options['base_url']}"}
        with pytest.raises(ValueError) as caught:
            check_server(judge(server, **options), Rows())
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("The reward 'judge' cannot grade: ")


def test_a_service_that_lists_no_models_is_asked_for_a_score():
    with serving(lambda request, body: "8") as server:
        server.models = ["another form"]
        assert "gives 0.8" in check_server(judge(server), Rows())


def test_the_body_is_json_for_any_text():
    """Lone surrogates and null characters of a broken decoder."""
    with serving(lambda request, body: "8") as server:
        assert grade(judge(server), ["\ud800 \x00 \u2028 é"]) == [0.8]
        assert json.dumps(server.bodies)
