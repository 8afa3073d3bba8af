# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-faults lint format benchmarks clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "wmsweep needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $(INSTALLED)

demo: install ## render, train 12 variants, analyse, report: minutes on 2 cores
	$(BIN)/wmsweep run search_spaces/quickstart.yaml

test: install ## the whole test suite
	$(BIN)/python -m pytest -m "not faults"

test-faults: install ## tests that kill what they started
	$(BIN)/python -m pytest -m faults

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: install
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.overhead

clean:
	rm -rf $(VENV) build dist *.egg-info
