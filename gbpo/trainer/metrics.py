"""`Pool`: metrics of one optimiser step over all its passes and ranks, from two collectives."""

import math

import torch
from accelerate import Accelerator


class Pool:
    """Sums and extremes that grow pass by pass and are read once, so that each token counts alike."""

    def __init__(self):
        self._clear()

    def _clear(self) -> None:
        self._means: dict[str, torch.Tensor] = {}  # weighted sum and weight, (2,)
        self._sums: dict[str, torch.Tensor] = {}  # a scalar of each rank
        self._extremes: dict[str, tuple[str, torch.Tensor]] = {}  # "amin" or "amax", and a scalar

    def add_mean(self, name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Values with their weights, of shapes that broadcast; collected as their weighted mean over all ranks."""
        sums = torch.stack([(values * weights).sum(), (torch.ones_like(values) * weights).sum()]).float()
        self._means[name] = self._means.get(name, 0) + sums

    def add_sum(self, name: str, value: torch.Tensor) -> None:
        """A scalar of this rank; collected as the sum over its passes, mean over ranks."""
        self._sums[name] = self._sums.get(name, 0) + value.float()

    def add_extreme(self, name: str, values: torch.Tensor, furthest: str) -> None:
        """Values, of which NaN do not count; collected as their least ("amin") or greatest ("amax") over all ranks."""
        empty = torch.full_like(values[:1], math.inf if furthest == "amin" else -math.inf)
        values = torch.cat([values[~values.isnan()], empty])
        if name in self._extremes:
            values = torch.cat([values, self._extremes[name][1].view(1)])
        self._extremes[name] = furthest, getattr(values, furthest)()

    def collect(self, accelerator: Accelerator) -> dict[str, float]:
        """The metrics of all ranks, which must have added the same names; those without any weight are left out."""
        found: dict[str, float] = {}
        sums = torch.stack(
            [*self._means.values(), *(torch.stack([x, torch.ones_like(x)]) for x in self._sums.values())]
        )
        totals = accelerator.reduce(sums, reduction="sum").tolist()
        names = [*self._means, *self._sums]
        found |= {name: total / weight for name, (total, weight) in zip(names, totals, strict=True) if weight}
        if self._extremes:
            local = torch.stack([value for _, value in self._extremes.values()]).float()
            ranks = accelerator.gather(local).view(-1, len(local))
            for column, (name, (furthest, _)) in enumerate(self._extremes.items()):
                value = getattr(ranks[:, column], furthest)().item()
                found |= {name: value} if math.isfinite(value) else {}
        self._clear()
        return found
