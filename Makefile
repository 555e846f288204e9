# Everything a newcomer needs, from a machine with only Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=

.PHONY: demo test check clean

demo: $(VENV)/.core  ## train the embedded default and print where its curve, samples and model lie
	$(BIN)/accelerate launch --quiet $(LAUNCH_CPU) launch/gbpo.py recipes/tiny_math.yaml $(DEMO_ARGS)

test: $(VENV)/.dev  ## the whole suite
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment and what tools left behind; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# accelerate guesses these and warns when they are not said; one thread is as fast as two for so small a model
LAUNCH_CPU := --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process 1

# torch first: the build that the machine's package index offers for it is then kept
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gbpo needs Python 3.11 or newer, this is " \
		+ sys.version.split()[0] + "; write make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
