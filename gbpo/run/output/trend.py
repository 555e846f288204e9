"""How a metric changed in a run: its mean over the first and over the last logging steps."""

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

_PARTS = 5  # the first and the last logs are one part in this many of all logs


@dataclass(frozen=True)
class Level:
    """A metric over a few logging steps.

    Args:
        mean: Mean of the logged values.
        spread: Standard deviation of the logged values. None for one value.
        logs: Number of logged values.
    """

    mean: float
    spread: float | None
    logs: int

    @classmethod
    def of(cls, values: list[float]) -> "Level":
        """The level of some logged values."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    def text(self, form: str) -> str:
        """The mean and, if there is one, the spread.

        Args:
            form: Format of a number, for example `.3f`.
        """
        return f"{self.mean:{form}}" + ("" if self.spread is None else f" ± {self.spread:{form}}")


@dataclass(frozen=True)
class Trend:
    """A metric at the start and at the end of a run.

    Args:
        first: The first fifth of the logs, at least one.
        last: As many logs at the end.
        logs: Number of all logs.
    """

    first: Level
    last: Level
    logs: int

    @classmethod
    def of(cls, rows: list[dict[str, Any]], metric: str) -> "Trend | None":
        """The trend of a metric, or None if it was never logged.

        Args:
            rows: The logging steps, as `read_metrics` returns them.
            metric: Name of the metric.
        """
        return cls.over([row[metric] for row in rows if row.get(metric) is not None])

    @classmethod
    def over(cls, values: list[float]) -> "Trend | None":
        """The trend of the logged values of a metric, or None if there are none."""
        if not values:
            return None
        some = max(len(values) // _PARTS, 1)
        return cls(Level.of(values[:some]), Level.of(values[-some:]), len(values))

    def text(self, form: str) -> str:
        """The means with their spreads and the number of logs, in words.

        Args:
            form: Format of a number, for example `.3f`.
        """
        if self.first.spread is None:
            return f"{self.first.text(form)} in the first of {self.logs} logs, {self.last.text(form)} in the last"
        return (
            f"{self.first.text(form)} in the first {self.first.logs} of {self.logs} logs, {self.last.text(form)} in "
            f"the last {self.last.logs} (mean ± standard deviation of the logs)"
        )
