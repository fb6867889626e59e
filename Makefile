# The two commands are `make train` and `make test`. Both create .venv on first use.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif

# Some container images forbid Python to keep compiled modules. Without them each process takes twice as long to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test docs test-without-kernels release-check instruct notebook format clean

train: $(VENV)/.installed  ## train the lecture preset; ARGS="..." adds flags
	$(BIN)/minigpt train $(ARGS)

test: $(VENV)/.installed-test  ## lint, types and tests; ARGS="..." adds flags for pytest
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

# The hand-written kernels are optional: in a copy of the tree without them these tests pass as well.
WITHOUT_KERNELS ?= tests/model tests/generation tests/training/test_loop.py tests/test_acceleration.py
COPY := build/without-kernels

test-without-kernels: $(VENV)/.installed-test  ## part of the tests, with minigpt/kernels and tests/kernels moved away
	rm -rf $(COPY)
	mkdir -p $(COPY)
	cp -R minigpt tests benchmarks docs notebooks release .github *.md CITATION.cff Makefile pyproject.toml constraints.txt $(COPY)
	rm -r $(COPY)/minigpt/kernels $(COPY)/tests/kernels
	cd $(COPY) && PYTHONPATH=$(CURDIR)/$(COPY) $(CURDIR)/$(BIN)/python -m pytest --numprocesses auto --dist loadfile \
		--no-loadscope-reorder $(WITHOUT_KERNELS)

# Another Python of this machine, which `make release-check` tests too.
NEWEST ?= python3.13

release-check: test docs  ## what takes too long for every change: long tests, fuzzing, the wheel, Pythons
	$(BIN)/pytest --numprocesses auto --dist loadfile -m "long or browser"
	$(MAKE) test-without-kernels WITHOUT_KERNELS=tests
	$(BIN)/python benchmarks/fuzz.py --files 6000
	$(BIN)/python benchmarks/soak.py --kills 20 --operations 20 --fine-tuning-kills 2
	$(BIN)/python notebooks/execute.py
	$(BIN)/python release/check_wheel.py --extras
	$(BIN)/python release/lowest_versions.py
	$(MAKE) test VENV=build/$(NEWEST) PYTHON=$(NEWEST)

docs: $(VENV)/.installed-docs  ## build the site in build/site/html; a warning or a broken link fails
	$(BIN)/python docs/site/build.py

instruct: $(VENV)/.installed  ## train a base on Shakespeare, then teach it to follow instructions
	$(BIN)/minigpt train --preset cpu-2min --out runs/base --overwrite --n-embd 128 --block-size 64 --batch-size 32 \
		--max-iters 700 $(ARGS)
	$(BIN)/minigpt finetune runs/base --out runs/instructed --task upper --task first --task last --task count \
		--task reverse --task sort --task add --task pairs --ask upper+reverse --ask reverse+upper --batch-size 64 \
		--max-iters 8000 --eval-interval 500 --optimizer muon --learning-rate 2e-3 --warmup-iters 100 \
		--weight-decay 0.1 --schedule cosine

notebook: $(VENV)/.installed-test  ## run notebooks/mini_gpt.ipynb and keep its outputs
	$(BIN)/python notebooks/execute.py --write

format: $(VENV)/.installed-test  ## fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# The stamp files let a second call skip the installation until one of these two files changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]" --constraint constraints.txt
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test]" --constraint constraints.txt
	touch $@
