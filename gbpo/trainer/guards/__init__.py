"""Checks during training: finite steps, the weights of vLLM, ratios, time, collapse."""
