# The entry points. Each prepares what it needs; `make setup` prepares everything and does nothing else.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
BACKENDS ?= sqlite+local postgres+local postgres+s3
# Three processes, since one of them waits most of the time. tests/conftest.py sets the order of the files.
TOGETHER := -n 3 --dist loadfile --no-loadscope-reorder --durations 20
# The tests whose result depends on the database or the store.
ON_ALL := -m "not same_everywhere" tests/api tests/faults tests/torture tests/test_backup.py tests/test_cli.py
FUZZ_SECONDS ?= 600
FUZZ_EXAMPLES ?= 1000
STAMP := $(VENV)/.ready
SERVICE := $(VENV)/.service

# With this variable each process of the service would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run test test-all browser torture fuzz clients check audit bench deb docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.txt contrib/setup
	./contrib/setup $(VENV) tests
	touch $(SERVICE) $@

# The service alone needs none of the servers that the tests drive.
$(SERVICE): pyproject.toml requirements.txt contrib/setup
	./contrib/setup $(VENV) service
	touch $@

run: $(SERVICE)
	$(BIN)/media-gallery serve

test: $(STAMP)
	$(BIN)/pytest $(TOGETHER) $(ARGS)
	$(BIN)/pytest $(TOGETHER) --database postgres --storage s3 $(ON_ALL) $(ARGS)

# All tests on each pair of back ends.
test-all: $(STAMP)
	for backends in $(BACKENDS); do \
	  $(BIN)/pytest $(TOGETHER) --database $${backends%+*} --storage $${backends#*+} $(ARGS) || exit 1; \
	done

# The page for people in a browser: the long form, a few minutes.
browser: $(STAMP)
	$(BIN)/pytest --browser tests/web $(ARGS)

# The long tests: about an hour.
torture: $(STAMP)
	for backends in $(BACKENDS); do \
	  $(BIN)/pytest -s --timeout 0 --database $${backends%+*} --storage $${backends#*+} --kills 200 --rounds 1000 \
	    tests/torture tests/faults/test_simultaneous.py $(ARGS) || exit 1; \
	done

# Tests the parsers and the published document for as long as you like: `make fuzz FUZZ_SECONDS=3600 FUZZ_EXAMPLES=10000`.
fuzz: $(STAMP)
	$(BIN)/pip install -q -e '.[fuzz]' -c requirements.txt
	for target in multipart parameters stanzas permissions words; do \
	    $(BIN)/python -m tests.attack.fuzz $$target --seconds $(FUZZ_SECONDS) || exit 1; done
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest --timeout 7200 tests/attack/test_parsers.py tests/attack/test_schema.py

# People's clients against the service: a few minutes, after their set-up.
clients: $(STAMP)
	./contrib/setup $(VENV) clients
	$(BIN)/pytest tests/clients $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python contrib/sizes
	$(BIN)/hadolint --ignore DL3008 Containerfile  # Debian keeps no earlier versions that one could pin
	$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec contrib/compose/compose.yaml
	./contrib/web/check $(VENV)

# Asks the package index for known advisories, so it needs the network. It fails, too, if it cannot ask about a package.
audit: $(STAMP)
	$(BIN)/python -m pip install -q -e '.[audit]' -c requirements.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r requirements.txt

bench: $(STAMP)
	./contrib/setup $(VENV) bench
	$(BIN)/python -m bench $(ARGS)

# The Debian package, for the release of Debian that this runs on: dist/media-gallery_….deb
deb:
	./contrib/deb/build dist

docs: $(STAMP)
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
