"""The page of a run: its curves, its samples, how it ended, and the command to go on."""
