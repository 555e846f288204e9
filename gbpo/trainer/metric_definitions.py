"""What each metric means that gbpo logs in addition to TRL's. `python -m gbpo.run.tables` writes them into a page."""

from typing import NamedTuple


class Metric(NamedTuple):
    """A metric that a run logs.

    Args:
        definition: What the value is, in Markdown.
        condition: The option without which the metric is not logged, in Markdown. Empty: every run logs it.
        grpo: Whether `algorithm: grpo` logs it too.
    """

    definition: str
    condition: str = ""
    grpo: bool = False


def _both(definition: str, condition: str = "") -> Metric:
    """A metric of GBPO and GRPO."""
    return Metric(definition, condition, grpo=True)


# Ã is the advantage minus the baseline of its group, ρ the probability ratio of a token and ρ* its target.
METRICS = {
    "gbpo/target_ratio_mean": Metric("mean of ρ* over the scored completions of a generation; 1 for `exact`"),
    "gbpo/target_ratio_std": Metric("standard deviation of ρ* over the same completions"),
    "gbpo/tied_fraction": Metric("share of scored completions with Ã = 0, whose reward equals the group's baseline"),
    "gbpo/sign_disagreement": Metric(
        "share of scored completions that ρ* pulls in the opposite direction to GRPO: sign(ρ* − 1) ≠ sign(A); for "
        "`median` with equal bounds, sign(Ã) ≠ sign(A)"
    ),
    "gbpo/ratio_error": Metric("mean of |ρ − ρ*| over tokens, weighted as in the loss by `|A|` and the token weights"),
    "gbpo/outside_bounds": _both("share of tokens whose ρ is outside [1 − ε_low, 1 + ε_high]"),
    "gbpo/overshoot": Metric("share of tokens whose ρ is past the bound on the side of its target"),
    "gbpo/ratio_p01": _both(
        "first percentile of ρ over the tokens of a rank in an optimiser step, averaged over the ranks"
    ),
    "gbpo/ratio_p50": _both("median of ρ over the same tokens, averaged over the ranks"),
    "gbpo/ratio_p99": _both("99th percentile of ρ over the same tokens, averaged over the ranks"),
    "gbpo/improvement_estimate": Metric(
        "mean of (ρ* − 1)·Ã minus the policy loss; for a hard target with equal bounds, (ρ* − 1)·Ã is ε·|Ã|. This "
        "estimates the lower bound on improvement, and is not the bound itself"
    ),
    "gbpo/pass_shapes": _both("number of different shapes of forward passes in the first process so far"),
    "gbpo/rows_run": Metric("share of the completions of a generation that the optimisation runs (`skip_zero_signal`)"),
    "gbpo/tool_timeouts": _both(
        "calls of tools in a generation that were abandoned after `tool_timeout` seconds. TRL logs "
        "`tools/call_frequency` (calls per completion) and `tools/failure_frequency` (share of the calls that failed "
        "or were abandoned)",
        "`tools`",
    ),
    "gbpo/resampled_groups": _both(
        "groups generated beyond the batch; their tokens are included in `num_tokens` and their seconds in `time/*`",
        "`resample_zero_signal_groups`",
    ),
    "gbpo/resampling_rounds": _both("number of additional generations", "`resample_zero_signal_groups`"),
    "gbpo/groups_without_signal": _both(
        "groups without signal that could not be replaced", "`resample_zero_signal_groups`"
    ),
    "gbpo/difficulty/below": _both(
        "at each generation, share of the training set whose solve rate is below the band", "`difficulty`"
    ),
    "gbpo/difficulty/inside": _both("share of the training set whose solve rate is inside the band", "`difficulty`"),
    "gbpo/difficulty/above": _both("share of the training set whose solve rate is above the band", "`difficulty`"),
    "gbpo/difficulty/unseen": _both("share of the training set whose solve rate is not known yet", "`difficulty`"),
    "gbpo/difficulty/solve_rate": _both("mean solve rate of the prompts that have one", "`difficulty`"),
    "gbpo/staleness/mean": _both("mean age of the completions in the loss, in optimiser steps", "`generate_ahead`"),
    "gbpo/staleness/max": _both("largest age of the completions in the loss, in optimiser steps", "`generate_ahead`"),
    "gbpo/dropped_stale": _both(
        "number of completions left out of the loss because they are older than this option allows", "`max_staleness`"
    ),
    "gbpo/ratio_at_first_use/min": _both(
        "in the first optimiser step on a generation: minimum of w = π/μ over the tokens, where μ is the policy that "
        "sampled",
        "`generate_ahead`",
    ),
    "gbpo/ratio_at_first_use/mean": _both("mean of w over the same tokens", "`generate_ahead`"),
    "gbpo/ratio_at_first_use/max": _both("maximum of w over the same tokens", "`generate_ahead`"),
    "gbpo/effective_sample_size": _both(
        "(Σw)²/(N·Σw²) over the same tokens, which is 1 if all N ratios w are equal", "`generate_ahead`"
    ),
    "time/wait": _both("seconds per optimiser step in the first process: waiting for a server that samples ahead"),
    "time/generate": _both("seconds for completions"),
    "time/reward": _both("seconds for rewards"),
    "time/old": _both("seconds for forward passes for old and reference log-probs"),
    "time/loss": _both("seconds for other forward passes and the backward pass"),
    "time/optimiser": _both("seconds for the gradient norm and the step"),
    "elapsed": _both("seconds of training so far, including those before a resume"),
    "peak_memory_gb": _both("peak memory of the first process: of its accelerator, or resident if it has none"),
    "skipped_steps": _both("share of optimiser steps skipped because the loss or the gradient was not finite"),
    "gbpo/vllm_masked_fraction": _both(
        "in the first optimiser step on a generation, share of the tokens or sequences whose importance ratio is "
        "outside the clip range, with a mode of `vllm_importance_sampling_mode` that masks",
        "`use_vllm`, `generate_ahead` or `sampling_dtype`",
    ),
    "gbpo/vllm_truncated_fraction": _both(
        "the same share with a mode that truncates", "`use_vllm`, `generate_ahead` or `sampling_dtype`"
    ),
    "gbpo/vllm_logp_gap": _both(
        "mean |vLLM − trainer| of the log-probs of the sampled tokens of one micro-batch, logged until the check of "
        "vLLM's weights has passed",
        "`use_vllm`",
    ),
    "gbpo/vllm_logp_movement": _both(
        "logged with the gap above: how large the gap would be if vLLM had kept the first weights, which is the mean "
        "|now − then| of the trainer's log-probs of the first generation",
        "`use_vllm`",
    ),
}
