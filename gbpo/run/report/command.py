"""Write the page of a run or of a comparison, from the files of its folder.

    gbpo report DIR

writes DIR/report.html, a single file that works offline. DIR is the output
folder of a run, which may still go on, or the --output folder of
`gbpo compare`. A comparison gets `summary.md` and `figures/*.png` too.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...shared.command_line import OneLineErrorParser
from ...shared.packages import check_installed, companion
from .page import write

# files of a comparison: its plan, and its results, which it writes after each run
_PLAN, _RESULTS = "comparison.json", "results.json"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. On bad input, print one line and exit with status 2."""
    parser = OneLineErrorParser(
        prog="gbpo report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        without="Without it there is nothing to report. Write gbpo report runs/tiny_math, for example.",
    )
    parser.add_argument("folder", type=Path, help="the output folder of a run, or of a comparison")
    options = parser.parse_args(argv)
    try:
        if (options.folder / _RESULTS).is_file():
            check_installed("scipy", "evals", "gbpo report of a comparison")
            companion("evals.report.command").main([str(options.folder)])
        elif (options.folder / _PLAN).is_file():
            raise ValueError(
                f"No run of the comparison in {str(options.folder)!r} has finished, so there is nothing to report. "
                "Repeat the command later."
            )
        else:
            print(write(options.folder))
    except (ValueError, ImportError) as error:
        parser.error(error)
