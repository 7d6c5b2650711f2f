# Two commands: `make demo` runs the main job on a fresh machine, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs clean

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/zoo: $(VENV)/ready
	$(BIN)/pip install --quiet -c constraints.txt -e '.[zoo]'
	$(BIN)/pip install --quiet --no-deps -c constraints.txt torchvision
	touch $@

demo: $(VENV)/ready
	$(BIN)/graphmerge demo --force

test: $(VENV)/zoo lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -q
	$(BIN)/graphmerge zoo check models_zoo -k lstm -k vit --jobs 2 --quiet --out out/zoo

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/ready
	$(BIN)/python tools/api_docs.py

clean:
	rm -rf $(VENV) out demo runs
