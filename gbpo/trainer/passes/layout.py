"""Which rows share a forward pass, by their lengths alone. NumPy only; nothing here knows a model or a tensor."""

from dataclasses import dataclass

import numpy as np

# Overhead of an extra pass, as a fraction of a full one. A pass is split only if that saves more padding than this.
_OVERHEAD = 1 / 64
# A shared prompt is a forward pass of its own. It must save at least this fraction of the tokens.
_WORTH = 1 / 8
# Cost of one row's copy of a prompt token's keys and values, relative to running the token. A layer keeps about 17
# activations of its width per token (arXiv 2205.05198), the copy is two, and fewer where heads share them.
_COPY = 1 / 8


def shared_cost(prompts, prompt, rows, completion):
    """Cost, in tokens run, of rows that share their prompts; numbers or arrays.

    Args:
        prompts: Number of different prompts.
        prompt: Tokens of the longest of them.
        rows: Number of rows. Each begins with the last token of its prompt.
        completion: Tokens of the longest completion.
    """
    before = prompt - 1
    return prompts * before + rows * (1 + completion + _COPY * before)


def is_cheaper(shared, alone):
    """Whether running `shared` tokens is worth it where rows with a prompt each would run `alone`."""
    return shared <= (1 - _WORTH) * alone


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows, and what decides the cost of running them together.

    Args:
        prompts: Tokens of each row's prompt, (B,).
        completions: Tokens of each row's completion, (B,).
        packed: Rows are concatenated without padding.
        prompt_of: Number of each row's prompt, (B,), where a prompt is run once for its rows; else None.
    """

    prompts: np.ndarray
    completions: np.ndarray
    packed: bool = False
    prompt_of: np.ndarray | None = None

    def orders(self) -> list[np.ndarray]:
        """Orders in which the rows may be cut into passes: by length, and by prompt where prompts are shared."""
        orders = [np.argsort(self.prompts + self.completions, kind="stable")]
        if self.prompt_of is not None:
            longest = np.zeros(self.prompt_of.max() + 1, dtype=int)  # completion of each prompt
            np.maximum.at(longest, self.prompt_of, self.completions)
            orders.append(np.lexsort((self.completions, self.prompt_of, longest[self.prompt_of])))
        return orders

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """Tokens, with padding, of the pass that holds `rows[i:]`, for every i; (B,)."""
        prompts, completions = self.prompts[rows][::-1], self.completions[rows][::-1]
        if self.packed:
            return (prompts + completions).cumsum()[::-1]
        count, longest = np.arange(1, len(rows) + 1), np.maximum.accumulate
        alone = count * longest(prompts + completions)
        if self.prompt_of is not None:
            prompt_of = self.prompt_of[rows][::-1]
            different = 1 + np.cumsum(np.diff(prompt_of, prepend=prompt_of[:1]) != 0)
            shared = shared_cost(different, longest(prompts), count, longest(completions))
            alone = np.where(is_cheaper(shared, alone), shared, alone)
        return alone[::-1]


def split(lengths: Lengths, budget: int, at_most: int) -> list[list[int]]:
    """Divide rows into the passes that cost least: their tokens with padding, plus an overhead per pass.

    Args:
        lengths: The rows.
        budget: Maximum tokens of a pass, padding included. A longer row is a pass of its own.
        at_most: Maximum number of passes, unless the budget needs more.

    Returns:
        Row numbers of each pass. Every row is in one pass. The longest rows come first or, where it costs less, rows
        with the same prompt stay together.

    >>> split(Lengths(np.array([1, 1, 1, 1, 1]), np.array([2, 89, 3, 99, 2])), budget=200, at_most=2)
    [[3, 1], [2, 4, 0]]
    """
    orders = lengths.orders()
    if at_most == 1 and lengths.tokens(orders[0])[0] <= budget:
        return [orders[0][::-1].tolist()]
    plans = []
    for order in orders:
        overhead = _OVERHEAD * budget
        while len(bounds := _cheapest(lengths, order, budget, overhead)) > at_most and overhead <= budget * len(order):
            overhead *= 2
        passes = [order[first:end] for first, end in bounds]
        cost = sum(float(lengths.tokens(one)[0]) + _OVERHEAD * budget for one in passes)
        plans.append((len(passes) > at_most, cost, [one[::-1].tolist() for one in passes]))
    return min(plans)[-1]


def _cheapest(lengths: Lengths, order: np.ndarray, budget: int, overhead: float) -> list[tuple[int, int]]:
    """Begin and end, exclusive, of each pass in `order`, the last pass first; by dynamic programming."""
    least, begins = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        tokens = lengths.tokens(order[:end])  # (end,), by begin
        fits = tokens <= budget
        fits[-1] = True
        costs = np.where(fits, least[:end] + tokens, np.inf)
        begins[end] = costs.argmin()
        least[end] = costs.min() + overhead
    bounds, end = [], len(order)
    while end:
        bounds.append((int(begins[end]), end))
        end = begins[end]
    return bounds


def as_many(passes: list[list[int]], count: int) -> list[list[int]]:
    """Halve the pass with the most rows until there are `count` passes, or none has two rows.

    >>> as_many([[5, 4], [3, 2, 1, 0]], 3)
    [[5, 4], [3, 2], [1, 0]]
    """
    passes = list(passes)
    while len(passes) < count and max(map(len, passes), default=0) > 1:
        most = max(range(len(passes)), key=lambda i: len(passes[i]))
        rows, half = passes[most], (len(passes[most]) + 1) // 2
        passes[most : most + 1] = [rows[:half], rows[half:]]
    return passes
