"""`TrainingStopped`: raised if a run cannot usefully continue."""


class TrainingStopped(RuntimeError):  # noqa: N818  an event rather than an error, like KeyboardInterrupt
    """Raised on all ranks at the same step. The message gives the reason with its numbers, and what to change."""
