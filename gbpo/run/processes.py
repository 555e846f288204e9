"""What the processes of one run do together."""

import gc
from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


def agreed(choose: Callable[[], T]) -> T:
    """What the main process chooses, on every process; its error likewise."""
    state = PartialState()
    answer: list[Any] = [None]
    if state.is_main_process:
        try:
            answer = [choose()]
        except ValueError as error:
            answer = [error]
    if state.num_processes > 1:
        broadcast_object_list(answer)
    if isinstance(answer[0], ValueError):
        raise answer[0]
    return answer[0]


def leave_together() -> None:
    """Let go of the process group on all processes at once; call it when nothing refers to the trainer any more.

    The trainer, in cycles of references, holds DDP's share of the group. Freed after the group is destroyed, or after
    another process has left, it can wait for ever.
    """
    gc.collect()
    state = PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()
