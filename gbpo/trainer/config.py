"""`GBPOConfig`: the configuration of GRPO with the options of GBPO and of the speedups."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from trl import GRPOConfig

from ..core.aggregation import LOSS_TYPES
from ..core.bounds import check_bound_exponent, check_bounds, check_temperature
from ..core.losses import check_loss_options
from ..core.targets import BASELINES
from .passes.anchor import ANCHORS
from .passes.speedups import SPEEDUPS, requested_speedups

SAMPLING_DTYPES = ("bfloat16", "float16")

# Fields with a fixed set of values. TRL refuses other values only after the first generation, or never.
CHOICES = {
    "target_baseline": BASELINES,
    "loss_type": LOSS_TYPES,
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("sequence_mask", "sequence_truncate", "token_mask", "token_truncate"),
}

# Every field of GRPOConfig that changes its loss is in one of the next two mappings. GBPO supports these.
HONOURED = {
    ("loss_type",): "how the losses of tokens are averaged, as in TRL; the other losses of TRL are refused",
    ("importance_sampling_level",): "one ratio for each token, or one for each completion",
    ("epsilon", "epsilon_high"): "the bounds of the ratio are 1 - epsilon and 1 + epsilon_high",
    ("num_iterations", "steps_per_generation"): "they give the number of optimiser steps on each generation",
    ("max_completion_length",): "dr_grpo divides by it",
    ("temperature",): "completions are sampled, and their log-probs computed, at this temperature",
    ("scale_rewards", "multi_objective_aggregation", "reward_weights"): "rewards become advantages as in TRL, and the "
    "target is computed from the advantages",
    ("beta", "use_bias_correction_kl", "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"): "the KL "
    "divergence to the reference model is the same as in TRL",
    (
        "entropy_coef",
        "use_adaptive_entropy",
        "entropy_coef_min",
        "entropy_coef_max",
        "entropy_coef_delta",
        "entropy_target",
    ): "the entropy bonus is the same as in TRL",
    ("top_entropy_quantile",): "tokens of lower entropy are left out of the policy loss",
    ("off_policy_mask_threshold",): "completions with a negative advantage and a KL above it are left out, as in TRL",
    ("mask_truncated_completions",): "completions that are cut off are left out",
    ("router_aux_loss_coef",): "the loss that balances the experts of a mixture of experts is the same as in TRL",
    (
        "vllm_importance_sampling_correction",
        "vllm_importance_sampling_mode",
        "vllm_importance_sampling_clip_min",
        "vllm_importance_sampling_clip_max",
        "vllm_importance_sampling_cap",
    ): "token losses are multiplied by the ratio of the trainer's and vLLM's probabilities, as in TRL",
}

# These mean nothing in the bounded-ratio loss. `GBPOConfig` refuses them.
REFUSED = {
    "delta": "it caps the ratio, but the bounded loss already pulls the ratio back, and max_log_ratio keeps it finite",
    **dict.fromkeys(("sapo_temperature_neg", "sapo_temperature_pos"), "it belongs to the SAPO loss"),
    **dict.fromkeys(
        ("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"), "it belongs to the VESPO loss"
    ),
}


class GBPOHazard(UserWarning):
    """Settings of GBPO that are allowed and usually a mistake."""


@dataclass(frozen=True)
class Band:
    """The option `difficulty`: the solve rates of the prompts that are preferred.

    Args:
        low: Smallest solve rate inside the band.
        high: Largest solve rate inside the band.
        revisit: Share of the prompts of a generation that are drawn from those with a solve rate outside the band.

    Raises:
        ValueError: A value cannot be used.
    """

    low: float
    high: float
    revisit: float = 0.1

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is refused
                raise ValueError(f"difficulty gives {name}={value!r}, which is not a share. Write a number in [0, 1].")
        if self.low >= self.high:
            raise ValueError(
                f"difficulty gives low={self.low} and high={self.high}, so no prompt would be preferred. Write a low "
                "that is smaller than high, for example {low: 0.1, high: 0.9}."
            )
        if self.revisit == 1:
            raise ValueError(
                f"difficulty gives revisit={self.revisit}, so no prompt inside the band would be used. Write a small "
                "share, for example 0.1."
            )

    @classmethod
    def read(cls, given: Any) -> "Band":
        """The band that the option gives.

        Raises:
            ValueError: The option is not a mapping, has an unknown key or lacks one, or a value cannot be used.
        """
        if not isinstance(given, Mapping):
            raise ValueError(f"difficulty={given!r} is not a mapping. Write {{low: 0.1, high: 0.9}}.")
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise ValueError(
                    f"difficulty={dict(given)} has the key {name!r}, which nothing reads. Write only "
                    f"{', '.join(known)}."
                )
        for name in ("low", "high"):
            if name not in given:
                raise ValueError(f"difficulty={dict(given)} lacks {name}, so it names no band. Write {name} too.")
        return cls(**given)


@dataclass
class BaseConfig(GRPOConfig):
    """`trl.GRPOConfig` with the options that both algorithms share.

    Args:
        optimizer_batch_size: Completions per optimiser step, over all processes. `gradient_accumulation_steps` follows
            from it and the number of processes, and cannot be given as well. So a run takes the same optimiser steps on
            any number of processes. If the batch cannot be split over them, the error names sizes that can.
        gradient_accumulation_steps: TRL's field, if `optimizer_batch_size` is not given.
        exact_speedups: Speed-ups that do not change the gradient: `"all"`, `"none"` or, for debugging, a list of names.
            A speed-up that would change the gradient in a run is turned off there, and the log says why.
        resample_zero_signal_groups: Replace groups without signal by groups of other prompts (DAPO's dynamic sampling).
        difficulty: The band of solve rates that is preferred, for example `{low: 0.1, high: 0.9}`. The solve rate
            of a prompt is the running mean of the first reward that grades it. From the second pass over the training
            set on, only the share `revisit` of each generation (by default 0.1) is drawn from prompts outside the band.
            None, or an empty mapping: the order of prompts does not depend on the rewards.
        ratio_anchor: The policy π0 in the probability ratio ρ = π / π0. With `"trainer"` it is the trainer's policy
            when a generation is first used, so that ρ is exactly 1 in the first optimiser step. With `"sampler"` it is
            the policy that sampled, by the log-probs that vLLM reports. This needs no forward pass for old log-probs,
            and turns `vllm_importance_sampling_correction` off.
        generate_ahead: Number K of generations between sampling and use. Generation n is sampled with the weights after
            the training on generation n - K - 1. A vLLM server samples while the trainer trains. Other engines use the
            same weights, but sampling and training take turns. If K > 0, the options `vllm_importance_sampling_*` also
            correct for stale completions that transformers sampled.
        max_staleness: With `generate_ahead`, completions that are older than this number of optimiser steps are left
            out of the loss. None: no limit.
        sampling_dtype: `"bfloat16"` or `"float16"`: transformers samples in this dtype while the trainer keeps its own.
            The ratios then contain rounding, as with vLLM. This is for studies without vLLM. The options
            `vllm_importance_sampling_*` and `ratio_anchor` act as with vLLM. None: the trainer's dtype.

    Raises:
        TypeError: A field of an earlier version is used. The message gives the new name.
        ValueError: `exact_speedups` or `ratio_anchor` has an unknown name. `difficulty`, `ratio_anchor="sampler"`,
            `generate_ahead`, `max_staleness` or `sampling_dtype` cannot be used with the other options.
            `use_transformers_continuous_batching` is used with `bf16` or `fp16`. `optimizer_batch_size` cannot be split
            over the processes.
    """

    optimizer_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Completions per optimiser step, over all processes; gradient_accumulation_steps follows from it."
        },
    )
    gradient_accumulation_steps: int = field(  # type: ignore[assignment]  # None until `__post_init__`
        default=None,
        metadata={"help": "Micro-batches per optimiser step and process, if optimizer_batch_size is not given."},
    )
    exact_speedups: list[str] = field(
        default_factory=lambda: ["all"],
        metadata={
            "help": "Speed-ups that do not change the gradient: all, none, or (for debugging) a list of "
            f"{', '.join(SPEEDUPS)}."
        },
    )
    resample_zero_signal_groups: bool = field(
        default=False,
        metadata={
            "help": "Replace groups without signal by groups of other prompts (DAPO's dynamic sampling), at the cost "
            "of further generations."
        },
    )
    difficulty: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Prefer prompts whose running solve rate is in a band, for example {low: 0.1, high: 0.9}. The "
            "share `revisit` of each generation, by default 0.1, is drawn from the others."
        },
    )
    ratio_anchor: str = field(
        default="trainer",
        metadata={
            "help": "The policy that the probability ratio starts from: 'trainer' (the trainer's policy when a "
            "generation is first used) or 'sampler' (the log-probs that vLLM reports; no forward pass for old "
            "log-probs)."
        },
    )
    generate_ahead: int = field(
        default=0,
        metadata={
            "help": "Generations between sampling and use. A vLLM server then samples while the trainer trains; other "
            "engines sample in turn."
        },
    )
    max_staleness: int | None = field(
        default=None,
        metadata={
            "help": "With generate_ahead: completions older than this number of optimiser steps are left out of the "
            "loss."
        },
    )

    sampling_dtype: str | None = field(
        default=None,
        metadata={
            "help": "Without vLLM: the dtype in which transformers samples, bfloat16 or float16, for studies of the "
            "rounding that vLLM has."
        },
    )

    def __new__(cls, *args: Any, **kwargs: Any):
        for name in SPEEDUPS:
            if name in kwargs:
                raise TypeError(renamed_speedup(name))
        return super().__new__(cls)

    def __getstate__(self):
        """The state that `training_args.bin` beside a model holds: without the token of the Hub."""
        return vars(self) | {"hub_token": None}

    def __post_init__(self):
        requested_speedups(self.exact_speedups)  # refuses unknown names
        self.difficulty = None if self.difficulty == {} else self.difficulty
        if self.difficulty is not None:
            Band.read(self.difficulty)  # refuses unknown keys and values
        self._generation_batch_given = self.generation_batch_size is not None  # TRL computes it otherwise
        self.gradient_accumulation_steps = self._accumulation_steps()
        if self.activation_checkpointing is None and self.gradient_checkpointing:
            self.activation_checkpointing = True  # TRL sets the old field, and transformers warns about it
        self._check_sampling_dtype()
        self._check_anchor()
        super().__post_init__()
        self._check_ahead()
        precision = next((name for name in ("bf16", "fp16") if getattr(self, name)), None)
        if self.use_transformers_continuous_batching and precision is not None:
            raise ValueError(
                f"use_transformers_continuous_batching=True with {precision}=True: at the first generation TRL would "
                f"round the trained weights to {precision} in place, so that small updates are lost. Write "
                f"use_vllm: true instead, or {precision}: false, which leaves the weights as they are."
            )

    def _check_anchor(self) -> None:
        if self.ratio_anchor not in ANCHORS:
            raise ValueError(f"ratio_anchor={self.ratio_anchor!r} is unknown. Write one of {', '.join(ANCHORS)}.")
        if self.ratio_anchor == "trainer":
            return
        if not self.use_vllm and self.generate_ahead <= 0 and self.sampling_dtype is None:
            raise ValueError(
                "ratio_anchor='sampler' needs the log-probs that vLLM reports, but use_vllm is false. Write use_vllm: "
                "true, or ratio_anchor: trainer, which is the same policy if the trainer samples and generate_ahead is "
                "0."
            )
        defaults = {f.name: f.default for f in fields(self)}
        for name in (f"vllm_importance_sampling_{option}" for option in ("mode", "clip_min", "clip_max")):
            if (value := getattr(self, name)) != defaults[name]:
                raise ValueError(
                    f"{name}={value!r} would be ignored with ratio_anchor='sampler': the ratio then contains the "
                    f"difference between vLLM and the trainer, so nothing is left to correct. Remove {name}, or write "
                    "ratio_anchor: trainer."
                )
        self.vllm_importance_sampling_correction = False

    def _check_sampling_dtype(self) -> None:
        if self.sampling_dtype is None:
            return
        if self.sampling_dtype not in SAMPLING_DTYPES:
            raise ValueError(
                f"sampling_dtype={self.sampling_dtype!r} is unknown. Write one of {', '.join(SAMPLING_DTYPES)}, or "
                "remove it to sample in the trainer's dtype."
            )
        if self.use_vllm:
            raise ValueError(
                f"sampling_dtype={self.sampling_dtype!r} has no effect with use_vllm=True, because vLLM samples. "
                "Remove it."
            )

    def _check_ahead(self) -> None:
        if self.generate_ahead < 0:
            raise ValueError(
                f"generate_ahead={self.generate_ahead} would use completions before they are sampled. Write 0, or the "
                "number of generations between sampling and use; 1 is usual."
            )
        if self.max_staleness is None:
            return
        if not self.generate_ahead:
            raise ValueError(
                f"max_staleness={self.max_staleness} has no effect with generate_ahead=0, where no completion is "
                "sampled ahead. Write generate_ahead: 1, or remove max_staleness."
            )
        least = math.ceil(self.generate_ahead * self.updates_per_generation)
        if self.max_staleness < least:
            raise ValueError(
                f"max_staleness={self.max_staleness} would leave out every completion: with generate_ahead="
                f"{self.generate_ahead} and {self.updates_per_generation:g} optimiser steps per generation they are "
                f"{least} optimiser steps old when they are first used. Write {least} or more, or a smaller "
                "generate_ahead."
            )

    def hazards(self) -> list[str]:
        """Settings that are allowed and usually a mistake, one line each."""
        return [*self._lost_updates(), *self._stale_without_gain()]

    def _stale_without_gain(self) -> list[str]:
        found = []
        if self.generate_ahead and not (self.use_vllm and self.vllm_mode == "server"):
            engine = "vllm_mode='colocate'" if self.use_vllm else "use_vllm=False"
            found.append(
                f"generate_ahead={self.generate_ahead} with {engine}: completions are stale, but the run is not "
                "faster, because only a vLLM server samples while the trainer trains. This setting is for studies. "
                "Write vllm_mode: server, or generate_ahead: 0."
            )
        if self.generate_ahead and self.ratio_anchor == "trainer" and not self.vllm_importance_sampling_correction:
            found.append(
                f"generate_ahead={self.generate_ahead} with ratio_anchor='trainer' and "
                "vllm_importance_sampling_correction=False: nothing corrects for the age of the completions. Remove "
                "vllm_importance_sampling_correction, or write ratio_anchor: sampler."
            )
        return found

    def _lost_updates(self) -> list[str]:
        if self.optimizer_batch_size is not None or not self._generation_batch_given or self.world_size == 1:
            return []
        alone = self.per_device_train_batch_size * self.gradient_accumulation_steps
        together, updates = alone * self.world_size, self.updates_per_generation
        fix = f"optimizer_batch_size: {together} in place of gradient_accumulation_steps to keep {updates:g}"
        if micro_batch := _largest_micro_batch(self, alone, self.world_size):
            smaller = f" and per_device_train_batch_size: {micro_batch}"
            smaller = "" if micro_batch == self.per_device_train_batch_size else smaller
            fix += f", or optimizer_batch_size: {alone}{smaller} to take {updates * self.world_size:g}"
        return [
            f"{self.world_size} processes with gradient_accumulation_steps={self.gradient_accumulation_steps}: "
            f"{updates:g} optimiser steps per generation, of {together} completions each. One process would take "
            f"{updates * self.world_size:g}, of {alone} each. Write {fix}, on any number of processes."
        ]

    @property
    def updates_per_generation(self) -> float:
        """Optimiser steps taken on each batch of completions."""
        return self.steps_per_generation * self.num_iterations / self.gradient_accumulation_steps

    def _accumulation_steps(self) -> int:
        """The given `gradient_accumulation_steps`, or those that make `optimizer_batch_size`; by default 1."""
        size, given = self.optimizer_batch_size, self.gradient_accumulation_steps
        if size is None:
            return 1 if given is None else given
        if given is not None:
            raise ValueError(
                f"optimizer_batch_size={size} and gradient_accumulation_steps={given} both set the size of an "
                "optimiser step, and only one of them would act. Write optimizer_batch_size alone."
            )
        processes = launched_processes()
        together = max(self.per_device_train_batch_size, 1) * processes  # a batch of 0 is refused later
        if size < together or size % together:
            raise _optimizer_batch_does_not_split(self, processes)
        return size // together


def launched_processes() -> int:
    """The number of processes that the launcher started, known before they form a group."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _largest_micro_batch(args: GRPOConfig, size: int, processes: int) -> int | None:
    """The largest `per_device_train_batch_size`, up to the given one, with which `size` completions split evenly.

    None if they do not split over the processes at all.
    """
    whole = math.gcd(size, args.generation_batch_size or size)
    fitting = (n for n in range(args.per_device_train_batch_size, 0, -1) if whole % (n * processes) == 0)
    return next(fitting, None) if size > 0 else None


def _optimizer_batch_does_not_split(args: BaseConfig, processes: int) -> ValueError:
    """The error for an `optimizer_batch_size` that is not a whole number of micro-batches of all processes."""
    size, per_device = args.optimizer_batch_size or 0, args.per_device_train_batch_size
    together = per_device * processes
    multiples = [n for n in (size // together * together, (size // together + 1) * together) if n > 0]
    fixes = [f"optimizer_batch_size={' or '.join(map(str, multiples))}"]
    if smaller := _largest_micro_batch(args, size, processes):
        fixes.insert(0, f"per_device_train_batch_size={smaller}")
    return ValueError(
        f"optimizer_batch_size={size} is not a whole number of micro-batches: per_device_train_batch_size={per_device} "
        f"× {processes} process(es) = {together} completions, so no number of accumulation steps gives it. Write "
        f"{', or '.join(fixes)}."
    )


def renamed_speedup(name: str) -> str:
    """The error for a former field that is now a name in `exact_speedups`."""
    return (
        f"{name} is now a name in exact_speedups: write exact_speedups: none, or list the speed-ups to keep: "
        f"exact_speedups: [{', '.join(other for other in SPEEDUPS if other != name)}]."
    )


@dataclass
class GBPOConfig(BaseConfig):
    """Configuration of `GBPOTrainer`. It documents only what differs from `BaseConfig` and `trl.GRPOConfig`.

    The bounds of the ratio are 1 - `epsilon`, with `epsilon` in (0, 1], and 1 + `epsilon_high`, with `epsilon_high` > 0
    and by default equal to `epsilon`. `loss_type` selects how token losses are averaged: `"dapo"`, `"grpo"`, `"bnpo"`
    or `"dr_grpo"`, as in TRL. Options of GRPO's loss that have no meaning here (`delta`, the other loss types and their
    parameters) raise ValueError.

    Args:
        target_baseline: Baseline that the target subtracts in each group: `"median"`, the published method; `"exact"`,
            the exact optimum of the group, in which tied completions share a target and the mean target is 1, even with
            unequal bounds; `"mean"`, the baseline of GRPO, so that ρ* follows the sign of GRPO's advantage.
        target_temperature: T in the target's σ(Ã / T), in units of the advantage. At 0 the target depends only on the
            sign of Ã.
        overshoot_slope: Slope of the loss past the target, relative to |A|. 1 is the published loss. With 0 the loss is
            flat past the target, as GRPO's clipped loss is.
        bound_exponent: q, in [0, 1]. The bounds of a token's ratio are 1 ± ε · π0^(-q), where π0 is its old
            probability. 0 bounds the ratio, as published. 1 bounds the probability: |π - π0| ≤ ε.
        max_log_ratio: The log-ratio is clamped to ± this value, in (0, 80].
        max_tokens_per_micro_batch: Maximum tokens of one forward pass, including padding. A shared prompt counts once.
            The default is the size of TRL's micro-batch: `per_device_train_batch_size` rows, each as wide as the
            longest prompt and the longest completion together. Needs the speed-up `arrange_rows`.
    """

    target_baseline: str = field(
        default="median",
        metadata={
            "help": "Baseline that the target subtracts in each group: 'median' (the published method), 'exact' (the "
            "optimum in which tied completions share a target and the mean target is 1) or 'mean' (as in GRPO)."
        },
    )
    target_temperature: float = field(
        default=1e-4,
        metadata={
            "help": "Temperature T of the target's sigmoid, in units of the advantage; 0 makes the target a step "
            "function."
        },
    )
    overshoot_slope: float = field(
        default=1.0,
        metadata={
            "help": "Slope of the loss past the target, relative to |A|: 1 is the published loss, with 0 the loss is "
            "flat past the target."
        },
    )
    bound_exponent: float = field(
        default=0.0,
        metadata={
            "help": "q in the bounds 1 ± ε · π0^(-q) of a token's ratio, in [0, 1]: 0 bounds the ratio (the published "
            "method), 1 bounds the probability."
        },
    )
    max_log_ratio: float = field(
        default=20.0,
        metadata={"help": "The log-ratio is clamped to plus or minus this value, in (0, 80]."},
    )
    max_tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={
            "help": "Maximum tokens of one forward pass, including padding; by default the size of TRL's micro-batch."
        },
    )

    def __post_init__(self):
        self._check_options()
        try:
            super().__post_init__()
        except ValueError as error:
            if "divisible by num_generations" in str(error):
                raise _batch_does_not_split(self) from None
            if "global eval batch size" in str(error):
                raise _eval_batch_does_not_split(self) from None
            raise

    def _check_options(self) -> None:
        self.scale_rewards = reward_scale(self.scale_rewards)
        check_choices(self, CHOICES, "GBPO")
        defaults = {f.name: f.default for f in fields(self)}
        for name, reason in REFUSED.items():
            value = getattr(self, name)
            if value != defaults[name]:
                raise ValueError(f"{name}={value!r} would be ignored by GBPO: {reason}. Remove it.")
        if self.num_generations is None or self.num_generations < 2:
            raise ValueError(
                f"num_generations={self.num_generations} gives every completion advantage 0, because the baseline of a "
                "group of one is its own reward. Nothing would be learnt. Write at least 2; 8 is usual."
            )
        if not 0.0 <= self.top_entropy_quantile <= 1.0:
            raise ValueError(
                f"top_entropy_quantile={self.top_entropy_quantile} is not a share of the tokens. Write a value in "
                "[0, 1]; 1 keeps all tokens."
            )
        if self.max_tokens_per_micro_batch is not None and self.max_tokens_per_micro_batch < 1:
            raise ValueError(
                f"max_tokens_per_micro_batch={self.max_tokens_per_micro_batch} leaves no room for a token. Write as "
                "many as fit in memory, for example 16384, or remove it to use the size of TRL's micro-batch."
            )
        if self.max_tokens_per_micro_batch is not None and "arrange_rows" not in requested_speedups(
            self.exact_speedups
        ):
            raise ValueError(
                f"max_tokens_per_micro_batch={self.max_tokens_per_micro_batch} would be ignored, because "
                f"exact_speedups={self.exact_speedups!r} leaves out arrange_rows. Add arrange_rows, or remove one of "
                "the two options."
            )
        check_bounds(self.epsilon, self.epsilon if self.epsilon_high is None else self.epsilon_high)
        check_temperature(self.target_temperature)
        check_bound_exponent(self.bound_exponent)
        check_loss_options(self.overshoot_slope, self.max_log_ratio)

    def hazards(self) -> list[str]:
        """Settings that are allowed and usually a mistake, one line each."""
        found = super().hazards()
        if self.updates_per_generation <= 1:
            found.append(
                "One optimiser step per generation: every ratio is 1 when its loss is computed. epsilon and "
                "target_temperature then have no effect, and GBPO differs from GRPO only where the target and the "
                f"advantage disagree in sign (target_baseline={self.target_baseline!r}; they agree with 'mean', and "
                "with 'exact' for two-valued rewards). To use the bound, set num_iterations above 1, or "
                "steps_per_generation above gradient_accumulation_steps."
            )
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        if high != self.epsilon and self.target_baseline != "exact":
            found.append(
                f"epsilon={self.epsilon} and epsilon_high={high} with target_baseline={self.target_baseline!r}: the "
                f"mean target of a group is near {1 + (high - self.epsilon) / 2:g}, but the mean ratio of any policy "
                f"is 1. With these bounds the right baseline is the {high / (high + self.epsilon):.2g} quantile, not "
                "the median or mean. Write target_baseline: exact, which uses this quantile, or equal bounds."
            )
        if self.ratio_anchor == "sampler" and self.target_baseline == "median":
            found.append(
                "ratio_anchor='sampler' with target_baseline='median': a completion with the median reward has the "
                "target 1, but its ratios differ from 1 by the rounding of vLLM, so its gradient has full size and a "
                "random sign. Write target_baseline: exact, or ratio_anchor: trainer."
            )
        return found


def reward_scale(value: bool | str) -> str:
    """`scale_rewards` as one of TRL's names. TRL also allows booleans, which a command line gives as text."""
    return {"true": "group", "false": "none"}.get(str(value).lower(), str(value))


def check_choices(args: GRPOConfig, choices: Mapping[str, Sequence[str]], algorithm: str) -> None:
    """Raise `ValueError` for the first field of `args` whose value is not one of its choices."""
    for name, known in choices.items():
        value = getattr(args, name)
        if value not in known:
            raise ValueError(f"{name}={value!r} is not known in {algorithm}. Write one of {', '.join(known)}.")


def _eval_batch_does_not_split(args: GRPOConfig) -> ValueError:
    group = args.num_generations_eval or args.num_generations
    batch = args.per_device_eval_batch_size * args.world_size
    multiple = group // math.gcd(group, args.world_size)
    return ValueError(
        f"per_device_eval_batch_size={args.per_device_eval_batch_size} × {args.world_size} processes = {batch} "
        f"completions do not split into groups of {group}. Write a multiple of {multiple}, or another "
        "num_generations_eval."
    )


def _batch_does_not_split(args: BaseConfig) -> ValueError:
    """The error for a generation batch that is not a whole number of groups; it names the sizes and a fix."""
    batch, group = args.generation_batch_size, args.num_generations
    whole = math.lcm(group, args.per_device_train_batch_size * args.world_size)
    other = f"another per_device_train_batch_size or gradient_accumulation_steps whose product is a multiple of {group}"
    if args._generation_batch_given or args.optimizer_batch_size is not None:
        size = "generation_batch_size" if args._generation_batch_given else "optimizer_batch_size"
        other = f"another {size}, which must be a multiple of {whole}"
    divisors = [d for d in range(2, batch + 1) if batch % d == 0]
    nearest = min(divisors, key=lambda d: abs(d - group), default=2)
    return ValueError(
        f"A generation batch of {batch} completions (per_device_train_batch_size={args.per_device_train_batch_size} × "
        f"{args.world_size} processes × steps_per_generation={args.steps_per_generation}) does not split into groups "
        f"of num_generations={group}. Write num_generations={nearest}, or {other}."
    )
