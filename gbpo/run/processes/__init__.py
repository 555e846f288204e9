"""The processes of a run: whether they fit the launcher, and how they end."""
