# Every target works in a fresh clone: `.venv` is made on first use, with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# One thread per process: pytest-xdist runs two of them on two cores.
SINGLE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PYTEST := $(SINGLE) $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: help setup demo demo-nlp demo-speech demo-medical test test-slow lint types imports docs format clean

help:
	@echo "make demo       adapt a backbone to generated surfaces with defects (under 90 s, offline)"
	@echo "make demo-nlp   adapt a text encoder to sample tickets (under 2 minutes, offline)"
	@echo "make demo-speech   adapt a recogniser to synthesised calls (under 2 minutes, offline)"
	@echo "make demo-medical  adapt a backbone to chest phantoms in DICOM (under 90 s, offline)"
	@echo "make test       everything that must pass before a commit"
	@echo "make test-slow  the tests marked slow"
	@echo "make setup      create .venv and install everything"
	@echo "make format     let ruff format the code"

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	@touch $@

demo: setup
	$(BIN)/python -m recipes.vision fit --config recipes/vision/configs/demo.yaml
	$(BIN)/python -m recipes.vision test "$$(ls -td runs/vision/demo-*/ | head -n 1)"

demo-nlp: setup
	$(BIN)/python -m recipes.nlp fit --config recipes/nlp/configs/demo.yaml
	$(BIN)/python -m recipes.nlp test "$$(ls -td runs/nlp/demo-*/ | head -n 1)"

demo-speech: setup
	$(BIN)/python -m recipes.speech fit --config recipes/speech/configs/demo.yaml
	$(BIN)/python -m recipes.speech test "$$(ls -td runs/speech/demo-*/ | head -n 1)"

demo-medical: setup
	$(BIN)/python -m recipes.medical fit --config recipes/medical/configs/demo.yaml
	$(BIN)/python -m recipes.medical test "$$(ls -td runs/medical/demo-*/ | head -n 1)"

test: lint types imports docs
	$(PYTEST) -m "not slow and not gpu and not network"

test-slow: setup
	$(PYTEST) -m "slow and not gpu and not network"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv site build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
