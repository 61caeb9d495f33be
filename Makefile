# Two commands set everything up by themselves, in .venv with the versions of constraints.txt:
#   make demo    labels the example video        make test    runs the test suite
PYTHON ?= python3
BIN := .venv/bin
OUT ?= out/goat

.PHONY: demo test check format clean
demo: .venv/demo
	rm -rf $(OUT)
	$(BIN)/vcorr propagate examples/goat.mp4 examples/goat_mask.png --out $(OUT)

test: .venv/dev
	$(BIN)/python -m pytest

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A stamp a set of extras, so that nothing is installed twice. dev holds all that demo needs.
.venv/demo: pyproject.toml constraints.txt | $(BIN)/python
	test -e .venv/dev || $(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[check]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
