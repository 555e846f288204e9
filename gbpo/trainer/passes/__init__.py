"""Which rows share a forward pass, and how a pass is run: without padding, packed, or after a shared prompt.

A row is one completion with its prompt. A pass is one forward pass over some rows. A micro-batch is what TRL would run
in one forward pass: `per_device_train_batch_size` rows. GBPO runs the rows of one or more micro-batches as passes.
"""
