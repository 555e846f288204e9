"""The vLLM server of a run: waiting for it, its flags, one seed per group, readable errors."""

import json
import random
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trl import GRPOConfig
from trl.generation.vllm_client import VLLMClient

from ...shared.stopping import TrainingStopped

CONCURRENT_REQUESTS = 512  # vLLM queues the groups that it cannot run yet
_SERVER_INFO_SECONDS = 120.0  # the server collects facts about its machine before its first answer

LORA_FLAGS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora --max-lora-rank {rank}"

# Sampling options that TRL's engine has as attributes and its client takes under the same names.
SAMPLING_OPTIONS = (
    "repetition_penalty",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "logprobs",
    "structured_outputs_regex",
    "generation_kwargs",
)

START = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --dtype DTYPE --max-model-len LENGTH "
    '--weight-transfer-config \'{"backend": "nccl"}\' --logprobs-mode processed_logprobs --max-logprobs -1'
)


def server_url(args: GRPOConfig) -> str:
    """The URL of the vLLM server in the configuration."""
    return (args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}").rstrip("/")


def check_server(args: GRPOConfig, lora_rank: int | None = None, *, quantised: bool = False) -> None:
    """Wait until the vLLM server answers, if the recipe uses a server. Only one process of a run calls this.

    Args:
        args: The configuration of the trainer.
        lora_rank: Rank of the adapter; None if all weights are trained.
        quantised: Whether the base model is quantised, so that only its adapter can be sent.

    Raises:
        ValueError: The server did not answer within `vllm_server_timeout` seconds, or lacks a flag that a run needs.
    """
    if not (args.use_vllm and args.vllm_mode == "server"):
        return
    url, end, pause = f"{server_url(args)}/health", time.monotonic() + args.vllm_server_timeout, 0.25
    while True:
        try:
            with urllib.request.urlopen(url, timeout=max(1.0, min(10.0, args.vllm_server_timeout))):
                break
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
    _check_flags(server_url(args), lora_rank, quantised)


def _check_flags(url: str, lora_rank: int | None, quantised: bool) -> None:
    no_weights = "the trained weights cannot be sent to it"
    try:
        with urllib.request.urlopen(f"{url}/server_info?config_format=json", timeout=_SERVER_INFO_SECONDS) as answer:
            info = json.load(answer)
            config = info["vllm_config"]
    except OSError as error:
        if getattr(error, "code", None) != 404:
            raise ValueError(
                f"{url}/server_info does not answer ({error}), so the server's flags are unknown. Read its log, or "
                f"start it with {START}."
            ) from None
        missing, consequence = "VLLM_SERVER_DEV_MODE=1", no_weights
    else:
        if config["weight_transfer_config"] is None:
            missing, consequence = "--weight-transfer-config", no_weights
        elif config["model_config"]["logprobs_mode"] != "processed_logprobs":
            missing, consequence = "--logprobs-mode processed_logprobs", "its log-probs leave out the temperature"
        else:
            _check_lora(url, _lora_config(info), lora_rank, quantised)
            return
    raise ValueError(
        f"The vLLM server at {url} was started without {missing}, so {consequence}. Start it with {START}."
    )


