"""`check_rewards`: ends the run if a reward is infinite, and names the completion."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...shared.stopping import TrainingStopped


def check_rewards(rewards: torch.Tensor, names: Sequence[str], prompts: Callable[[], Sequence[Any]]) -> None:
    """Check that no reward is infinite. NaN is allowed: it stands for None, a completion that cannot be graded.

    An infinite reward makes the mean of its group infinite, so the group would teach nothing.

    Args:
        rewards: Rewards of all ranks, (B_global, number of reward functions).
        names: Names of the reward functions.
        prompts: Returns the prompts of all ranks. All ranks call it together, only if a reward is infinite.

    Raises:
        TrainingStopped: A reward is infinite, or larger than float32 can hold.
    """
    infinite = rewards.isinf().nonzero().tolist()
    if not infinite:
        return
    (row, function), text = infinite[0], str(prompts()[infinite[0][0]])
    raise TrainingStopped(
        f"The reward {names[function]!r} is {rewards[row, function].item()} for completion {row} of the generation, of "
        f"the prompt {text[:80] + '…' if len(text) > 80 else text!r}. {len(infinite)} of {rewards.numel()} rewards are "
        "infinite, and nothing would be learnt from their groups. Return finite numbers, or None for a completion that "
        "cannot be graded."
    )
