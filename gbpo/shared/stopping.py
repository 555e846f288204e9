"""`TrainingStopped`: how a run says that it cannot usefully go on."""


class TrainingStopped(RuntimeError):  # noqa: N818  it says what happened, like KeyboardInterrupt
    """Raised on all ranks at the same step; the message is the reason, with its numbers and what to change."""
