"""`openenv:URL` with the package openenv and a server of its own. `make test-environments` runs these tests."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers.utils import get_json_schema

from gbpo.run import train
from gbpo.run.data.loading import load
from gbpo.run.environments.checks import load_episodes
from gbpo.run.environments.code_word import CodeWord
from gbpo.run.recipe.arguments import RunArguments

HERE = Path(__file__).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", params=["tools", "actions"])
def server(request):
    """The kind of the server, its address and its process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(HERE / "openenv_server.py"), str(port), request.param])
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, "the server has ended"
        time.sleep(0.2)
    yield request.param, f"http://127.0.0.1:{port}", process
    process.kill()
    process.wait()


def episode_on(url):
    run = RunArguments(environment=f"openenv:{url}")
    train_set, _ = load(run, evaluation=False)
    return load_episodes(run, train_set, None, has_rewards=False)[None]()


def code_of(seed):
    word = CodeWord()
    word.reset(seed)
    return word.ask() + word.ask()


def test_an_episode(server):
    kind, url, _ = server
    episode = episode_on(url)
    act = (lambda: episode.ask(), lambda code: episode.answer(code=code))
    if kind == "actions":
        act = (lambda: episode.step(), lambda code: episode.step(code=code))
    ask, answer = act
    assert episode.reset(prompt="", seed=5) == "Find the code."
    letters = ask() + ask()
    assert letters == code_of(5) and episode._reward() == 0.25
    assert answer(letters) == "right" and episode._reward() == 1.25
    assert answer(letters) == "The episode is over." and episode._reward() == 1.25
    episode.reset(prompt="", seed=6)
    assert answer("xx") == "wrong" and episode._reward() == 0.0


def test_the_tools_are_described(server):
    kind, url, _ = server
    episode = episode_on(url)
    name = "answer" if kind == "tools" else "step"
    described = get_json_schema(getattr(episode, name))["function"]
    assert described["parameters"]["properties"]["code"]["type"] == "string"
    assert described["description"] == {"tools": "Answer with the code.", "actions": "Act in the environment."}[kind]
    assert described["parameters"].get("required", []) == (["code"] if kind == "tools" else [])


def test_a_wrong_action_is_an_answer_to_the_model(server):
    kind, url, _ = server
    episode = episode_on(url)
    episode.reset(prompt="", seed=5)
    with pytest.raises(Exception, match="argument|too long") as raised:
        _ = episode.answer(number=3) if kind == "tools" else episode.step(code="x" * 10)
    assert len(str(raised.value)) <= 200
    assert episode._reward() == 0.0


@pytest.mark.parametrize("server", ["tools"], indirect=True)
def test_a_run(server, acting_model, tmp_path):
    """The model knows the tools only."""
    _, url, _ = server
    recipe = HERE.parents[1] / "recipes" / "tiny_environment.yaml"
    flags = ["--model_name_or_path", acting_model, "--environment", f"openenv:{url}", "--max_steps", "2"]
    flags += ["--per_device_train_batch_size", "8", "--logging_steps", "1", "--output_dir", str(tmp_path)]
    train.main([str(recipe), *flags])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["rewards/OpenEnv/broken"] == 0.0 for row in rows)
    assert max(row["rewards/OpenEnv/mean"] for row in rows) > 0
    assert all(row["tools/call_frequency"] > 1 for row in rows)


def test_a_server_that_ends_breaks_the_episode_and_is_refused(server):
    _, url, process = server  # the last test of each server
    episode = episode_on(url)
    episode.reset(prompt="", seed=5)
    process.kill()
    process.wait()
    with pytest.raises(Exception, match="does not answer"):
        _ = episode.ask() if hasattr(type(episode), "ask") else episode.step()
    assert episode._reward() is None
    with pytest.raises(ValueError, match=f"the OpenEnv server at {url} does not answer"):
        episode_on(url)
