"""The sandbox for untrusted programs, and the canaries: harmless programs that test whether they can escape."""
