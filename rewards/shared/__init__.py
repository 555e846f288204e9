"""Code that several rewards share: batches, groups of completions, boxed answers, worker processes, data files."""
