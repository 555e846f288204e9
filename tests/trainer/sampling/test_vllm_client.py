"""The client of a vLLM server, with a small HTTP server in its place: seeds, outages, errors."""

import copy
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from trl.generation import vllm_client

from gbpo import GBPOConfig
from gbpo.shared.stopping import TrainingStopped
from gbpo.trainer.sampling.vllm_client import SeededClient, check_server, readable_errors


def config(**fields):
    return GBPOConfig("unused", use_cpu=True, bf16=False, num_generations=4, per_device_train_batch_size=8, **fields)


class Server(ThreadingHTTPServer):
    """Answers like vLLM, after `failures` answers with status 503. The token of a completion is its seed."""

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.failures, self.requests = 0, []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self):
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer({"data": [{"id": "tiny"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.requests.append(body)
        choices = []
        for prompt in body.get("prompt", []):
            for i in range(body["n"]):
                logprobs = {"tokens": ["token_id:5"], "token_logprobs": [-1.0], "top_logprobs": [None]}
                seeded = [body["seed"] + i]
                choices.append({"prompt_token_ids": prompt, "token_ids": seeded, "logprobs": logprobs})
        self._answer({"choices": choices})

    def _answer(self, body):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def client(server, monkeypatch):
    """A client of the server that does not wait between retries."""
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
    client = SeededClient(vllm_client.VLLMClient(base_url=server.url))
    adapter = client.session.get_adapter(server.url)
    adapter.max_retries = adapter.max_retries.new(backoff_factor=0)
    client.stream = copy.deepcopy(RNG)
    return client


RNG = random.Random("a stream")
PROMPTS = [[1], [2, 3], [4]]


def test_each_prompt_has_its_own_seed(client, server):
    first, second = (client.generate(prompts=PROMPTS, n=2) for _ in range(2))
    assert first["prompt_ids"] == PROMPTS
    seeds = [ids[0] for ids in first["completion_ids"] + second["completion_ids"]]
    assert len(set(seeds)) == 12
    client.stream = copy.deepcopy(RNG)
    assert client.generate(prompts=PROMPTS, n=2) == first


def test_a_short_outage_is_survived_and_recorded(client, server):
    client.generate(prompts=PROMPTS)
    assert not client.was_gone()
    server.failures = 2
    assert len(client.generate(prompts=PROMPTS)["completion_ids"]) == 3
    assert client.was_gone()
    assert not client.was_gone()


def test_a_server_that_restarts_is_found_again(client, server):
    """The server stops between two requests, and another one starts on its port."""
    client.generate(prompts=PROMPTS[:1])
    port = server.server_port
    server.stop()
    pauses = []

    class Returning(type(client.session.get_adapter(server.url).max_retries)):
        def sleep(self, response=None):
            pauses.append(len(pauses))
            if len(pauses) == 2:
                self.__class__.back = Server(port)

    adapter = client.session.get_adapter(server.url)
    adapter.max_retries = Returning(total=5, allowed_methods=["POST"])
    assert client.generate(prompts=PROMPTS[:1])["prompt_ids"] == PROMPTS[:1]
    Returning.back.stop()
    assert pauses == [0, 1]
    assert client.was_gone()


def test_a_server_that_is_gone_ends_the_run_with_one_line(client, server):
    server.stop()
    with (
        pytest.raises(
            TrainingStopped, match=r"is gone: http://127.0.0.1:\d+/v1/completions failed after all retries"
        ) as error,
        readable_errors(),
    ):
        client.generate(prompts=PROMPTS[:1])
    assert "\n" not in str(error.value)
    assert "vllm serve" in str(error.value) and "last checkpoint" in str(error.value)
    assert requests.exceptions.ConnectionError.__name__ in str(error.value)


def test_a_run_checks_its_server_only_in_server_mode(server):
    check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=server.url))
    check_server(config(use_vllm=True, vllm_mode="colocate"))
    check_server(config(vllm_server_base_url="http://127.0.0.1:1"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:8000"])
def test_a_run_without_its_server_is_refused(url):
    with pytest.raises(ValueError, match=r"No vLLM server answers at .*/health \(waited 0 s: .*vllm serve"):
        check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=url, vllm_server_timeout=0.0))
