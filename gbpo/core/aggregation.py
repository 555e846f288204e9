"""One weight per row, so that the weighted sum of token losses equals the average that TRL's `loss_type` defines."""

import torch

LOSS_TYPES = ("dapo", "grpo", "bnpo", "dr_grpo")


def row_weights(
    loss_type: str,
    tokens: torch.Tensor,
    *,
    tokens_of_all_ranks: torch.Tensor,
    num_processes: int,
    max_completion_length: int,
) -> torch.Tensor:
    """Weight of each row of one of TRL's micro-batches.

    The loss of the micro-batch is `Σ_rows weight · Σ_tokens loss`. The weights are computed before the rows are
    rearranged, so rows may then be run in any order and together with any other rows.

    Args:
        loss_type: `"dapo"`, mean over the tokens of all ranks and micro-batches; `"grpo"`, mean over rows of the mean
            over tokens; `"bnpo"`, mean over the tokens of the micro-batch; `"dr_grpo"`, sum over tokens divided by
            `max_completion_length`, mean over rows.
        tokens: Number of tokens in each row that the policy sampled, (B,), int64.
        tokens_of_all_ranks: Number of sampled tokens in the whole generation batch of all ranks, scalar.
        num_processes: Number of ranks. Gradients are averaged over the ranks.
        max_completion_length: Maximum length of a completion, in tokens.

    Returns:
        Weights, (B,), float32.

    >>> row_weights("grpo", torch.tensor([2, 4]), tokens_of_all_ranks=torch.tensor(6), num_processes=1,
    ...             max_completion_length=8)
    tensor([0.2500, 0.1250])
    """
    rows = len(tokens)
    if loss_type == "dapo":
        weights = num_processes / tokens_of_all_ranks.clamp(min=1)
    elif loss_type == "grpo":
        weights = 1.0 / (rows * tokens.clamp(min=1))
    elif loss_type == "bnpo":
        weights = token_mean(tokens)
    else:
        weights = torch.tensor(1 / (rows * max_completion_length), device=tokens.device)
    return weights.float().expand(rows)


def token_mean(tokens: torch.Tensor) -> torch.Tensor:
    """Weight of each token in the mean over all tokens of a micro-batch, a scalar. `tokens` is as in `row_weights`."""
    return 1.0 / tokens.sum().clamp(min=1)
