"""Row weights of each loss_type, by hand and compared with its definition in TRL, loss and gradient."""

import pytest
import torch

from gbpo.core.aggregation import LOSS_TYPES, row_weights, token_mean

TOKENS = [2, 4, 0, 1]
# 4 rows and 7 tokens here, 14 tokens on both ranks, at most 8 per completion.
BY_HAND = {
    "dapo": [2 / 14] * 4,
    "grpo": [1 / (4 * 2), 1 / (4 * 4), 1 / 4, 1 / 4],  # a row without tokens has no loss; its weight is finite
    "bnpo": [1 / 7] * 4,
    "dr_grpo": [1 / (4 * 8)] * 4,
}


def weights_of(loss_type, tokens, *, of_all_ranks=14, num_processes=2):
    return row_weights(
        loss_type,
        torch.tensor(tokens),
        tokens_of_all_ranks=torch.tensor(of_all_ranks),
        num_processes=num_processes,
        max_completion_length=8,
    )


def test_every_loss_type_is_tested():
    assert set(BY_HAND) == set(LOSS_TYPES)


@pytest.mark.parametrize("loss_type", BY_HAND)
def test_by_hand(loss_type):
    weights = weights_of(loss_type, TOKENS)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor(BY_HAND[loss_type]))


@pytest.mark.parametrize("loss_type", BY_HAND)
def test_rows_without_any_token_have_finite_weights(loss_type):
    assert weights_of(loss_type, [0, 0], of_all_ranks=0).isfinite().all()


def reference(loss_type, losses, mask):
    """The loss of one process by TRL's definition."""
    if loss_type == "grpo":
        return torch.stack([row[m].mean() for row, m in zip(losses, mask, strict=True)]).mean()
    if loss_type == "dr_grpo":
        return losses[mask].sum() / (len(losses) * 8)
    return losses[mask].mean()  # bnpo; dapo if there is one micro-batch and one process


@pytest.mark.parametrize("loss_type", BY_HAND)
def test_loss_and_gradient_are_those_of_the_definition(loss_type):
    rng = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < torch.tensor([[2], [6], [1]])
    logits = torch.randn(3, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    tokens = mask.sum(1)
    weights = weights_of(loss_type, tokens.tolist(), of_all_ranks=9, num_processes=1).double()
    loss = weights @ (logits.square() * mask).sum(1)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = reference(loss_type, logits.square(), mask)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # the weights are float32
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=0)


def test_dapo_over_micro_batches_and_ranks_is_the_mean_over_all_tokens():
    """Gradients are averaged over ranks, and micro-batches are summed: 2 ranks with 2 micro-batches of 1 row each."""
    tokens = [[3, 1], [6, 2]]
    total = sum(
        float(weights_of("dapo", [count], of_all_ranks=12) @ torch.tensor([float(count)]))
        for rank in tokens
        for count in rank
    )
    assert total / 2 == pytest.approx(1.0)  # the mean of a loss of 1 per token


def test_token_mean():
    assert token_mean(torch.tensor(TOKENS)) == pytest.approx(1 / 7)
    assert token_mean(torch.tensor([0, 0])) == 1
