# The course's commands. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV  := .venv
BIN   := $(VENV)/bin
SETUP := $(VENV)/.caft-setup
TESTS := $(VENV)/.caft-tests
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

# Passed on to the notebooks: make tutorial MODEL=Qwen/Qwen2.5-7B-Instruct SEED=1 FAST=1 ARGS="--only 02 03"
TUTORIAL := $(if $(MODEL),--model "$(MODEL)") $(if $(SEED),--seed $(SEED)) $(if $(filter-out 0 false False,$(FAST)),--fast) $(ARGS)

# Keep freed memory in the process. By default glibc returns it and requests it again at every step, which takes up
# to half of the training time.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

.PHONY: help setup tutorial lab exercises test faults claims pages classroom lint

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SETUP) ## create .venv with the tested packages (the other commands do it when needed)
	@echo "Ready: $(VENV)"

tutorial: $(SETUP) ## run every notebook and write pages to build/tutorial (MODEL= SEED= FAST=1 ARGS=)
	@$(KEEP_MEMORY) $(BIN)/python -m caft_utils.course.tutorial $(TUTORIAL)

lab: $(SETUP) ## open JupyterLab on the notebooks (ARGS= for jupyter)
	@JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab notebooks $(ARGS)

exercises: $(SETUP) ## build the notebooks of the exercises in build/exercises (ARGS="student 03"; ARGS=--run proves the solutions)
	@$(BIN)/python -m caft_utils.course.exercises $(ARGS)

test: lint ## run lint, then the tests offline, two files at a time (ARGS= for pytest, e.g. ARGS="-n 0 -k store")
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

faults: $(TESTS) ## break the package on purpose and count what happens, 15 minutes at most (SEED=, ARGS="--only rows")
	@$(BIN)/python tests/faults $(if $(SEED),--seed $(SEED)) $(ARGS)

claims: $(TESTS) ## measure every stated number again and print it (CLAIM=emergent for one)
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/claims -s $(if $(CLAIM),-k "$(CLAIM)") $(ARGS)

pages: $(SETUP) ## write the tables and pictures of the READMEs from data/results (pictures need chromium)
	@$(BIN)/python -m caft_utils.course.pages

classroom: $(SETUP) ## train the classroom models in data/classroom again from their seeds (ARGS=)
	@$(KEEP_MEMORY) $(BIN)/python -m caft_utils.classroom.checkpoints $(ARGS)

lint: $(TESTS) ## check the style with ruff, and that imports run downward only
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo --no-cache

# A stamp is written last, so the next call continues an interrupted set-up.
$(SETUP): requirements.txt pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo "No python >= 3.11 found (tried $(PYTHON) python3.11 python3.12 python3.13 python3)." >&2; \
	    echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	  fi; \
	  echo "Creating $(VENV) with $$("$$found" --version)"; \
	  "$$found" -m venv --clear $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@echo "Installing the tested packages (about 2 GB, a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(TESTS): $(SETUP) requirements-test.txt requirements-nnsight.txt
	@$(BIN)/python -m pip install --quiet -r requirements-test.txt -r requirements-nnsight.txt
	@touch $@
