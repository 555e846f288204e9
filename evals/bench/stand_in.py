"""A server that stands in for vLLM where vLLM is not installed: it samples with transformers, after a given time.

`python -m evals.bench.stand_in MODEL --port 8000 --seconds 1.5` serves the part of vLLM's API that TRL's client uses.
"""

import argparse
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


class StandIn(ThreadingHTTPServer):
    """Samples the completions of a request from the model, each with a seed of its own.

    Args:
        model: Folder of the model.
        port: Port on this machine; 0 chooses one.
        seconds: Time that a request takes at least.
        at_once: Requests that are answered at the same time; the others wait.
        lora_rank: Largest rank of the adapters that it takes; 0 takes none.
    """

    daemon_threads = True

    def __init__(self, model: str, port: int = 0, seconds: float = 0.0, at_once: int = 512, lora_rank: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.adapters: set[str] = set()
        self.info = {
            "weight_transfer_config": {},
            "model_config": {"logprobs_mode": "processed_logprobs"},
            "lora_config": {"max_lora_rank": lora_rank} if lora_rank else None,
        }
        self.seconds = seconds
        self.slots, self.lock = threading.Semaphore(at_once), threading.Lock()
        self.seen: dict[str, Any] = {"prompts": [], "loads": 0, "loads_while_sampling": 0}
        self._sampling = 0

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """The choices for a request."""
        with self.lock:
            self._sampling += 1
            self.seen["prompts"] += [[*prompt, request.get("seed")] for prompt in request["prompt"]]
        with self.slots:
            begun = time.monotonic()
            with self.lock:
                if request["model"] in self.adapters:
                    self.model.set_adapter(request["model"])
                choices = [choice for prompt in request["prompt"] for choice in self._sample(prompt, request)]
            time.sleep(max(0.0, begun + self.seconds - time.monotonic()))
        with self.lock:
            self._sampling -= 1
        return {"choices": choices}

    @torch.no_grad()
    def _sample(self, prompt: list[int], request: dict[str, Any]) -> list[dict[str, Any]]:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        seed = request.get("seed", random.getrandbits(31))
        generators = [torch.Generator().manual_seed(seed + i) for i in range(request["n"])]
        tokens: list[list[int]] = [[] for _ in generators]
        logps: list[list[float]] = [[] for _ in generators]
        outputs = self.model(torch.tensor([prompt]), use_cache=True)
        past, logits = outputs.past_key_values, outputs.logits[:, -1].expand(len(generators), -1)
        past.batch_repeat_interleave(len(generators))
        for _ in range(request["max_tokens"]):
            logp = (logits.float() / request["temperature"]).log_softmax(-1)  # (n, V)
            drawn = [torch.multinomial(row.exp(), 1, generator=g) for row, g in zip(logp, generators, strict=True)]
            for i, token in enumerate(drawn):
                if not (tokens[i] and tokens[i][-1] in ends):
                    tokens[i].append(int(token))
                    logps[i].append(logp[i, token].item())
            if all(some[-1] in ends for some in tokens):
                break
            logits = self.model(torch.stack(drawn), past_key_values=past, use_cache=True).logits[:, -1]
        return [
            {
                "prompt_token_ids": prompt,
                "token_ids": some,
                "logprobs": {
                    "tokens": [f"token_id:{token}" for token in some],
                    "token_logprobs": values,
                    "top_logprobs": [None] * len(some),
                },
            }
            for some, values in zip(tokens, logps, strict=True)
        ]

    def reload_weights(self, request: dict[str, Any]) -> dict[str, Any]:
        """Replace weights by those of a folder."""
        folder = Path(request["kwargs"]["weights_path"])
        with self.lock:
            self.seen["loads"] += 1
            self.seen["loads_while_sampling"] += self._sampling > 0
            self.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        return {}

    def load_adapter(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load a LoRA adapter from a folder."""
        name, path = request["lora_name"], request["lora_path"]
        with self.lock:
            assert name not in self.adapters, "vLLM answers with status 400"
            self.seen["loads"] += 1
            self.seen["loads_while_sampling"] += self._sampling > 0
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(path, name)
            else:
                self.model = PeftModel.from_pretrained(self.model, path, adapter_name=name)
            self.adapters.add(name)
        return {}

    def unload_adapter(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove an adapter."""
        with self.lock:
            self.adapters.remove(request["lora_name"])
            self.model.delete_adapter(request["lora_name"])
        return {}


@contextmanager
def served(model: str, **options: Any) -> Iterator[StandIn]:
    """Within this context, a thread of this process serves the model. For the options see `StandIn`."""
    server = StandIn(model, **options)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.model = None  # else a thread that ends during the exit of the interpreter would free its tensors


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection open
    server: StandIn

    def do_GET(self) -> None:
        answers = {
            "/health": {},
            "/v1/models": {"data": [{"id": "stand-in"}]},
            "/server_info": {
                "vllm_config": self.server.info,
                "vllm_env": {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": self.server.info["lora_config"] is not None},
            },
            "/seen": self.server.seen,
        }
        self._answer(answers.get(self.path.partition("?")[0]))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        answers: dict[str, Callable[[Any], Any]] = {
            "/v1/completions": self.server.complete,
            "/collective_rpc": self.server.reload_weights,
            "/v1/load_lora_adapter": self.server.load_adapter,
            "/v1/unload_lora_adapter": self.server.unload_adapter,
            "/reset_prefix_cache": lambda request: {},
        }
        self._answer(answers[self.path](body) if self.path in answers else None)

    def _answer(self, content: Any) -> None:
        data = json.dumps(content or {}).encode()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=0.0, help="time that a request takes at least")
    parser.add_argument("--at_once", type=int, default=512, help="requests that are answered at the same time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    server = StandIn(options.model, options.port, options.seconds, options.at_once)
    print(f"stand-in at http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
