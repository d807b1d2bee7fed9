# Two commands on a fresh machine with Python 3.11, each complete in itself:
#   make zoo    install, then build the digits zoo
#   make test   install, then run the tests   (ARGS="-m 'not gpu and not network'" runs the slow ones too)
# And `make lint` (ruff), `make types` (mypy), `make docs` (writes docs/reference/ anew, then runs what the pages show).
PYTHON ?= python3.11
VENV ?= .venv
ARGS ?= -n auto --maxprocesses 4 --dist worksteal
NATIVE := $(wildcard zoo_datasets/networks/native/*.cpp zoo_datasets/networks/native/*.h) CMakeLists.txt

# Else every process of the tests compiles the packages anew: a third of the default run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: zoo test lint types docs

zoo: $(VENV)/installed
	$(VENV)/bin/python -m zoo_builder --grid grids/digits.yaml

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

types: $(VENV)/installed
	$(VENV)/bin/mypy

docs: $(VENV)/installed
	$(VENV)/bin/python docs/generate.py
	$(VENV)/bin/python -m pytest -q tests/test_docs.py tests/test_readme.py

# The kernels are compiled here; editing Python needs no new install.
$(VENV)/installed: pyproject.toml $(NATIVE)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@
