"""Generates extra completions that are not trained on, for rewards that take a majority vote."""

from collections.abc import Callable, Sequence
from typing import Any


def vote_rounds(reward_funcs: Sequence[Any], num_generations: int) -> int | None:
    """Number of extra rounds of generation that the rewards ask for with their attribute `votes`.

    Args:
        reward_funcs: The rewards. A reward whose `votes` is missing or None asks for no extra rounds.
        num_generations: Completions of a prompt in one round.

    Returns:
        `votes / num_generations - 1`, or None if no reward has `votes`.

    Raises:
        ValueError: `votes` is not a multiple of `num_generations`, or differs between rewards.

    >>> from types import SimpleNamespace
    >>> vote_rounds([SimpleNamespace(votes=64), len], num_generations=32)
    1
    """
    asked = {votes for reward in reward_funcs if (votes := getattr(reward, "votes", None)) is not None}
    if not asked:
        return None
    if len(asked) > 1:
        raise ValueError(
            f"Rewards ask for {' and '.join(map(str, sorted(asked)))} votes, but every reward must ask for the same "
            "number of votes. Write one of these numbers for all of them."
        )
    (votes,) = asked
    if votes < 1 or votes % num_generations:
        nearest = max(1, round(votes / num_generations)) * num_generations
        raise ValueError(
            f"votes={votes} is not a multiple of num_generations={num_generations}: each round of generation gives "
            f"every prompt {num_generations} votes. Write votes={nearest}."
        )
    return votes // num_generations - 1


class ExtraVotes:
    """Generates the extra votes of a generation and passes them to the rewards as the column `extra_votes`.

    For each row the column holds a list of completions of the row's prompt, in the same form as TRL's `completions`.
    These are not trained on. In evaluation the lists are empty.

    Args:
        rounds: Extra rounds of generation; None if no reward asks for votes.
    """

    def __init__(self, rounds: int | None = None):
        self.rounds = rounds

    def add(
        self, inputs: list[dict[str, Any]], prompts: list[Any], generate: Callable[[list[Any]], list[Any]] | None
    ) -> list[dict[str, Any]]:
        """Add the column `extra_votes` to the rows.

        Args:
            inputs: Rows of the data set, one per completion.
            prompts: Prompts of the rows.
            generate: Generates one completion per prompt; None in evaluation.
        """
        if self.rounds is None:
            return inputs
        drawn = [generate(prompts) for _ in range(self.rounds)] if generate else []
        return [{**row, "extra_votes": [some[i] for some in drawn]} for i, row in enumerate(inputs)]
