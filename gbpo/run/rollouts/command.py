"""Show the completions of a run, or grade them again.

    gbpo rollouts RUN                    write RUN/rollouts.html
    gbpo rollouts RUN --replay --step N  grade step N again, without the model

The page works offline. A replay computes rewards and advantages.

RUN is the output folder of a run with `log_completions: true`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...shared.command_line import OneLineErrorParser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.replay and options.step is None:
        parser.error("--replay needs a step: it grades the completions of one step. Write --replay --step N.")
    if options.replay and options.output is not None:
        parser.error("--output is the page, but --replay writes no page. Remove one of them.")
    if options.max < 1:
        parser.error(f"--max {options.max} would leave no generation on the page. Write a positive number.")
    try:
        if options.replay:
            from .replay import replay  # loads TRL

            for line in replay(options.run, options.step):
                print(line)
        else:
            from .page import write  # a replay needs no templates

            print(write(options.run, options.output or options.run / "rollouts.html", options.step, options.max))
    except ValueError as error:
        parser.error(error)


def make_parser() -> OneLineErrorParser:
    """The parser of the command."""
    parser = OneLineErrorParser(
        prog="gbpo rollouts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        without="Without it there is nothing to show. Write gbpo rollouts runs/tiny_math, for example.",
    )
    parser.add_argument("run", type=Path, help="the output folder of the run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the page to write (RUN/rollouts.html)")
    parser.add_argument("--step", type=int, metavar="N", help="only the generation of this optimiser step (all)")
    parser.add_argument(
        "--max", type=int, default=20, metavar="N", help="generations on the page, evenly spaced over the run (20)"
    )
    parser.add_argument("--replay", action="store_true", help="grade again instead of writing a page; needs --step")
    return parser
