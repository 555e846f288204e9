"""The reward `code`: runs programs on test cases in a sandbox."""
