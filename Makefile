# `make help` lists the targets; it is made from the comments behind them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup run test test-avx2 coverage test-slow test-gpu lint drills bench clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.done ## Make .venv with everything pinned (about 6 GB, a few minutes the first time)

$(VENV)/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: install Python 3.11 or newer, or run make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python has no venv module: apt-get install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

run: setup ## Train a 2:4-sparse ViT-S on the bundled digits (two to five minutes on 2 cores, with bf16 or AVX2 alone)
	$(BIN)/python run.py method=srste sparsity=2:4 model=vit_s

lint: setup ## Format and lint checks, and types of the torch-free core
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Neighbours stay together, so that what a file's tests share is made once; who has none left takes from the other.
TWO := -n 2 --dist worksteal

test: setup lint ## Everything CI runs: lint, types, tests; with AVX-512, what depends on it once more without
	$(BIN)/python -m pytest $(TWO) --durations=40 -m "not slow and not gpu"
	@if grep -qw avx512f /proc/cpuinfo 2>/dev/null; then $(MAKE) --no-print-directory test-avx2; fi

# What torch, oneDNN and NumPy do on a processor without AVX-512. SELECT="not gpu" runs the whole suite so: that is how
# tests to mark are found (@pytest.mark.instructions).
SELECT ?= instructions and not slow and not gpu
test-avx2: setup ## The tests whose outcome depends on the processor, as on one without AVX-512 and native bf16
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" \
		$(BIN)/python -m pytest $(TWO) -m "$(SELECT)"

# The drills of sweeps, of tables and of what a run survives, one by one, each telling what it did. DRILLS="_s1_ or _s3_" chooses.
DRILLS ?= _s1_ or _s2_ or _s3_ or _s4_ or _s5_ or _s6_ or _t1_ or _t2_ or slurm
drills: setup ## What is killed, when, and what is lost: all drills of sweeps and tables (an hour; DRILLS="_s3_ or _s4_" for some)
	$(BIN)/python -m pytest -s -rs -m "not gpu" -k "$(DRILLS)" tests/drills tests/experiments tests/running

# Tracing makes a run a third longer, so CI does without.
coverage: setup ## The same tests, and what they cover: prints the lines and branches of each file that none reaches
	$(BIN)/python -m pytest $(TWO) --cov --cov-report=term-missing -m "not slow and not gpu"

test-slow: setup ## The tests that take minutes, and the nightly drills
	$(BIN)/python -m pytest -m slow

test-gpu: setup ## The tests that need a CUDA device
	$(BIN)/python -m pytest -rs -m gpu

bench: setup ## What sparsity costs over dense, as ratios: prints a page (5 minutes; BENCH=write=true keeps it)
	OMP_NUM_THREADS=1 $(BIN)/python -m sparselab.tools.bench $(BENCH)

clean: ## Remove what was built (keeps runs/)
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage*
