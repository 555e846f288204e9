"""What the processes of one run do together: agree on a value, and leave the process group."""

import gc
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


def agreed(choose: Callable[[], T]) -> T:
    """Call a function on the main process and give its result to every process.

    Args:
        choose: Called on the main process only. Its result must be picklable.

    Returns:
        The result, on every process.

    Raises:
        BaseException: The error that `choose` raised, on every process. If it cannot be pickled, the other processes
            raise a `RuntimeError` with its type and text.
    """
    state = PartialState()
    if state.num_processes == 1:
        return choose()
    message: list[Any] = [None]
    if state.is_main_process:
        try:
            result = choose()
            message = [(_picklable(result), None)]
        except BaseException as error:  # without this message, the other processes would wait for ever
            broadcast_object_list([(None, _picklable_error(error))])
            raise
    broadcast_object_list(message)
    received, raised = message[0]
    if raised is not None:
        raise raised
    return result if state.is_main_process else received


def _picklable(value: Any) -> Any:
    pickle.loads(pickle.dumps(value))
    return value


def _picklable_error(error: BaseException) -> BaseException:
    try:
        return _picklable(error)
    except Exception:  # pickling runs code of the error's own class
        return RuntimeError(f"{type(error).__name__}: {error}")


def leave_together() -> None:
    """Leave the process group on all processes at once. Call it when nothing refers to the trainer any more.

    The trainer is part of reference cycles and holds DDP's handle of the group. If it is freed after the group is
    destroyed, or after another process has left, it can wait for ever.
    """
    gc.collect()
    state = PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()
