# The two commands are `make train` and `make test`. Both make .venv on first use.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

.PHONY: train test instruct notebook format clean

train: $(VENV)/.installed  ## train the lecture preset; ARGS="..." adds flags
	$(BIN)/minigpt train $(ARGS)

test: $(VENV)/.installed-test  ## lint, types and tests; ARGS="..." adds flags for pytest
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses auto --dist loadfile $(ARGS)

instruct: $(VENV)/.installed  ## from a base on Shakespeare to a model that follows instructions, to talk with
	$(BIN)/minigpt train --preset cpu-2min --out runs/base --overwrite --n-embd 128 --block-size 64 --batch-size 32 \
		--max-iters 700 $(ARGS)
	$(BIN)/minigpt finetune runs/base --out runs/instructed --task upper --task first --task last --task count \
		--task reverse --task sort --task add --task pairs --ask upper+reverse --ask reverse+upper --batch-size 64 \
		--max-iters 8000 --eval-interval 500 --optimizer muon --learning-rate 2e-3 --warmup-iters 100 \
		--weight-decay 0.1 --schedule cosine

notebook: $(VENV)/.installed-test  ## run notebooks/mini_gpt.ipynb in full and keep its outputs
	$(BIN)/python notebooks/execute.py --write

format: $(VENV)/.installed-test  ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# The stamps make a second call skip the installation until one of these two files changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test]" --constraint constraints.txt
	touch $@
