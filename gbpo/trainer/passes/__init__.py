"""Which rows share a forward pass, and how a pass is run: without padding, packed, or after a shared prompt."""
