"""`python -m evals.evaluate` is `gbpo evaluate`."""

import sys

from gbpo.__main__ import main

if __name__ == "__main__":  # the rewards' worker processes import this file again
    main(["evaluate", *sys.argv[1:]])
