"""`GBPOConfig`: the configuration of GRPO plus what GBPO adds, to its loss and to its speed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from trl import GRPOConfig

from ..core.bounds import check_bounds, check_temperature
from ..core.losses import check_loss_options
from ..core.targets import BASELINES

# Values that TRL itself would refuse only after the first generation, or never.
CHOICES = {
    "target_baseline": BASELINES,
    "loss_type": ("dapo", "grpo", "bnpo", "dr_grpo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("sequence_mask", "sequence_truncate", "token_mask", "token_truncate"),
}

# Fields of GRPOConfig that act in its loss and have no counterpart in the bounded-ratio loss.
_REFUSED = {
    "delta": "it caps the ratio where the bounded loss pulls it back, and max_log_ratio already keeps it finite",
    **dict.fromkeys(("sapo_temperature_neg", "sapo_temperature_pos"), "it belongs to the SAPO loss"),
    **dict.fromkeys(
        ("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"), "it belongs to the VESPO loss"
    ),
}


@dataclass
class BaseConfig(GRPOConfig):
    """`trl.GRPOConfig` with what `BaseTrainer`, and so both algorithms, can do beyond TRL.

    Args:
        resample_zero_signal_groups: Put groups of other prompts in place of those without signal (DAPO's dynamic
            sampling).
    """

    resample_zero_signal_groups: bool = field(
        default=False,
        metadata={
            "help": "Put groups of other prompts in place of those without signal (DAPO's dynamic sampling), at the "
            "cost of further generations."
        },
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
        trim_padding: Run the model on the tokens of the rows only, not on the padding of the generation batch.
        arrange_rows: Put rows of like length, of one optimiser step and rank, through the model together.
        max_tokens_per_micro_batch: The most tokens of one such pass, padding included, a shared prompt once; by default
            as many as TRL's micro-batch has, `per_device_train_batch_size` rows of the widest prompt and completion.
        skip_zero_signal: Do not run rows whose loss is exactly zero: advantage 0, and no term beside the policy's.
        pack_rows: Under FlashAttention, put the rows of a pass behind each other without padding.
        share_prompts: Run a prompt once for all of its completions, in generation by transformers and, under other
            attention than FlashAttention, in a pass.
        reuse_first_pass: Take the old log-probs from the first optimiser step on a generation, and compute those of its
            later steps for the rows that are run.
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
    trim_padding: bool = field(
        default=True,
        metadata={"help": "Run the model on the tokens of the rows only, not on the padding of the generation batch."},
    )
    arrange_rows: bool = field(
        default=True,
        metadata={"help": "Put rows of like length, of one optimiser step and rank, through the model together."},
    )
    max_tokens_per_micro_batch: int | None = field(
        default=None,
        metadata={
            "help": "The most tokens of one pass, padding included; by default those of TRL's micro-batch. Needs "
            "arrange_rows."
        },
    )
    skip_zero_signal: bool = field(
        default=True,
        metadata={"help": "Do not run rows whose loss is exactly zero (advantage 0, no KL, no entropy bonus)."},
    )
    pack_rows: bool = field(
        default=True,
        metadata={"help": "Under FlashAttention, put the rows of a pass behind each other without padding."},
    )
    share_prompts: bool = field(
        default=True,
        metadata={"help": "Run a prompt once for all of its completions, in generation by transformers and in a pass."},
    )
    reuse_first_pass: bool = field(
        default=True,
        metadata={"help": "Take old log-probs from the first step on a generation; later ones for the rows run."},
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
                f"num_generations={self.num_generations} gives every completion advantage 0: a group of one is its own "
                "baseline, and nothing would be learnt. Write at least 2; 8 is usual."
            )
        if not 0.0 <= self.top_entropy_quantile <= 1.0:
            raise ValueError(
                f"top_entropy_quantile={self.top_entropy_quantile} is not a share of the tokens. Write a value in "
                "[0, 1]; 1 keeps all tokens."
            )
        if self.max_tokens_per_micro_batch is not None and self.max_tokens_per_micro_batch < 1:
            raise ValueError(
                f"max_tokens_per_micro_batch={self.max_tokens_per_micro_batch} leaves no room for a token. Write about "
                "as many as the memory takes, such as 16384, or leave it out for those of TRL's micro-batch."
            )
        if self.max_tokens_per_micro_batch is not None and not self.arrange_rows:
            raise ValueError(
                f"max_tokens_per_micro_batch={self.max_tokens_per_micro_batch} would be ignored with arrange_rows="
                "False, which keeps per_device_train_batch_size rows together. Leave out one of them."
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
                "One optimiser step per generation: every ratio is 1 when its loss is computed, so that neither "
                "epsilon nor target_temperature matters and GBPO differs from GRPO only where the target pulls against "
                f"the sign of the advantage (target_baseline={self.target_baseline!r}; never with 'mean', nor with "
                "'exact' and two-valued rewards). To use the bound, set num_iterations above 1, or "
                "steps_per_generation above gradient_accumulation_steps."
            )
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        if high != self.epsilon and self.target_baseline != "exact":
            found.append(
                f"epsilon={self.epsilon} and epsilon_high={high} with target_baseline={self.target_baseline!r}: the "
                f"mean target of a group comes out near {1 + (high - self.epsilon) / 2:g} instead of 1, which no "
                f"policy can reach; unequal bounds belong to the {high / (high + self.epsilon):.2g} quantile. Write "
                "target_baseline: exact, which takes it, or equal bounds."
            )
        return found


def reward_scale(value: bool | str) -> str:
    """`scale_rewards` by name; TRL's booleans, which a YAML file or a command line hands over as text, included."""
    return {"true": "group", "false": "none"}.get(str(value).lower(), str(value))


def check_choices(args: GRPOConfig, choices: Mapping[str, Sequence[str]], algorithm: str) -> None:
    """Raise `ValueError` for the first field of `args` that is none of its choices."""
    for name, known in choices.items():
        value = getattr(args, name)
        if value not in known:
            raise ValueError(f"{name}={value!r} has no meaning in {algorithm}. Write one of {', '.join(known)}.")


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
    """TRL's refusal of a batch that holds no whole groups, with the numbers it comes from and the mend."""
    batch, group = args.generation_batch_size, args.num_generations
    divisors = [d for d in range(2, batch + 1) if batch % d == 0]
    nearest = min(divisors, key=lambda d: abs(d - group), default=2)
    return ValueError(
        f"A generation batch of {batch} completions (per_device_train_batch_size={args.per_device_train_batch_size} × "
        f"{args.world_size} processes × steps_per_generation={args.steps_per_generation}) does not split into groups "
        f"of num_generations={group}. Write num_generations={nearest}, or another per_device_train_batch_size or "
        f"gradient_accumulation_steps whose product is a multiple of {group}."
    )
