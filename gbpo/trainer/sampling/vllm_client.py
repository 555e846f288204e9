"""The vLLM server of a run: waiting for it, one seed per prompt, readable errors."""

import random
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from trl import GRPOConfig
from trl.generation.vllm_client import VLLMClient

from ...shared.stopping import TrainingStopped

_CONCURRENT_REQUESTS = 64

START = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode processed_logprobs --max-logprobs -1"
)


def server_url(args: GRPOConfig) -> str:
    """The URL of the vLLM server in the configuration."""
    return (args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}").rstrip("/")


def check_server(args: GRPOConfig) -> None:
    """Wait until the vLLM server answers, if the recipe uses a server. Only one process of a run calls this.

    Raises:
        ValueError: The server did not answer within `vllm_server_timeout` seconds.
    """
    if not (args.use_vllm and args.vllm_mode == "server"):
        return
    url, end, pause = f"{server_url(args)}/health", time.monotonic() + args.vllm_server_timeout, 0.25
    while True:
        try:
            with urllib.request.urlopen(url, timeout=max(1.0, min(10.0, args.vllm_server_timeout))):
                return
        except (OSError, ValueError) as error:  # ValueError: not a URL
            reason = getattr(error, "reason", error)
        left = end - time.monotonic()
        if left <= 0:
            raise ValueError(
                f"No vLLM server answers at {url} (waited {args.vllm_server_timeout:g} s: {reason}), so nothing can be "
                f"generated. Start it with {START}, or change vllm_server_base_url or vllm_server_timeout."
            )
        time.sleep(min(pause, left))
        pause = min(2 * pause, 10.0)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Within this context, a vLLM server that no longer answers ends the run with a one-line error.

    Raises:
        TrainingStopped: A request failed after all retries.
    """
    try:
        yield
    except OSError as error:
        if not type(error).__module__.startswith("requests."):
            raise
        asked = getattr(getattr(error, "request", None), "url", None) or "a request"
        raise TrainingStopped(
            f"The vLLM server is gone: {asked} failed after all retries ({type(error).__name__}). Restart it with "
            f"{START}, then resume this run from its last checkpoint, which sends the trained weights to the server."
        ) from None


class SeededClient:
    """TRL's client with one request and one seed per prompt. Prompts in a single request would share the same noise.

    Args:
        client: TRL's client. It provides all attributes that are not defined here.
    """

    def __init__(self, client: VLLMClient):
        self._client = client
        self._outages = 0
        self.stream = random.Random()  # random stream of the current generation
        client.session.hooks["response"].append(self._count_outage)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _count_outage(self, response: Any, **_: Any) -> None:
        self._outages += bool(response.raw.retries is not None and response.raw.retries.history)

    def was_gone(self) -> bool:
        """Whether a request had to be repeated since the last call of this method."""
        outages, self._outages = self._outages, 0
        return outages > 0

    def generate(
        self, prompts: Any, features: Any = None, *, generation_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """TRL's `generate`, as one request per prompt."""
        seeds = [self.stream.getrandbits(31) for _ in prompts]

        def ask(row: int) -> dict[str, Any]:
            return self._client.generate(
                prompts=[prompts[row]],
                features=None if features is None else [features[row]],
                generation_kwargs={**(generation_kwargs or {}), "seed": seeds[row]},
                **options,
            )

        with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as executor:
            answers = list(executor.map(ask, range(len(prompts))))
        return {name: [row for answer in answers for row in answer[name]] for name in answers[0]}
