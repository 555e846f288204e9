"""The sandbox for untrusted programs, and the canary programs that test it."""
