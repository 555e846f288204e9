"""`StepMetrics`: metrics of one optimiser step over all its passes and ranks, from two collectives."""

import math

import torch
from accelerate import Accelerator


class StepMetrics:
    """Adds up metrics pass by pass and reads them once per optimiser step, so that each token counts the same."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._means: dict[str, torch.Tensor] = {}  # weighted sum and weight, (2,)
        self._sums: dict[str, torch.Tensor] = {}  # a scalar, the sum on this rank
        self._extremes: dict[str, tuple[str, torch.Tensor]] = {}  # "amin" or "amax", and the extreme on this rank

    def add_mean(self, name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Add values and their weights, whose shapes broadcast. `collect` gives their weighted mean over all ranks."""
        sums = torch.stack([(values * weights).sum(), (torch.ones_like(values) * weights).sum()]).float()
        self._means[name] = self._means.get(name, 0) + sums

    def add_sum(self, name: str, value: torch.Tensor) -> None:
        """Add a scalar of one pass. `collect` gives the sum over the passes of a rank, averaged over the ranks."""
        self._sums[name] = self._sums.get(name, 0) + value.float()

    def add_extreme(self, name: str, values: torch.Tensor, furthest: str) -> None:
        """Add values, (N,). `collect` gives their minimum ("amin") or maximum ("amax") over all ranks, without NaN."""
        values = values.nan_to_num(nan=math.inf if furthest == "amin" else -math.inf)
        if name in self._extremes:
            values = torch.cat([values, self._extremes[name][1].view(1)])
        self._extremes[name] = furthest, getattr(values, furthest)()

    def collect(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the metrics over all ranks and clear them. All ranks must have added the same names.

        A metric whose weights sum to 0 is absent. No other method reads values back from the device.
        """
        found: dict[str, float] = {}
        names = [*self._means, *self._sums]
        if names:
            rows = [*self._means.values(), *(torch.stack([x, torch.ones_like(x)]) for x in self._sums.values())]
            totals = accelerator.reduce(torch.stack(rows), reduction="sum").tolist()
            found |= {name: total / weight for name, (total, weight) in zip(names, totals, strict=True) if weight}
        if self._extremes:
            local = torch.stack([value for _, value in self._extremes.values()]).float()
            ranks = accelerator.gather(local).view(-1, len(local)).tolist()
            for (name, (furthest, _)), values in zip(self._extremes.items(), zip(*ranks, strict=True), strict=True):
                value = min(values) if furthest == "amin" else max(values)
                found |= {name: value} if math.isfinite(value) else {}
        self._clear()
        return found
