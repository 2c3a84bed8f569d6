# The entry points. Each does the set-up it needs; `make setup` alone prepares everything.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data
STAMP := $(VENV)/.ready

.PHONY: setup run test check bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml contrib/setup
	./contrib/setup $(VENV)
	touch $@

run: $(STAMP)
	MEDIA_GALLERY_DATA_DIR=$${MEDIA_GALLERY_DATA_DIR:-$(DATA)} $(BIN)/media-gallery serve

test: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)
	$(BIN)/pytest -n 2 --dist loadfile --database postgres tests/api tests/faults tests/storage tests/test_cli.py $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python contrib/sizes

bench: $(STAMP)
	$(BIN)/python -m bench $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
