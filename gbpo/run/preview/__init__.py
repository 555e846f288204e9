"""Previews of a run: its plan, memory and hazards, the dry run, and the check of this machine."""
