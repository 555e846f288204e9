"""How fast a run is: the seconds of each phase and the tokens per second, averaged over generations."""

from collections.abc import Iterator
from typing import Any

RATE = "tokens_per_second"

_PHASE = "time/"


def by_generation(rows: list[dict[str, Any]], step: int = 0, tokens: float = 0.0) -> Iterator[dict[str, Any]]:
    """The seconds of each phase per optimiser step and the tokens per second, averaged over generations.

    Steps that generate take longer than the other steps on the same generation, so single steps cannot be compared.
    Logs that cover more than one generation are left as they are. The last generation is left out while it lasts. The
    tokens are those of prompts and completions, and the seconds are those of the phases.

    Args:
        rows: Logging steps, as `read_metrics` returns them.
        step: The optimiser step of the log before them.
        tokens: The `num_tokens` of the log before them.
    """
    phases = phases_of(rows)
    groups: list[list[tuple[int, dict[str, Any]]]] = []  # of each generation: number of optimiser steps, and the log
    for row in rows:
        if f"{_PHASE}generate" not in row or row.get("num_tokens") is None:
            continue
        if not groups or groups[-1][-1][1]["num_tokens"] != row["num_tokens"]:
            groups.append([])
        groups[-1].append((row["step"] - step, row))
        step = row["step"]
    whole = 0
    for place, group in enumerate(groups):
        steps, last = sum(count for count, _ in group), group[-1][1]
        if place and place == len(groups) - 1 and steps < whole:
            return
        seconds = {phase: sum(count * (row.get(phase) or 0.0) for count, row in group) for phase in phases}
        found = {"step": last["step"], **{phase: value / steps for phase, value in seconds.items()}}
        if last["num_tokens"] > tokens and any(seconds.values()):
            found[RATE] = (last["num_tokens"] - tokens) / sum(seconds.values())
        yield found
        tokens, whole = last["num_tokens"], steps


def phases_of(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The metric and the name of each phase, in the order of a step."""
    return {key: key.removeprefix(_PHASE) for row in rows for key in row if key.startswith(_PHASE)}


def slowest(row: dict[str, Any]) -> tuple[str, float] | None:
    """The phase that takes the most time, and its share of the time of all phases. None without times."""
    times = {name: row[phase] for phase, name in phases_of([row]).items() if row[phase]}
    if not times:
        return None
    name = max(times, key=times.__getitem__)
    return name, times[name] / sum(times.values())
