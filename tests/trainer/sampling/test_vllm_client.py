"""The client of a vLLM server, with a small HTTP server in its place: flags, seeds, outages, errors."""

import copy
import json
import random
import threading
from contextlib import nullcontext
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
    """Answers like vLLM, after `failures` answers of `failure`. The token of a completion is its seed."""

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.failures, self.requests, self.failure = 0, [], (503, b"")
        self.info = {
            "weight_transfer_config": {"backend": "nccl"},
            "model_config": {"logprobs_mode": "processed_logprobs"},
            "lora_config": None,
        }
        self.env = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": False}
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
        if self.path.startswith("/server_info") and isinstance(self.server.info, int):
            self._answer({"detail": "no information"}, self.server.info)
            return
        self._answer({"data": [{"id": "tiny"}], "vllm_config": self.server.info, "vllm_env": self.server.env})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.server.failures > 0:
            self.server.failures -= 1
            status, content = self.server.failure
            self._send(content, status)
            return
        self.server.requests.append(body)
        choices = []
        for prompt in body.get("prompt", []):
            for i in range(body["n"]):
                logprobs = {"tokens": ["token_id:5"], "token_logprobs": [-1.0], "top_logprobs": [None]}
                seeded = [body["seed"] + i]
                choices.append({"prompt_token_ids": prompt, "token_ids": seeded, "logprobs": logprobs})
        self._answer({"choices": choices})

    def _answer(self, body, status=200):
        self._send(json.dumps(body).encode(), status)

    def _send(self, content, status):
        self.send_response(status)
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


def test_each_group_is_one_request_with_its_own_seed(client, server):
    first, second = (client.generate(prompts=PROMPTS, n=2) for _ in range(2))
    assert first["prompt_ids"] == PROMPTS
    assert sorted(request["prompt"] for request in server.requests) == sorted([prompt] for prompt in PROMPTS * 2)
    assert {request["n"] for request in server.requests} == {2}
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


def refused(client):
    """The line that ends a run whose server refuses a generation."""
    with pytest.raises(TrainingStopped) as error, readable_errors():
        client.generate(prompts=PROMPTS)
    assert "\n" not in str(error.value)
    return str(error.value)


def error_of_vllm(message):
    return json.dumps({"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}).encode()


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 64 tokens.\nHowever, you requested 60 output tokens.",
        "max_tokens=70 cannot be greater than max_model_len=max_total_tokens=64. (parameter=max_tokens, value=70)",
    ],
)
def test_a_prompt_that_does_not_fit_ends_the_run_with_one_line(client, server, text):
    """Both are messages of vLLM 0.30: the second one if the completion alone does not fit."""
    server.failures, server.failure = 99, (400, error_of_vllm(text))
    line = refused(client)
    assert (
        f"The vLLM server answered {server.url}/v1/completions with status 400: {' '.join(text.split()).rstrip('.')}. "
        in line
    )
    assert "--max-model-len" in line and "max_completion_length" in line
    assert not client.was_gone()  # a refusal is not repeated


def test_a_refused_request_ends_the_run_with_one_line(client, server):
    server.failures, server.failure = 99, (422, error_of_vllm("top_k must be -1 or greater"))
    line = refused(client)
    assert "with status 422: top_k must be -1 or greater. Check generation_kwargs" in line and "vllm serve" in line


def test_an_error_that_stays_after_all_retries_is_quoted(client, server):
    server.failures, server.failure = 99, (500, b"EngineCore died")
    line = refused(client)
    assert "with status 500: EngineCore died. Read its log, restart it with " in line
    assert "vllm serve" in line and "last checkpoint" in line
    server.failures, server.failure = 99, (502, b"")
    assert "with status 502: Bad Gateway. " in refused(client)


@pytest.mark.parametrize(
    ("info", "flag"),
    [
        (404, "VLLM_SERVER_DEV_MODE=1"),
        ({"weight_transfer_config": None}, "--weight-transfer-config"),
        ({"model_config": {"logprobs_mode": "raw_logprobs"}}, "--logprobs-mode processed_logprobs"),
    ],
)
def test_a_server_without_a_flag_is_refused(server, info, flag):
    server.info = info if isinstance(info, int) else server.info | info
    with pytest.raises(ValueError, match=f"was started without {flag}, so .* Start it with .*vllm serve") as error:
        check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=server.url))
    assert "\n" not in str(error.value)


def test_a_server_that_does_not_report_its_flags_is_refused(server):
    server.info = 500
    with pytest.raises(ValueError, match=r"server_info does not answer \(HTTP Error 500: .*vllm serve"):
        check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=server.url))


def test_a_run_checks_its_server_only_in_server_mode(server):
    check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=server.url))
    check_server(config(use_vllm=True, vllm_mode="colocate"))
    check_server(config(vllm_server_base_url="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("limits", "updates", "rank", "message"),
    [
        (None, True, 8, "takes no adapters.* Start it with VLLM_ALLOW_.*--max-lora-rank 8 "),
        ({"max_lora_rank": 16}, False, 8, "takes no adapters.* Start it with VLLM_ALLOW_.*--max-lora-rank 8 "),
        ({"max_lora_rank": 16}, True, 32, "lora_r=32, but .* of rank 16 at most.* --max-lora-rank 32"),
        ({"max_lora_rank": 16}, True, 16, None),
    ],
)
def test_a_quantised_model_needs_a_server_for_its_adapter(server, limits, updates, rank, message):
    server.info["lora_config"], server.env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = limits, updates
    args = config(use_vllm=True, vllm_mode="server", vllm_server_base_url=server.url)
    with nullcontext() if message is None else pytest.raises(ValueError, match=message) as error:
        check_server(args, rank, quantised=True)
    assert message is None or "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:8000"])
def test_a_run_without_its_server_is_refused(url):
    with pytest.raises(ValueError, match=r"No vLLM server answers at .*/health \(waited 0 s: .*vllm serve"):
        check_server(config(use_vllm=True, vllm_mode="server", vllm_server_base_url=url, vllm_server_timeout=0.0))
