# Needs Python 3.10 or newer and nothing else: the first target that runs makes .venv. On Linux, PyPI's torch brings
# gigabytes of CUDA libraries; without a GPU, spare them:
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help demo test test-slow lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(INSTALLED) ## degrade a packaged head to 5 mm slices and back; results in demo/
	$(BIN)/throughplane demo demo --force

test: lint ## lint, types and the tests that are not slow
	$(BIN)/pytest -n $(WORKERS)

test-slow: $(INSTALLED) ## the tests that take minutes
	$(BIN)/pytest -n $(WORKERS) -m slow

lint: $(INSTALLED) ## ruff, codespell and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy

clean: ## remove .venv, demo and caches
	rm -rf .venv demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	touch $@
