# The commands of the course. Each one first creates the virtual environment .venv when it is missing or out of date.
# Build products go under _build/; `make clean` removes both.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Test processes; in each of them torch gets one thread, so that they do not fight for the cores.
JOBS ?= 2
# The lock is made for Python 3.11 and newer on every platform; `make lock UPGRADE=--upgrade` takes newest releases.
UPGRADE ?=

.PHONY: help setup demo test book release bench bench-model mutation calibrate lint lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Create .venv with every package that requirements.lock pins

demo: $(READY) ## Release, grade and report a made-up class of 24 students, and build the book
	@$(BIN)/autograder demo

test: $(READY) ## Run the tests
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS)

book: $(READY) ## Build the book into _build/html; every warning is an error
	@$(BIN)/jupyter-book build book --config _config.yml --path-output . -W -n --keep-going

release: $(READY) ## Generate assignments/ from solutions/
	@$(BIN)/autograder release

bench: $(READY) ## Compare our grading speed with stock nbgrader's
	@$(BIN)/python -m autograder.bench

bench-model: $(READY) ## Compare the paper model's speed with timm's, torchvision's and Hugging Face's
	@$(BIN)/python -m autograder.bench_model

mutation: $(READY) ## Print how many known mistakes each exercise's checks catch
	@$(BIN)/autograder mutation

calibrate: $(READY) ## Train right and wrong loops over many seeds and write down the thresholds (an hour on two cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m autograder.calibrate $(ARGUMENTS)

lint: $(READY) ## Check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

lock: $(READY) ## Rebuild requirements.lock and environment.yml from pyproject.toml (UPGRADE=--upgrade: newest releases)
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet $(UPGRADE) --output-file requirements.lock
	@{ sed '/==/d' environment.yml; sed -n 's/^\([^ ].*==.*\) \\$$/      - \1/p' requirements.lock; } > environment.tmp
	@mv environment.tmp environment.yml

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) _build *.egg-info

# uv installs everything in about a minute where pip takes several. It comes from the lock too, checked by its hash.
# Bytecode is compiled here because nothing can be written in the sandbox, which would compile torch at every start.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Install one and name it, for example: make PYTHON=python3.12 setup" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot create virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (about a minute once the packages are downloaded, 3 GB the first time) ..."
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
