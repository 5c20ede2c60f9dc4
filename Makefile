# `make demo` and `make test` each make .venv and install into it; a second call finds it ready.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test slow check lint types fast parity docs format clean

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

# What other libraries write, loaded here: they get an environment of their own. The table goes to benchmarks/.
PEERS := torchvision timm cadene pytorchcv keras
parity: $(READY)
	test -x .parity/bin/python || $(PYTHON) -m venv .parity
	.parity/bin/pip install --quiet torch==2.13.0 numpy pillow rich safetensors h5py keras pyyaml huggingface_hub six scipy requests
	.parity/bin/pip install --quiet --no-deps torchvision timm==1.0.31 pretrainedmodels==0.7.4 pytorchcv==0.0.74
	for peer in $(PEERS); do PYTHONPATH=src .parity/bin/python tests/parity/peers.py .parity/files $$peer; done
	$(BIN)/python tests/parity/check.py .parity/files > benchmarks/parity.md

# What is generated from facts and networks; tests hold it to them.
docs: $(READY)
	$(BIN)/convarium tree --svg docs/tree.svg
	$(BIN)/convarium compare --figure docs/compare.svg
	$(BIN)/convarium claims --markdown docs/claims.md
	$(BIN)/convarium describe inception_v4 --svg docs/inception_v4.svg
	$(BIN)/python docs/glyphs.py docs/glyphs.jpg
	$(BIN)/python docs/gradient_flow.py docs/gradient_flow.svg
	$(BIN)/python docs/explanations.py docs

format: $(READY)
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

# The exact versions that the tests passed with are in constraints.txt.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv .parity .pytest_cache .mypy_cache .ruff_cache convarium-demo
