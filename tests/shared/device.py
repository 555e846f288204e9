"""Where the trainers of tests run: on the CPU, or on a GPU with GBPO_TEST_DEVICE=gpu, which `make test-gpu` sets."""

import os

import torch

ON_GPU = os.environ.get("GBPO_TEST_DEVICE") == "gpu" and torch.cuda.is_available()
DEVICE = {"use_cpu": not ON_GPU}
