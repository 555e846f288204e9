"""`GBPOConfig`: the configuration of GRPO with the options of GBPO and of its speed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from trl import GRPOConfig

from ..core.aggregation import LOSS_TYPES
from ..core.bounds import check_bounds, check_temperature
from ..core.losses import check_loss_options
from ..core.targets import BASELINES
from .passes.speedups import SPEEDUPS, requested_speedups

# Values that TRL itself refuses only after the first generation, or never.
CHOICES = {
    "target_baseline": BASELINES,
    "loss_type": LOSS_TYPES,
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("sequence_mask", "sequence_truncate", "token_mask", "token_truncate"),
}

# Fields of GRPOConfig that change its loss and mean nothing in the bounded-ratio loss.
_REFUSED = {
    "delta": "it caps the ratio, which the bounded loss pulls back; max_log_ratio keeps the ratio finite",
    **dict.fromkeys(("sapo_temperature_neg", "sapo_temperature_pos"), "it belongs to the SAPO loss"),
    **dict.fromkeys(
        ("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"), "it belongs to the VESPO loss"
    ),
}


class GBPOHazard(UserWarning):
    """Settings of GBPO that are allowed and usually a mistake."""


@dataclass
class BaseConfig(GRPOConfig):
    """`trl.GRPOConfig` with the options that both algorithms share.

    Args:
        exact_speedups: Speed-ups that leave the gradient as it is: `["all"]`, `["none"]` or a list of names, for
            debugging. One that is not exact in a run does not act there; the log says why.
        resample_zero_signal_groups: Replace groups without signal by groups of other prompts (DAPO's dynamic sampling).

    Raises:
        TypeError: For a field of an earlier version, with its new name.
    """

    exact_speedups: list[str] = field(
        default_factory=lambda: ["all"],
        metadata={
            "help": "Speed-ups that leave the gradient as it is: all, none, or a list of "
            f"{', '.join(SPEEDUPS)} (for debugging)."
        },
    )
    resample_zero_signal_groups: bool = field(
        default=False,
        metadata={
            "help": "Replace groups without signal by groups of other prompts (DAPO's dynamic sampling), at the cost "
            "of further generations."
        },
    )

    def __new__(cls, *args: Any, **kwargs: Any):
        for name in SPEEDUPS:
            if name in kwargs:
                raise TypeError(renamed_speedup(name))
        return super().__new__(cls)

    def __post_init__(self):
        requested_speedups(self.exact_speedups)  # refuses unknown names
        super().__post_init__()


def renamed_speedup(name: str) -> str:
    """The error for a former field that is now a name in `exact_speedups`."""
    return (
        f"{name} is now a name in exact_speedups: write exact_speedups: none, or list the ones to keep: "
        f"exact_speedups: [{', '.join(other for other in SPEEDUPS if other != name)}]."
    )


@dataclass
class GBPOConfig(BaseConfig):
    """Configuration of `GBPOTrainer`; only what changes from `BaseConfig` and `trl.GRPOConfig` is documented here.

    The bounds are TRL's `epsilon` (below, in (0, 1]) and `epsilon_high` (above, > 0, by default the same). `loss_type`
    names the aggregation over tokens: `"dapo"`, `"grpo"`, `"bnpo"` or `"dr_grpo"`, each with TRL's normaliser. Options
    of GRPO's loss without a meaning here (`delta`, the other loss types and their parameters) raise ValueError.

    Args:
        target_baseline: Baseline of the target ratio in each group: `"median"`, the published method; `"exact"`, the
            optimum with shared ties, whose mean is 1; `"mean"`, the sign of GRPO's advantage.
        target_temperature: T of σ(Ã / T), in units of the advantage; 0 is the sign.
        overshoot_slope: Slope of the loss past the target relative to |A|: 1 is the published loss, 0 is flat there, as
            GRPO's clipped loss is.
        max_log_ratio: The log-ratio is clamped to ± this value, in (0, 80].
        max_tokens_per_micro_batch: Maximum tokens of one forward pass, padding included, a shared prompt counted once.
            By default those of TRL's micro-batch: `per_device_train_batch_size` rows of the widest prompt and
            completion. Needs the speed-up `arrange_rows`.
    """

    target_baseline: str = field(
        default="median",
        metadata={
            "help": "Baseline of the target ratio in each group: 'median' (the published method), 'exact' (the optimum "
            "with shared ties, mean exactly 1) or 'mean' (the sign of GRPO's advantage)."
        },
    )
    target_temperature: float = field(
        default=1e-4,
        metadata={"help": "Temperature T of the target's sigmoid, in units of the advantage; 0 is the sign."},
    )
    overshoot_slope: float = field(
        default=1.0,
        metadata={"help": "Slope of the loss past the target relative to |A|: 1 is the published loss, 0 is flat."},
    )
    max_log_ratio: float = field(
        default=20.0,
        metadata={"help": "The log-ratio is clamped to plus or minus this value, in (0, 80]."},
    )
    max_tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={
            "help": "Maximum tokens of one forward pass, padding included; by default those of TRL's micro-batch."
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
        for name, reason in _REFUSED.items():
            value = getattr(self, name)
            if value != defaults[name]:
                raise ValueError(f"{name}={value!r} would be ignored by GBPO: {reason}. Remove it.")
        if self.num_generations is None or self.num_generations < 2:
            raise ValueError(
                f"num_generations={self.num_generations} gives every completion advantage 0, because a group of one is "
                "its own baseline. Nothing would be learnt. Write at least 2; 8 is usual."
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
                f"exact_speedups={self.exact_speedups!r} leaves out arrange_rows. Add it, or remove one of the two."
            )
        check_bounds(self.epsilon, self.epsilon if self.epsilon_high is None else self.epsilon_high)
        check_temperature(self.target_temperature)
        check_loss_options(self.overshoot_slope, self.max_log_ratio)

    @property
    def updates_per_generation(self) -> float:
        """Optimiser steps taken on each batch of completions."""
        return self.steps_per_generation * self.num_iterations / self.gradient_accumulation_steps

    def hazards(self) -> list[str]:
        """Settings of GBPO that are allowed and usually a mistake, one line each."""
        found = []
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
                f"mean target of a group is near {1 + (high - self.epsilon) / 2:g} instead of 1, which no policy "
                f"can reach. Unequal bounds belong to the {high / (high + self.epsilon):.2g} quantile. Write "
                "target_baseline: exact, which uses it, or equal bounds."
            )
        return found


def reward_scale(value: bool | str) -> str:
    """`scale_rewards` by name; TRL's booleans may arrive as text from a YAML file or a command line."""
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


def _batch_does_not_split(args: GRPOConfig) -> ValueError:
    """TRL's error for a batch that does not hold whole groups, with its numbers and the fix."""
    batch, group = args.generation_batch_size, args.num_generations
    divisors = [d for d in range(2, batch + 1) if batch % d == 0]
    nearest = min(divisors, key=lambda d: abs(d - group), default=2)
    return ValueError(
        f"A generation batch of {batch} completions (per_device_train_batch_size={args.per_device_train_batch_size} × "
        f"{args.world_size} processes × steps_per_generation={args.steps_per_generation}) does not split into groups "
        f"of num_generations={group}. Write num_generations={nearest}, or another per_device_train_batch_size or "
        f"gradient_accumulation_steps whose product is a multiple of {group}."
    )
