"""`SyncedGRPOTrainer`: TRL's GRPOTrainer that proves that vLLM samples from the policy it trains."""

import inspect
import math
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from accelerate.utils import set_seed
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from ...shared.stopping import TrainingStopped

logger = get_logger(__name__)

# Largest mean |difference of log-probs| that rounding explains, by the dtype of the engine. Two implementations of one
# model differ by less than 1e-4 in float32, and typically by 1e-3 (small and sure) to 0.05 (large, or a mixture of
# experts) in the half precisions; a bfloat16 engine under a float32 trainer by 0.02 and more, weights that never
# arrive by 0.2 after an update of some size.
TOLERANCE = {torch.float32: 0.01, torch.float16: 0.1, torch.bfloat16: 0.1}
_FLOOR = 0.01  # of the tolerance: below it a growing difference is no sign of anything
# With the embedded model a synced bfloat16 engine stayed between 0.005 and 0.0075 for ten generations, whatever the
# movement; an engine without the weights showed 0.7 to 1.1 of the movement at every sync, at both learning rates tried.
_FACTOR = 5  # what is this many times another is not the same by chance
_MISSING = 0.05  # a gap of this part of the movement: some of the weights arrive, or their rounded values
_CONCURRENT_REQUESTS = 64

_START = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode processed_logprobs --max-logprobs -1"
)

# Arguments of vLLM's sampler that may stand in generation_kwargs and keep the policy as it is.
_UNBIASED = {"stop", "stop_token_ids", "include_stop_str_in_output", "max_tokens", "detokenize", "skip_special_tokens"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, -1, None),
    "min_p": (0.0, None),
    "typical_p": (1.0,),
    "repetition_penalty": (1.0,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
}


def biased_sampling(args: GRPOConfig) -> str | None:
    """A warning when the completions come from another distribution than the policy that is trained, else None.

    Training computes π(token) over the whole vocabulary at `temperature`. Where the sampler changes the distribution
    beyond that, a token was drawn more often than the ratio believes, and the tokens it left out are never corrected.
    """
    sampler = {
        "top_p": args.top_p,
        "top_k": args.top_k,
        "min_p": args.min_p,
        "repetition_penalty": args.repetition_penalty,
        "vllm_structured_outputs_regex": args.vllm_structured_outputs_regex,
        **(args.generation_kwargs or {}),
    }
    neutral = _NEUTRAL | {"temperature": (args.temperature,), "do_sample": (True,)}
    changed = [
        f"{name}={value!r}"
        for name, value in sampler.items()
        if name not in _UNBIASED and value is not None and value not in neutral.get(name, ())
    ]
    if not changed:
        return None
    return (
        f"{', '.join(changed)}: completions are sampled from another distribution than the policy that is trained, so "
        "that every ratio is biased. Write top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 and leave out "
        "structured outputs and other sampling options."
    )


def check_sampling(args: GRPOConfig) -> None:
    """Raise `ValueError` where a seed among the sampling options would take the place of the trainer's."""
    if args.use_vllm and "seed" in (args.generation_kwargs or {}):
        raise ValueError(
            f"generation_kwargs has seed={args.generation_kwargs['seed']!r}: every prompt of every generation would "
            "be sampled with the same noise. Remove it; the trainer's own seed reaches the sampler."
        )


def server_url(args: GRPOConfig) -> str:
    """Where the vLLM server is to answer."""
    return (args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}").rstrip("/")


def check_server(args: GRPOConfig) -> None:
    """Wait for the vLLM server of the recipe, if it has one; one process of a run calls this.

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
                f"No vLLM server answers at {url} (waited {args.vllm_server_timeout:g} s: {reason}), and nothing "
                f"could be generated. Start it with {_START}, or write its vllm_server_base_url or a longer "
                "vllm_server_timeout."
            )
        time.sleep(min(pause, left))
        pause = min(2 * pause, 10.0)


def engine_dtype(weights: torch.dtype, mixed_precision: str) -> torch.dtype:
    """The dtype in which the trainer computes: that of mixed precision, or else of the weights."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision, weights)


@dataclass
class Canary:
    """Judges by log-probs whether the weights of the engine follow the trainer's.

    The first sync proves little, for the engine itself loaded the weights that it is sent. From the second on, the
    completions of the first generation tell what would be seen if nothing arrived: how far the trainer's log-probs of
    them have moved since. A gap that stays far below that is the proof.
    """

    first_gap: float = 0.0  # mean |engine - trainer| of the log-probs, after the first sync
    batch: dict[str, Any] | None = None  # what the policy has moved away from, with old_per_token_logps
    proven: bool = False

    def judge(self, gap: float, movement: float, tolerance: float, biased: bool) -> bool:
        """False where the run must end; sets `proven` where nothing more needs to be compared.

        Args:
            gap: Mean |engine - trainer| of the log-probs of the tokens that the engine has just sampled.
            movement: Mean |now - then| of the trainer's own log-probs of the first generation.
            tolerance: The largest gap that rounding explains.
            biased: The sampler has another distribution by design, so that only the growth of the gap tells.
        """
        floor = _FLOOR * tolerance
        grown = gap > _FACTOR * max(self.first_gap, floor)
        self.proven = not grown and movement > _FACTOR * max(gap, floor)
        return not (grown and gap > _MISSING * movement) and (biased or gap <= tolerance)


