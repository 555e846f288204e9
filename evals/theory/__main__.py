"""`python -m evals.theory` is `gbpo theory`."""

import sys

from gbpo.__main__ import main

if __name__ == "__main__":
    main(["theory", *sys.argv[1:]])
