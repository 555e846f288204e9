"""What several rewards need: the batch, groups of completions, worker processes."""
