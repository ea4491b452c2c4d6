# Two commands: `make demo` (the main job on real images) and `make test` (everything that CI runs).
# `make nightly` draws 10,000 random shapes for the kernels, against float64: some minutes.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test check nightly clean

demo: $(STAMP)
	$(BIN)/normattn demo --out runs/demo

test: $(STAMP) check
	$(BIN)/python tests/browser/setup.py
	$(BIN)/pytest -q -n 2

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

nightly: $(STAMP)
	$(BIN)/python tests/kernels/fuzz.py 10000

$(STAMP): pyproject.toml setup.py $(wildcard src/normattn/kernels/cpu/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist runs
