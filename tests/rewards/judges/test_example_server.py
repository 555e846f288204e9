"""The example server: it grades sums for the reward `judge`, and its command works."""

import asyncio
import json
import subprocess
import sys
import urllib.request

import pytest

from rewards.check import check_server
from rewards.judges import example_server
from rewards.judges.judge import Judge
from tests.rewards.builders import ROOT


@pytest.fixture(scope="module")
def address():
    command = [sys.executable, "-m", "rewards.judges.example_server", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split(" at ")[1].split()[0]
    finally:
        process.kill()
        process.wait()


class _Rows:
    def __getitem__(self, part):
        return {"prompt": ["40+2="], "solution": ["42"]}


def test_it_grades_sums(address):
    reward = Judge(base_url=address, model=example_server.MODEL, template="{prompt} {completion}", cache=None)
    completions = ["42", "52", "41", " 42\n", "4 2", "", "42 or 10", "٤٢"]
    assert asyncio.run(reward(completions, prompts=["40+2="] * 8)) == [1.0, 0.3, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert asyncio.run(reward(["42"], prompts=["What is 40+2?"])) == [0.0]
    assert "gives 1 to the reference answer" in check_server(reward, _Rows())


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b'{"messages": []}', 400),
        ("/v1/score", b"{}", 404),
    ],
)
def test_it_refuses_other_requests(address, path, content, status):
    request = urllib.request.Request(address.removesuffix("/v1") + path, data=content)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == status
    assert "message" in json.loads(caught.value.read())["error"]
