"""Make the report of a comparison again from its `results.json`.

    gbpo report DIR

writes `report.html`, `summary.md` and `figures/*.png` into DIR, the `--output` folder of `gbpo compare`. `report.html`
is a single file that works offline. The command prints the verdict of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gbpo.shared.command_line import OneLineErrorParser, OneScreenHelp

from ..shared.results import Results
from . import page
from .analysis import analyse
from .answer import console
from .run_numbers import mean_name


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        results = Results.load(options.folder)
        analysis = analyse(results)
        page.write(results, analysis, options.folder)
    except ValueError as error:
        parser.error(error)
    print("\n".join(console(analysis, mean_name(results))))
    print(f"report: {options.folder / 'report.html'}")


def make_parser() -> OneLineErrorParser:
    """The parser of the command."""
    parser = OneLineErrorParser(prog="gbpo report", description=__doc__, formatter_class=OneScreenHelp)
    parser.add_argument("folder", type=Path, help="the --output folder of gbpo compare")
    return parser
