"""Servers that misbehave: each ends in a value after a retry or in an ungraded completion, within bounded time."""

import asyncio
import random
import time

import pytest

from judge_servers import MISBEHAVIOUR, MODEL, serving
from rewards.judges import client
from rewards.judges.client import Client, seconds_until
from rewards.judges.judge import Judge

BATCH = ["BAD", *(f"good {i}" for i in range(19))]  # 1 of 20 completions may stay ungraded


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)


def judge(server, **options):
    given = {"base_url": server.url, "model": MODEL, "template": "{completion}", "cache": None, "timeout": 20}
    return Judge(**given | {"retries": 1} | options)


def patience(case):
    """Seconds for a request: few for a server that uses them up."""
    return 1.0 if case.startswith(("hangs", "drips")) else 20


def grade(reward, completions, **logs):
    return asyncio.run(reward(completions, prompts=["?"] * len(completions), **logs))


@pytest.mark.parametrize("case", MISBEHAVIOUR)
def test_a_server_that_misbehaves_always_leaves_only_that_completion_ungraded(case):
    misbehave, may_pass = MISBEHAVIOUR[case]
    metrics = {}

    def answer(request, body):
        return misbehave(request) if "BAD" in body["messages"][0]["content"] else "10"

    with serving(answer) as server:
        start = time.monotonic()
        rewards = grade(judge(server, timeout=patience(case)), BATCH, log_metric=metrics.__setitem__)
        assert time.monotonic() - start < 10
        assert rewards == [None] + [1.0] * 19
        assert len(server.bodies) == (21 if may_pass else 20)  # only what may pass is asked again
    assert metrics["rewards/judge/infra"] == 1 / 20
    assert metrics["rewards/judge/retries"] == (1 / 20 if may_pass else 0)


@pytest.mark.parametrize("case", [case for case, (_, may_pass) in MISBEHAVIOUR.items() if may_pass])
def test_a_server_that_recovers_gives_a_value(case):
    misbehave, _ = MISBEHAVIOUR[case]
    with serving(lambda request, body: misbehave(request) if len(server.bodies) == 1 else "7") as server:
        assert grade(judge(server, timeout=patience(case)), ["one"]) == [0.7]
        assert len(server.bodies) == 2


def test_a_dead_server_ends_the_run_with_the_reason():
    with serving(None) as server:
        pass
    with pytest.raises(RuntimeError, match="'judge' could not grade 20 of 20 .*The first failure: .*ConnectError"):
        grade(judge(server), BATCH)


def test_a_lost_batch_is_given_up(tmp_path):
    """More than a tenth of the batch has failed: the rest is not asked, so a server that hangs costs bounded time."""
    with serving(lambda request, body: request.send({}, 401)) as server:
        with pytest.raises(RuntimeError, match=r"could not grade 200 of 200 .*status 401.*api_key_env\."):
            grade(judge(server, concurrency=1), [str(i) for i in range(200)])
        assert len(server.bodies) == 21


def test_the_wait_that_a_server_asks_for_is_kept_up_to_a_limit(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    headers = iter([{"Retry_After": "7"}, {"Retry_After": "3600"}, {}, {"Retry_After": "soon"}])

    def answer(request, body):
        given = next(headers, None)
        return "5" if given is None else request.send({}, 429, **given)

    with serving(answer) as server:
        assert grade(judge(server, retries=4), ["one"]) == [0.5]
    assert waits[:2] == [7.0, client.LONGEST_WAIT]
    assert 0.02 <= waits[2] <= 0.04 and 0.04 <= waits[3] <= 0.08  # 0.01 × 2^2 and 0.01 × 2^3, times 0.5 to 1


@pytest.mark.parametrize("asked", ["0", "Sat, 01 Jan 2000 00:00:00 GMT"])
def test_a_server_that_asks_for_no_wait_is_given_time_all_the_same(monkeypatch, asked):
    """Its clock may be late. Without a wait all retries would be used up at once."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(client.asyncio, "sleep", sleep)
    refuse = serving(lambda request, body: request.send({}, 429, Retry_After=asked))
    with refuse as server, pytest.raises(RuntimeError, match="429"):
        grade(judge(server, retries=2), ["one"])
    assert 0.005 <= waits[0] <= 0.01 <= waits[1] <= 0.02


def test_a_date_to_wait_for():
    assert seconds_until("Fri, 01 Jan 2100 00:00:00 GMT") > 1e9
    assert seconds_until("Sat, 01 Jan 2000 00:00:00 GMT") == 0.0
    assert seconds_until("Fri, 01 Jan 99999999999999 00:00:00 GMT") is None


def test_waiting_leaves_the_seeded_generator_alone():
    random.seed(3)
    state = random.getstate()
    with serving(lambda request, body: request.send({}, 500) if len(server.bodies) == 1 else "7") as server:
        grade(judge(server), ["one"])
    assert random.getstate() == state


def test_the_number_of_requests_at_the_same_time_is_limited():
    def answer(request, body):
        time.sleep(0.03)
        return "7"

    with serving(answer) as server:
        grade(judge(server, concurrency=3), BATCH)
        assert server.most_at_once == 3


def test_the_key_is_sent_and_appears_in_no_message(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with serving(lambda request, body: request.send({"error": "wrong key sk-secret"}, 401)) as server:
        reward = judge(server, api_key_env="JUDGE_KEY")
        with pytest.raises(RuntimeError) as caught:
            grade(reward, ["one"])
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "wrong key ***" in str(caught.value)
    assert "sk-secret" not in str(caught.value) + repr(reward)


def test_a_reply_in_time_is_not_cut_off_by_the_number_of_requests():
    """The limit of time is for a request, not for its wait for a free place."""

    def answer(request, body):
        time.sleep(0.15)
        return "7"

    with serving(answer) as server:
        completions = [str(i) for i in range(10)]  # 1.5 seconds in all
        assert grade(judge(server, concurrency=1, retries=0, timeout=1), completions) == [0.7] * 10


def test_requests_without_a_body_are_repeated_too():
    async def models(url):
        async with Client(url, None, 1.0, 2) as opened:
            return await opened.ask("GET", "/models")

    with serving(None) as server:
        assert asyncio.run(models(server.url)) == {"data": [{"id": MODEL}]}
