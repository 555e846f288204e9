"""Generations beside the one that is on record."""

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trl import GRPOTrainer


@contextmanager
def unrecorded(trainer: GRPOTrainer) -> Iterator[None]:
    """Inside, what the trainer generates and scores enters no metric and no log of completions but `num_tokens`."""
    metrics, logs = trainer._metrics["train"], trainer._logs
    trainer._metrics["train"] = defaultdict(list)
    trainer._logs = {name: _copied(log) for name, log in logs.items()}
    try:
        yield
    finally:
        trainer._metrics["train"], trainer._logs = metrics, logs
    metrics["num_tokens"] = [trainer.state.num_input_tokens_seen]


def _copied(log: deque | defaultdict) -> Any:
    copied = log.copy()
    for name in log if isinstance(log, defaultdict) else ():
        copied[name] = log[name].copy()
    return copied
