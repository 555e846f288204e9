"""`python -m evals.compare` is `gbpo compare`."""

import sys

from gbpo.__main__ import main

if __name__ == "__main__":  # the rewards' worker processes import this file again
    main(["compare", *sys.argv[1:]])
