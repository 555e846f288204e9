"""Where untrusted programs run, and the proof that they cannot get out."""
