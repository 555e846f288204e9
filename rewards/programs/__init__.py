"""The reward `code`: programs run on tests in a sandbox."""
