# `make demo` and `make test` each make .venv and install into it; a second call finds it ready.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test slow check lint types fast docs format clean

demo: $(READY)
	$(BIN)/convarium demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow"

# Every network exported, run in ONNX, overfitted and trained: hours. The table of results goes to docs/.
slow: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadgroup -m slow --table docs/every-network.md

check: lint types fast

lint: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(READY)
	$(BIN)/mypy

fast: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow and not long"

# What is generated from facts and networks; tests hold it to them.
docs: $(READY)
	$(BIN)/convarium tree --svg docs/tree.svg
	$(BIN)/convarium compare --figure docs/compare.svg
	$(BIN)/convarium claims --markdown docs/claims.md
	$(BIN)/convarium describe inception_v4 --svg docs/inception_v4.svg
	$(BIN)/python docs/glyphs.py docs/glyphs.jpg

format: $(READY)
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

# The exact versions that the tests passed with are in constraints.txt.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache convarium-demo