class SeededClient(VLLMClient):
    """TRL's client, whose prompts have each a seed of their own, and whose last retry ends in one clear line."""

    stream: random.Random  # of the generation in progress

    def __init__(self, *args, **kwargs):
        self._outages = 0
        super().__init__(*args, **kwargs)
        self.session.hooks["response"].append(self._count_outage)

    def _count_outage(self, response, **_):
        self._outages += bool(response.raw.retries is not None and response.raw.retries.history)

    def was_gone(self) -> bool:
        """Whether a request had to be repeated since the last call."""
        outages, self._outages = self._outages, 0
        return outages > 0

    def _post(self, url: str, **kwargs) -> dict:
        try:
            return super()._post(url, **kwargs)
        except OSError as error:  # what requests raises when its retries are used up
            retries = self.session.get_adapter(url).max_retries
            raise TrainingStopped(
                f"The vLLM server at {self.base_url} is gone: {url.removeprefix(self.base_url)} failed "
                f"{retries.total + 1} times with growing pauses ({type(error).__name__}). Restart it with {_START}; "
                "it will not have the trained weights, which the run sends when it goes on from its last checkpoint."
            ) from None

    def generate(self, prompts, features=None, *, generation_kwargs=None, **options):
        """TRL's, by one request a prompt: a request has one seed, and prompts that shared it would share its noise."""
        seeds = [self.stream.getrandbits(31) for _ in prompts]
        one = super().generate

        def ask(row: int) -> dict[str, Any]:
            return one(
                prompts=[prompts[row]],
                features=None if features is None else [features[row]],
                generation_kwargs={**(generation_kwargs or {}), "seed": seeds[row]},
                **options,
            )

        with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as executor:
            answers = list(executor.map(ask, range(len(prompts))))
        return {name: [row for answer in answers for row in answer[name]] for name in answers[0]}


