# Every target builds .venv when it must and repeats cheaply when it need not.
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
# Much of the suite waits on real clocks: more workers than cores. WORKERS=0 runs in one process.
WORKERS ?= 6

.PHONY: help demo test check fix bench soak docs lock clean
.DEFAULT_GOAL := help

help:            ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): requirements/dev.txt pyproject.toml
	@echo "building .venv (once; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)   ## 50 customers, two bots, embedded AWS: the whole line on this machine
	@$(BIN)/attachd demo

test: $(READY)   ## the test suite
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(READY)  ## style, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=daemon $(BIN)/lint-imports

fix: $(READY)    ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY)  ## what it measures against its peers, in one run
	@$(BIN)/python bench/patterns.py
	@$(BIN)/python bench/burst.py
	@$(BIN)/python bench/simulator.py

soak: $(READY)   ## a million events through each kind of source; about ten minutes
	@$(BIN)/python bench/soak.py

docs: $(READY)   ## write docs/reference.md and docs/rooms.md from the code
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/rooms.py

lock: $(READY)   ## resolve the dependencies again, hashed, naming no registry
	@$(BIN)/uv pip compile pyproject.toml --group dev --all-extras $(LOCK) -o requirements/dev.txt
	@$(BIN)/uv pip compile pyproject.toml --extra uvloop --extra otel $(LOCK) -c requirements/dev.txt -o requirements/run.txt

LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

clean:           ## remove what make built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
