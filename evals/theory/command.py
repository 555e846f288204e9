"""Check the theorems of Bounded Ratio Reinforcement Learning on `gbpo.core`.

    gbpo theory [--mdps N] [--seed S] [--json FILE]

draws random finite decision processes and compares the targets and losses of `gbpo.core` with independent results:
SciPy's linear programming and convex optimisation, exact linear solves, PPO's loss under autograd, and sorting.

The command prints one line per check: the number of cases, the largest error, the tolerance, and the meaning of the
check. Exit status: 0 if all checks pass, 1 if a check fails, 2 for bad input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gbpo.shared.command_line import OneLineErrorParser, OneScreenHelp, check_file
from gbpo.shared.write_whole import write_whole

from .run_checks import CHECKS, TheoryResults, run


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        check_file("--json", options.json)
        results = run(options.mdps, options.seed)
        if options.json is not None:
            write_whole(options.json, json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n")
    except (ValueError, OSError) as error:
        parser.error(error)
    print(table(results))
    raise SystemExit(0 if all(result.passed for result in results.results) else 1)


def make_parser() -> OneLineErrorParser:
    """The parser of the command."""
    parser = OneLineErrorParser(prog="gbpo theory", description=__doc__, formatter_class=OneScreenHelp)
    parser.add_argument("--mdps", type=int, default=20_000, help="number of random decision processes (20000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random problems (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write the results to")
    return parser


def table(results: TheoryResults) -> str:
    """Format the results for printing."""
    lines = [f"{'check':<32} {'cases':>7} {'worst':>7} {'allowed':>7}        meaning"]
    for found in results.results:
        worst = "invalid" if found.worst is None else f"{found.worst:.1e}"
        verdict = "pass" if found.passed else "FAIL"
        numbers = f"{found.cases:>7} {worst:>7} {found.tolerance:>7.0e}"
        lines.append(f"{found.check:<32} {numbers}  {verdict}  {found.covers}")
    lines += [
        "",
        f"{'slack of the lower bound · (1 − γ)':<40} {'min':>9} {'5 %':>9} {'median':>9} {'95 %':>9} {'max':>9}",
    ]
    for name, quantile in results.slack.items():
        lines.append(f"{name:<40} " + " ".join(f"{value:>9.2g}" for value in quantile))
    failed = sum(not found.passed for found in results.results)
    verdict = f"{failed} of {len(results.results)} checks FAILED" if failed else f"all {len(CHECKS)} checks pass"
    return "\n".join([*lines, "", f"{verdict}: {results.mdps} MDPs, seed {results.seed}, {results.seconds:.0f} s"])
