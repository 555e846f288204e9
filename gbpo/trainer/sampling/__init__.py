"""Where completions come from: extra votes, resampled groups, a vLLM server."""
