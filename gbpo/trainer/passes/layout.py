"""Decides from the lengths of the rows which rows share a forward pass. Depends on NumPy only."""

from dataclasses import dataclass

import numpy as np

# Overhead of an extra pass, as a fraction of a full pass. A pass is split only if the split saves more padding.
_OVERHEAD = 1 / 64
# Sharing a prompt needs an extra forward pass over the prompt alone. So prompts are shared only if that saves at least
# this fraction of the tokens of the pass.
_WORTH = 1 / 8
# With a shared prompt, each row gets a copy of the prompt's keys and values. This is the cost of the copy for one
# token, relative to running the token. A layer stores about 17 activations of its width per token (arXiv 2205.05198).
# The copy stores 2, or fewer with grouped-query attention.
_COPY = 1 / 8


_WIDTHS_PER_DOUBLING = 16


def rounded(width):
    """Round widths up to one of 16 widths per doubling, so that forward passes have few shapes.

    CUDA's caching allocator reuses memory only for tensors of similar size, and `torch.compile` compiles a model for
    each shape. The rounding adds at most 1/16 of the tokens.

    Args:
        width: A whole number, or an array of whole numbers.

    >>> rounded(np.array([0, 7, 32, 33, 1000, 1025])).tolist()
    [0, 7, 32, 34, 1024, 1088]
    """
    _, exponent = np.frexp(width - 1)  # width is at most 2 ** exponent
    step = np.ldexp(1.0, exponent) / (2 * _WIDTHS_PER_DOUBLING)
    return (np.ceil(width / step.clip(1)) * step.clip(1)).astype(int)


def shared_cost(prompts, prompt, rows, completion):
    """Cost, in tokens, of a pass whose rows share their prompts. The arguments are numbers or arrays.

    Args:
        prompts: Number of different prompts.
        prompt: Number of tokens of the longest prompt.
        rows: Number of rows. Each row begins with the last token of its prompt.
        completion: Number of tokens of the longest completion.
    """
    before = prompt - 1
    return prompts * before + rows * (1 + completion + _COPY * before)


def is_cheaper(shared, alone):
    """Whether `shared`, the cost with shared prompts, is low enough compared with `alone`, the cost without sharing."""
    return shared <= (1 - _WORTH) * alone


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows and the options that determine the cost of a pass over them.

    Args:
        prompts: Number of tokens of each row's prompt, (B,).
        completions: Number of tokens of each row's completion, (B,).
        packed: Whether rows are concatenated without padding.
        prompt_of: Index of each row's prompt, (B,), if rows share prompts; None if they do not.
        few_shapes: Whether widths are rounded up to one of few values.
    """

    prompts: np.ndarray
    completions: np.ndarray
    packed: bool = False
    prompt_of: np.ndarray | None = None
    few_shapes: bool = False

    def orders(self) -> list[np.ndarray]:
        """Orders of the rows to cut into passes: by length, and also by prompt if prompts are shared."""
        orders = [np.argsort(self.prompts + self.completions, kind="stable")]
        if self.prompt_of is not None:
            longest = np.zeros(self.prompt_of.max() + 1, dtype=int)  # longest completion of each prompt
            np.maximum.at(longest, self.prompt_of, self.completions)
            orders.append(np.lexsort((self.completions, self.prompt_of, longest[self.prompt_of])))
        return orders

    def tokens(self, rows: np.ndarray) -> np.ndarray:
        """For every i, the tokens, including padding, of a pass over `rows[i:]`; (B,)."""
        prompts, completions = self.prompts[rows][::-1], self.completions[rows][::-1]
        if self.packed:
            return self._width((prompts + completions).cumsum())[::-1]
        count, longest = np.arange(1, len(rows) + 1), np.maximum.accumulate
        alone = count * self._width(longest(prompts + completions))
        if self.prompt_of is not None:
            prompt_of = self.prompt_of[rows][::-1]
            different = 1 + np.cumsum(np.diff(prompt_of, prepend=prompt_of[:1]) != 0)
            prompt, completion = 1 + self._width(longest(prompts) - 1), self._width(longest(completions))
            shared = shared_cost(different, prompt, count, completion)
            alone = np.where(is_cheaper(shared, alone), shared, alone)
        return alone[::-1]

    def _width(self, longest: np.ndarray) -> np.ndarray:
        return rounded(longest) if self.few_shapes else longest


def split(lengths: Lengths, budget: int, at_most: int) -> list[list[int]]:
    """Divide rows into passes at the lowest cost. A pass costs its tokens, including padding, plus an overhead.

    Args:
        lengths: The lengths of the rows.
        budget: Maximum tokens of a pass, including padding. A row longer than this gets its own pass.
        at_most: Maximum number of passes, unless the budget needs more.

    Returns:
        Row numbers of each pass. Every row is in exactly one pass. Rows are sorted from long to short or, if that costs
        less, rows with the same prompt stay together.

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
    """Begin and (exclusive) end in `order` of the cheapest passes, last pass first, found by dynamic programming."""
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
    """Halve the pass with the most rows until there are `count` passes or every pass has one row.

    >>> as_many([[5, 4], [3, 2, 1, 0]], 3)
    [[5, 4], [3, 2], [1, 0]]
    """
    passes = list(passes)
    while len(passes) < count and max(map(len, passes), default=0) > 1:
        most = max(range(len(passes)), key=lambda i: len(passes[i]))
        rows, half = passes[most], (len(passes[most]) + 1) // 2
        passes[most : most + 1] = [rows[:half], rows[half:]]
    return passes
