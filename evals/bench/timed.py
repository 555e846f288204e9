"""Trainers that time their parts on a fixed generation batch. Used by `train`, `loss` and `generate`."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from gbpo import GBPOConfig, GBPOTrainer
from gbpo.run.models.tiny import character_tokenizer
from gbpo.run.preview.hazards import without_config_warnings

GROUP = 4  # completions per prompt
MICRO_BATCH = 8  # completions

# with these settings, GBPO has the gradient of GRPO
_GRPO_END = {"target_baseline": "mean", "target_temperature": 0.0, "overshoot_slope": 0.0}

# Lognormal completion lengths. With 64 completions, the mean is 115 tokens and the longest has 354.
_MEAN_LENGTH, _SIGMA = 115, 0.521
_PROMPT = (12, 28)  # shortest and longest prompt in tokens
_TOKENS = (6, 100)  # token ids of the character tokenizer without special tokens


@dataclass(frozen=True)
class Case:
    """A generation batch.

    Args:
        lengths: Completion lengths: `"skewed"` (lognormal) or `"uniform"`. Both have a mean of `mean_length` tokens.
        zero_signal: Fraction of the groups whose completions all have the same reward, so that their advantage is 0.
            The number of groups is rounded, so that 80 % of 16 groups are 13 groups.
        completions: Number of completions, a multiple of `MICRO_BATCH`.
        mean_length: Mean completion length in tokens.
        loss_type: TRL's `loss_type`.
        group: Completions per prompt.
    """

    lengths: str = "skewed"
    zero_signal: float = 0.0
    completions: int = 64
    mean_length: int = _MEAN_LENGTH
    loss_type: str = "dapo"
    group: int = GROUP

    @property
    def name(self) -> str:
        groups = "" if self.group == GROUP else f", groups of {self.group}"
        return f"{self.lengths}, {self.zero_signal:.0%} zero-signal{groups}"


@dataclass
class Batch:
    """The fixed completions and rewards of a case. An instance is both `rollout_func` and reward of a trainer."""

    case: Case
    prompt_ids: list[list[int]] = field(init=False)
    completion_ids: list[list[int]] = field(init=False)
    rewards: list[float] = field(init=False)
    __name__ = "fixed_rewards"

    def __post_init__(self):
        rng = random.Random(0)
        rows, case, group = self.case.completions, self.case, self.case.group
        skewed = case.lengths == "skewed"
        prompts = [rng.randint(*_PROMPT) if skewed else sum(_PROMPT) // 2 for _ in range(rows // group)]
        lengths = [case.mean_length] * rows
        if skewed:
            middle = NormalDist(math.log(case.mean_length) - _SIGMA**2 / 2, _SIGMA)
            lengths = [round(math.exp(middle.inv_cdf((i + 0.5) / rows))) for i in range(rows)]
            rng.shuffle(lengths)
        groups = range(rows // group)
        zero_signal = set(rng.sample(groups, round(case.zero_signal * len(groups))))
        texts = [[rng.randrange(*_TOKENS) for _ in range(length)] for length in prompts]
        self.prompt_ids = [texts[number] for number in groups for _ in range(group)]
        self.completion_ids = [[rng.randrange(*_TOKENS) for _ in range(length)] for length in lengths]
        mixed = [[1.0] * right + [0.0] * (group - right) for right in (rng.randint(1, group - 1) for _ in groups)]
        for rewards in mixed:
            rng.shuffle(rewards)
        self.rewards = [0.0 if number in zero_signal else mixed[number][i] for number in groups for i in range(group)]

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        torch.manual_seed(0)  # the trainer shuffles the rows after this
        return {"prompt_ids": self.prompt_ids, "completion_ids": self.completion_ids, "logprobs": None}

    def __call__(self, completions: list[str], **kwargs: Any) -> list[float]:
        return self.rewards

    @property
    def useful(self) -> list[tuple[int, int]]:
        """Numbers of prompt and completion tokens of each row whose group has different rewards."""
        rows, group = range(len(self.rewards)), self.case.group
        groups = [self.rewards[row - row % group : row - row % group + group] for row in rows]
        return [(len(self.prompt_ids[row]), len(self.completion_ids[row])) for row in rows if len(set(groups[row])) > 1]


class Timed:
    """Mixin for a trainer that measures the seconds of its parts by name. A part includes the parts that it calls."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.seconds: defaultdict[str, float] = defaultdict(float)
        super().__init__(*args, **kwargs)

    @contextlib.contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        start = now()
        yield
        self.seconds[part] += now() - start

    def training_step(self, *args, **kwargs):
        with self._clock("step"):
            return super().training_step(*args, **kwargs)  # type: ignore[misc]

    def _prepare_inputs(self, *args, **kwargs):
        with self._clock("prepare"):
            return super()._prepare_inputs(*args, **kwargs)  # type: ignore[misc]

    def _generate(self, *args, **kwargs):
        with self._clock("generate"):
            return super()._generate(*args, **kwargs)  # type: ignore[misc]

    def _calculate_rewards(self, *args, **kwargs):
        with self._clock("rewards"):
            return super()._calculate_rewards(*args, **kwargs)  # type: ignore[misc]

    def optimisation(self) -> float:
        """Seconds of all training steps since the last call, without generation, rewards and optimiser."""
        taken = self.seconds["step"] - self.seconds["generate"] - self.seconds["rewards"]
        self.seconds.clear()
        return taken


