"""How completions are sampled: extra votes, resampled groups, random seeds, a vLLM server."""
