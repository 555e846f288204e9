"""The completions of a run: how they are stored, shown on a page, and graded again."""