class TimedGBPO(Timed, GBPOTrainer):
    """`GBPOTrainer` with timing."""


class TimedGRPO(Timed, GRPOTrainer):
    """TRL's `GRPOTrainer` with timing."""


def now() -> float:
    """Time in seconds after all work of the accelerator is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def random_model(**shape: Any) -> Qwen2ForCausalLM:
    """A random Qwen2 in float32 with 3.4 M parameters. `shape` overrides fields of its configuration."""
    small = {
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    }
    tokenizer = character_tokenizer()
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            **small | shape, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None
        )
    )


def bench_model(quick: bool) -> Qwen2ForCausalLM:
    """The model of the benchmarks, or a smaller one for quick runs."""
    return random_model(hidden_size=64, intermediate_size=192, num_hidden_layers=2) if quick else random_model()


def make_trainer(
    kind: type, model: Any, batch: Batch, folder: str, *, prompts: list[str] | None = None, **config: Any
) -> Any:
    """Make a trainer whose `train()` is one optimiser step on `batch` that leaves the weights unchanged.

    Args:
        kind: Class of the trainer.
        model: The model.
        batch: Completions and rewards.
        folder: Output folder.
        prompts: One prompt per group. If given, the trainer generates its own completions.
        config: Fields of the configuration.
    """
    case = batch.case
    gbpo = issubclass(kind, GBPOTrainer)
    on_gpu = torch.cuda.is_available()
    options = {
        "output_dir": folder,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "optim": "sgd",
        "learning_rate": 0.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_steps": 1,
        "seed": 0,
        "num_generations": case.group,
        "per_device_train_batch_size": MICRO_BATCH,
        "gradient_accumulation_steps": case.completions // MICRO_BATCH,
        "max_completion_length": max(map(len, batch.completion_ids)),
        "loss_type": case.loss_type,
        "activation_checkpointing": False,
        "shuffle_dataset": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **(_GRPO_END if gbpo else {}),
        **config,
    }
    with without_config_warnings():
        trainer = kind(
            model,
            batch,
            (GBPOConfig if gbpo else GRPOConfig)(**options),
            train_dataset=Dataset.from_dict(
                {"prompt": prompts or [str(group) for group in range(case.completions // case.group)]}
            ),
            processing_class=character_tokenizer(),
            rollout_func=None if prompts else batch.rollout,
        )
    trainer.remove_callback(PrinterCallback)
    return trainer