def _lora_config(info: dict[str, Any]) -> dict[str, Any] | None:
    """The server's limits of adapters; None if it takes no adapters from a run."""
    if not info["vllm_env"].get("VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        return None
    limits: dict[str, Any] | None = info["vllm_config"]["lora_config"]
    return limits


def _check_lora(url: str, config: dict[str, Any] | None, rank: int | None, quantised: bool) -> None:
    flags = LORA_FLAGS.format(rank=rank)
    if quantised and config is None:
        raise ValueError(
            f"The vLLM server at {url} takes no adapters, and quantised weights cannot be sent to it. Start it with "
            f"{flags} in addition to its other flags."
        )
    if config is not None and rank is not None and rank > (most := config["max_lora_rank"]):
        raise ValueError(
            f"lora_r={rank}, but the vLLM server at {url} takes adapters of rank {most} at most. Start it with "
            f"--max-lora-rank {rank}."
        )


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
    """TRL's client with one request and one seed per group of completions, and readable errors.

    vLLM gives completion i of a request the seed `seed + i`. If one request held several prompts, they would share the
    same noise. The seeds make a resumed run sample the same completions. What they cost depends on vLLM's model runner,
    by the source of vLLM 0.30:

    - V2, the default on GPUs with Triton: nothing. Its sampler seeds every completion in one kernel, in any case.
    - V1: one small kernel per completion and token, in place of one for the whole batch.

    FlashInfer's sampler does not run in either case, because it cannot return processed log-probs.

    Args:
        client: TRL's client. It provides all attributes that are not defined here.
    """

    def __init__(self, client: VLLMClient):
        self._client = client
        self._outages = 0
        self.stream = random.Random()  # random stream of the current generation
        adapter = client.session.get_adapter(client.base_url)
        adapter.max_retries = adapter.max_retries.new(raise_on_status=False)  # keeps the server's last message
        adapter.init_poolmanager(connections=1, maxsize=CONCURRENT_REQUESTS)
        client.session.hooks["response"].append(self._check_answer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _check_answer(self, response: Any, **_: Any) -> None:
        self._outages += bool(response.raw.retries is not None and response.raw.retries.history)
        if response.status_code >= 400:
            raise TrainingStopped(_refusal(response))

    def was_gone(self) -> bool:
        """Whether a request had to be repeated since the last call of this method."""
        outages, self._outages = self._outages, 0
        return outages > 0

    def generate(
        self, prompts: Any, features: Any = None, *, generation_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """TRL's `generate`, as one request per prompt, which asks for all of its `n` completions."""
        seeds = [self.stream.getrandbits(31) for _ in prompts]

        def ask(group: int) -> dict[str, Any]:
            own = None if features is None else [features[group]]
            return self.ask(prompts[group], seeds[group], features=own, generation_kwargs=generation_kwargs, **options)

        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as executor:
            answers = list(executor.map(ask, range(len(prompts))))
        return {name: [row for answer in answers for row in answer[name]] for name in answers[0]}

    def takes_adapters(self) -> bool:
        """Whether a run can send adapters to the server."""
        answer = self._client.session.get(f"{self._client.base_url}/server_info", params={"config_format": "json"})
        return _lora_config(answer.json()) is not None

    def load_adapter(self, name: str, folder: Path, instead_of: str | None) -> None:
        """Load a LoRA adapter that was saved to a folder, and remove an earlier one."""
        session, url = self._client.session, f"{self._client.base_url}/v1"
        session.post(f"{url}/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})
        if instead_of is not None:
            session.post(f"{url}/unload_lora_adapter", json={"lora_name": instead_of})

    def use_adapter(self, name: str) -> None:
        """Ask for completions of the adapter with this name from now on."""
        self._client.model = name

    def ask(
        self, prompt: Any, seed: int, *, generation_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """TRL's `generate` for one prompt, whose `n` completions have the seeds `seed`, `seed + 1`, …"""
        return self._client.generate(
            prompts=[prompt], generation_kwargs={**(generation_kwargs or {}), "seed": seed}, **options
        )


def _refusal(response: Any) -> str:
    """One line about an answer with an error status: the status, the server's message and the fix."""
    try:
        text = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):  # not an error of vLLM's own
        text = response.text
    text = " ".join(text.split())[:400].rstrip(".") or response.reason
    if "context length" in text or "max_model_len" in text:
        fix = "Restart it with a larger --max-model-len, lower max_completion_length, or leave out long prompts."
    elif response.status_code >= 500:
        fix = (
            f"Read its log, restart it with {START}, then resume this run from its last checkpoint, which sends the "
            "trained weights to the server."
        )
    elif response.url.endswith("/load_lora_adapter"):
        fix = f"The server must see this folder, and be started with {LORA_FLAGS.format(rank='RANK')}."
    elif response.url.endswith("/render"):
        fix = "Prompts with images need one more flag: restart it with --enable-scale-out."
    else:
        fix = f"Check generation_kwargs, and that the server was started with {START}."
    return f"The vLLM server answered {response.url} with status {response.status_code}: {text}. {fix}"
