"""Command lines that answer bad input with one line and exit status 2."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class OneLineErrorParser(argparse.ArgumentParser):
    """An argument parser whose errors are a single line without the usage text."""

    def error(self, message: object) -> NoReturn:
        """Print `PROGRAM: error: MESSAGE` and exit with status 2."""
        program = self.prog.removeprefix("python -m ")
        print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
        raise SystemExit(2)
