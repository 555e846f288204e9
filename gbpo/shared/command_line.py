"""Command lines that answer bad input with one line and exit status 2."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from .nearest import nearest


class OneScreenHelp(argparse.HelpFormatter):
    """Help that fits on a screen. Paragraphs are filled to its width, and indented lines stay as they are."""

    def __init__(self, prog: str, max_help_position: int = 30, width: int | None = None):
        super().__init__(prog, max_help_position=max_help_position, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        blocks = text.strip().split("\n\n")
        return "\n\n".join(block if block.startswith(" ") else fill(block, width, indent) for block in blocks)


class OneLineErrorParser(argparse.ArgumentParser):
    """An argument parser whose errors are a single line without the usage text.

    Args:
        without: What follows if a required argument is missing, and what to write. The error then ends with this.
    """

    def __init__(self, *args: Any, without: str = "", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._without = without

    def parse_args(self, args=None, namespace=None):
        """Parse all arguments. The error for an unknown option says what to write instead."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._refusal(unknown))
        return options

    def _refusal(self, unknown: list[str]) -> str:
        flag = next((word.partition("=")[0] for word in unknown if word.startswith("--")), None)
        if flag is None:
            return f"{unknown[0]!r} is unknown. Remove it."
        usage = self.format_usage().removeprefix("usage: ")
        without_options = re.sub(r"\[-.*?\]|--\S+ \S+", "", usage)
        if re.search(rf"\b{re.escape(flag[2:])}\b", without_options, re.IGNORECASE):
            return f"unknown option {flag}. Write the value without a flag: {usage}"
        return f"unknown option {flag}. Did you mean {nearest(flag, self._option_string_actions)}?"

    def error(self, message: object) -> NoReturn:
        """Print `PROGRAM: error: MESSAGE` and exit with status 2."""
        if missing := re.fullmatch("the following arguments are required: (.*)", str(message)):
            message = f"Missing: {missing[1]}. {self._without}"
        program = self.prog.removeprefix("python -m ")
        print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
        raise SystemExit(2)


def seed(text: str) -> int:
    """Read a seed, as the type of an option that takes several.

    Raises:
        argparse.ArgumentTypeError: It is not an integer. The message says how to write several seeds.
    """
    try:
        return int(text)
    except ValueError:
        seeds = text.replace(",", " ") if re.fullmatch(r"\d+(,\d+)+", text) else "0 1 2"
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an integer, so no run can have it as its seed. Separate seeds by spaces: --seeds {seeds}."
        ) from None


def check_file(option: str, path: Path | None) -> None:
    """Check that a file can be written, before the work whose result it takes.

    Raises:
        ValueError: It is a folder, or its folder does not exist.
    """
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ValueError(
            f"{option} {str(path)!r} cannot be written, because it is a folder or its folder does not exist. Give "
            "another file."
        )
