"""Writes the page of a run when the run ends, whatever ends it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..processes.ending import reason
from .page import REPORT, write
from .story import FINISHED, End


@contextmanager
def reported(run: Path, step: Callable[[], int]) -> Iterator[None]:
    """Run a block and write `report.html` at its end, also if the block is interrupted or raises an error.

    Args:
        run: Output folder of the run.
        step: Gives the optimiser step that the run has reached.
    """
    try:
        yield
    except BaseException as error:
        _write(run, End(step(), reason(error)))
        raise
    _write(run, End(step(), FINISHED))


def _write(run: Path, ending: End) -> None:
    try:
        write(run, ending)
    except Exception as error:  # a run must not fail because of its page, nor lose the error that ended it
        print(f"gbpo: warning: {run / REPORT} was not written ({error}).", file=sys.stderr, flush=True)
