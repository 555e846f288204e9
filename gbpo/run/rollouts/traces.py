"""Conversations as traces of trackio, beside the metrics of the run (`report_to: trackio`)."""

from collections.abc import Mapping
from typing import Any

TRACES = 16  # of each generation: its first groups. All of them are in the files of the run.


def log_traces(record: Mapping[str, Any]) -> None:
    """Log the first conversations of a generation with trackio, with rewards, statuses and advantages as metadata.

    Versions of trackio without `Trace` get none.
    """
    import trackio  # an optional package

    if not hasattr(trackio, "Trace"):
        return
    pairs = [(group, one) for group in record["groups"] for one in group["completions"]][:TRACES]
    traces = [trackio.Trace(messages=_messages(group, one), metadata=_metadata(record, one)) for group, one in pairs]
    trackio.log({"rollouts": traces}, step=record["steps"][1])


def _messages(group: Mapping[str, Any], one: Mapping[str, Any]) -> list[dict[str, Any]]:
    prompt = {**group["row"], **one.get("row", {})}["prompt"]
    return _as_messages(prompt, "user") + _as_messages(one["completion"], "assistant")


def _as_messages(value: Any, role: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _metadata(record: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    names = ("reward", "advantage", "target_ratio", "sampled_after", "trained")
    values = {name: one[name] for name in names if name in one}
    return {"generation": record["generation"], **values, "rewards": one["rewards"], "statuses": one["statuses"]}
