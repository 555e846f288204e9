"""`VotingGRPOTrainer`: TRL's GRPOTrainer that draws more completions than it trains on, for rewards that vote."""

from collections.abc import Sequence
from typing import Any

from trl import GRPOTrainer

from .unrecorded import unrecorded


def vote_rounds(reward_funcs: Sequence[Any], num_generations: int) -> int | None:
    """Rounds of generation that `votes`, an attribute of a reward, asks for beside the one that is trained on.

    Args:
        reward_funcs: The rewards. One that has no `votes`, or None there, asks for nothing.
        num_generations: Completions of a prompt in one round.

    Returns:
        `votes / num_generations - 1`, or None when no reward asks.

    Raises:
        ValueError: `votes` is no multiple of `num_generations`, or rewards differ in it.

    >>> from types import SimpleNamespace
    >>> vote_rounds([SimpleNamespace(votes=64), len], num_generations=32)
    1
    """
    asked = {votes for reward in reward_funcs if (votes := getattr(reward, "votes", None)) is not None}
    if not asked:
        return None
    if len(asked) > 1:
        raise ValueError(
            f"Rewards ask for {' and '.join(map(str, sorted(asked)))} votes, but all are given the same. Write one "
            "number."
        )
    (votes,) = asked
    if votes < 1 or votes % num_generations:
        nearest = max(1, round(votes / num_generations)) * num_generations
        raise ValueError(
            f"votes={votes} is no multiple of num_generations={num_generations}: every round of generation gives each "
            f"prompt {num_generations} of them. Write votes={nearest}."
        )
    return votes // num_generations - 1


class VotingGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer for rewards with an attribute `votes`, such as `majority_vote`; without one, it is TRL's.

    After the completions that are trained on it generates the other votes from the same prompts and hands them to the
    rewards as the column `extra_votes`: for each row, a list of completions in the form of `completions`. They are not
    trained on and enter no metric but `num_tokens`. In evaluation the lists are empty.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._vote_rounds = vote_rounds(self.reward_funcs, self.num_generations)
        if self._vote_rounds and self.tools:
            raise ValueError(
                f"A reward asks for {self._vote_rounds} more round(s) of votes, but tools and environments keep what "
                "the first round did to them, so that these votes would be of another kind. Leave out votes or tools."
            )

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self._vote_rounds is not None:
            votes = self._draw_votes(prompts, self._vote_rounds)
            inputs = [{**row, "extra_votes": extra} for row, extra in zip(inputs, votes, strict=True)]
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _draw_votes(self, prompts: list[Any], rounds: int) -> list[list[Any]]:
        """For each row of this rank, one further completion a round."""
        if not self.model.training:
            return [[] for _ in prompts]
        with unrecorded(self):
            drawn = [self._generate(prompts)[3] for _ in range(rounds)]
        return [[completions[row] for completions in drawn] for row in range(len(prompts))]