@contextmanager
def random_state(seed: int, device: torch.device) -> Iterator[None]:
    """All random states that a colocated engine draws from, seeded inside and as before outside."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _replaced(module: Any, **members: Any) -> Iterator[None]:
    """A module with other members inside than outside."""
    before = {name: vars(module)[name] for name in members if name in vars(module)}
    vars(module).update(members)
    try:
        yield
    finally:
        for name in members:
            del vars(module)[name]
        vars(module).update(before)


def _policy_mask(batch: dict[str, Any]) -> torch.Tensor:
    """The tokens that the policy sampled, (B, T)."""
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


class SyncedGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer whose vLLM engine has the trainer's dtype, seed and weights; without vLLM it is TRL's.

    - A colocated engine computes in the trainer's dtype. (TRL leaves it to the checkpoint.)
    - Samples depend on `args.seed`, the optimiser step, the rank and nothing before: two seeds are two samples, and a
      resumed run draws what the uninterrupted one would have drawn.
    - From the first sync of the weights on, the engine's log-probs of the tokens it sampled are compared with the
      trainer's, until the difference is proven to be far smaller than weights that never arrived would show; where it
      is larger than rounding, the run ends with `TrainingStopped`. The proof is made again after a server was gone.
    - The part of the tokens or sequences that the sampling-vs-training correction masks or truncates is logged.
    """

    def __init__(self, *args, **kwargs):
        llm: Any = getattr(vllm_generation, "LLM", None)  # absent where vLLM is not installed

        def start_engine(**options):
            dtype = engine_dtype(self.model.dtype, self.accelerator.mixed_precision)
            return llm(dtype=str(dtype).removeprefix("torch."), **options)

        # TRL builds engine and client from these names and takes neither a dtype nor a client
        with _replaced(vllm_generation, LLM=start_engine, VLLMClient=SeededClient):
            super().__init__(*args, **kwargs)
        self._canary = Canary()
        self._generations: Counter[tuple[int, str]] = Counter()  # by optimiser step and mode
        if self.use_vllm:
            set_seed(self.args.seed, device_specific=True)  # as TRL did, before a colocated engine set its own

    @property
    def _server(self) -> "SeededClient | None":
        """The client of the vLLM server, on the process that has it."""
        return getattr(self.vllm_generation, "vllm_client", None) if self.use_vllm else None

    def _generate(self, prompts):
        if not self.use_vllm:
            return super()._generate(prompts)
        mode = "train" if self.model.training else "eval"
        place = (self.state.global_step, mode)
        # the processes of one tensor-parallel group sample the same prompts together
        replica = self.accelerator.process_index // self.args.vllm_tensor_parallel_size
        stream = random.Random(f"{self.args.seed} {place} {self._generations[place]} {replica}")
        self._generations[place] += 1
        if self._server is not None:
            self._server.stream = stream
        with random_state(stream.getrandbits(31), self.accelerator.device):
            return super()._generate(prompts)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.use_vllm and "sampling_per_token_logps" in output:
            if self.vllm_importance_sampling_correction:
                self._log_correction(output)
            if self.model.training:
                self._check_weights(output)
        return output

    def _log_correction(self, output: dict[str, Any]) -> None:
        """The part of the importance ratios outside the clip range, of tokens or of sequences as the mode has it."""
        level, action = self.vllm_importance_sampling_mode.split("_")
        mask = _policy_mask(output)
        log_ratio = ((output["old_per_token_logps"] - output["sampling_per_token_logps"]) * mask).nan_to_num(nan=0.0)
        if level == "sequence":
            log_ratio, mask = log_ratio.sum(-1), mask.any(-1)
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        ratio = log_ratio.exp()
        outside = (ratio < (-math.inf if low is None else low)) | (ratio > (math.inf if high is None else high))
        fraction = self._mean(outside.float(), mask)
        done = {"mask": "masked", "truncate": "truncated"}[action]
        self._metrics["train" if self.model.training else "eval"][f"gbpo/vllm_{done}_fraction"].append(fraction)

    def _check_weights(self, output: dict[str, Any]) -> None:
        """Give the canary one generation of the engine; raise `TrainingStopped` on all processes where it dies."""
        canary = self._canary
        if self.args.vllm_mode == "server":
            gone = self._server is not None and self._server.was_gone()
            if self.accelerator.reduce(torch.tensor(float(gone), device=self.accelerator.device)).item():
                canary.proven = False
        if canary.proven:
            return
        logps = output["old_per_token_logps"] if "old_per_token_logps" in output else self._policy_logps(output)
        gap = self._mean((logps - output["sampling_per_token_logps"]).abs(), _policy_mask(output))
        if canary.batch is None:
            canary.first_gap, movement = gap, 0.0
            canary.batch = self._first_rows({**output, "old_per_token_logps": logps})
        else:
            moved = self._policy_logps(canary.batch) - canary.batch["old_per_token_logps"]
            movement = self._mean(moved.abs(), _policy_mask(canary.batch))
        self._metrics["train"]["gbpo/vllm_logp_gap"].append(gap)
        self._metrics["train"]["gbpo/vllm_logp_movement"].append(movement)
        dtype = engine_dtype(self.model.dtype, self.accelerator.mixed_precision)
        alive = canary.judge(gap, movement, TOLERANCE[dtype], biased_sampling(self.args) is not None)
        if not alive:
            raise TrainingStopped(self._diagnosis(gap, movement, dtype))
        if canary.proven:
            logger.info(
                f"vLLM has the trained weights: its log-probs differ by {gap:.2g} from the trainer's, where weights "
                f"that never arrived would differ by {movement:.2g} (step {self.state.global_step})."
            )

    def _diagnosis(self, gap: float, movement: float, dtype: torch.dtype) -> str:
        numbers = (
            f"vLLM does not sample from the policy being trained: at step {self.state.global_step} its log-probs of "
            f"the tokens it sampled differ from the trainer's by {gap:.2g} on average, where {dtype} explains "
            f"{TOLERANCE[dtype]:g} at most; they differed by {self._canary.first_gap:.2g} at first, and the policy has "
            f"moved by {movement:.2g} since."
        )
        if self.args.vllm_mode == "colocate":
            mend = "The weight sync does not reach the engine: use a vLLM version that TRL supports, or use_vllm: false"
        else:
            mend = (
                f"The server at {server_url(self.args)} serves another model or dtype (--dtype "
                f"{str(dtype).removeprefix('torch.')}), lacks --logprobs-mode processed_logprobs, was restarted since, "
                "or did not get the weights: restart it before this run goes on from its last checkpoint"
            )
        return f"{numbers} {mend}."

    def _policy_logps(self, batch: dict[str, Any]) -> torch.Tensor:
        """The trainer's log-probs of the completions of a batch, (B, T), without a trace in any random state."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        read = inspect.signature(self._get_per_token_logps_and_entropies).parameters
        images = {name: value for name, value in batch.items() if name in read}
        with torch.no_grad(), random_state(self.args.seed, self.accelerator.device):
            return self._get_per_token_logps_and_entropies(
                self.model,
                ids,
                mask,
                batch["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                **images,
            )[0]

    def _first_rows(self, output: dict[str, Any]) -> dict[str, Any]:
        """The rows of the first micro-batch, as TRL splits them."""
        chunks = split_tensor_dict(split_pixel_values_by_grid(output), self.args.steps_per_generation)
        return unsplit_pixel_values_by_grid(chunks[0])

    def _mean(self, values: torch.Tensor, mask: torch.Tensor) -> float:
        """Mean over the masked entries of all processes; NaN entries, which vLLM could not score, do not count."""
        mask = mask.bool() & ~values.isnan()
        sums = torch.stack([values[mask].double().sum(), mask.sum().double()]).float()
        total, count = self.accelerator.reduce(sums, reduction="sum").tolist()
        return total / max(count, 1.0)
