"""`python -m evals.report` is `gbpo report`."""

import sys

from gbpo.__main__ import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
