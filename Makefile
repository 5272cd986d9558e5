# `make demo` and `make test` need Python 3.11 or newer, pip and make, and nothing else: the first
# of them installs everything into .venv, later ones start at once.
#   make test PYTHON=python3.12        another Python
#   make test VENV=/path/to/venv       another virtual environment
#   make test ARGS="-k swin" WORKERS=8 arguments for pytest; processes that share the tests

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable

BIN := $(VENV)/bin
# The outer pip installs, since Debian's Python cannot put a pip into a virtual environment.
INSTALL := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test browser zoo fuzz validate mutate sweep lint types docs serve-docs pictures
.PHONY: format clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## align two CutMix-ed photographs through four models, write a figure
	$(BIN)/labeltrace demo $(ARGS)

# One thread for each process: together they already use every core.
test: $(VENV)/.installed ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

browser: ## install Debian's Chromium for the tests of the report page, where there is none
	@for name in $(BROWSERS); do command -v $$name && exit; done; \
	apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium

zoo: $(VENV)/.installed ## trace the smallest model of each family, check the numbers of a dozen
	OMP_NUM_THREADS=1 $(BIN)/labeltrace zoo sweep --numeric-of 12 --jobs $(WORKERS) \
	    --results build/zoo_sweep.jsonl --page build/coverage.md $(ARGS)

EXAMPLES ?= 10000

fuzz: $(VENV)/.installed ## align EXAMPLES random architectures against contract, autograd and plain twins
	OMP_NUM_THREADS=1 LABELTRACE_FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest \
	    -n $(WORKERS) -vv tests/random_architectures/test_contract.py \
	    tests/true_to_model/test_random_twins.py $(ARGS)

validate: $(VENV)/.installed ## check every rule against brute force, over argument variations
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.rules.validate

MUTANTS ?=

mutate: $(VENV)/.installed-mutate ## break the code on purpose, MUTANTS times or all: which tests notice?
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation --workers $(WORKERS) \
	    $(if $(MUTANTS),--mutants $(MUTANTS)) $(ARGS)

sweep: $(VENV)/.installed ## check every model of the zoo, write docs/coverage.md (ARGS=--resume)
	$(BIN)/labeltrace zoo sweep --all --numeric --jobs $(WORKERS) $(ARGS)

lint: $(VENV)/.installed-dev ## check style (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## check types (mypy)
	$(BIN)/mypy

# Not with --quiet, which counts no warnings. The variable leaves out a note of Material's on another
# tool of its makers.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

docs: $(VENV)/.installed-docs ## build the documentation site into build/site, strictly
	$(MKDOCS) build --strict

serve-docs: $(VENV)/.installed-docs ## show the site at http://127.0.0.1:8000, anew at each change
	$(MKDOCS) serve --strict

pictures: $(VENV)/.installed ## make the pictures in docs/images anew
	OMP_NUM_THREADS=1 $(BIN)/python -m docs.pictures $(ARGS)

format: $(VENV)/.installed-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, builds and caches
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are newer than pyproject.toml once what it asks for is installed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing labeltrace into $(VENV); PyTorch is large, the first time takes minutes."
	@$(INSTALL) --editable '.[demo,test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev # ruff breaks long signatures
	@$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/.installed-mutate: $(VENV)/.installed
	@$(INSTALL) --editable '.[mutate]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("labeltrace needs \
	Python 3.11 or newer, $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv --without-pip $(VENV)
