# Two commands on a fresh machine with Python 3.11, each complete in itself:
#   make zoo    install, then build the digits zoo
#   make test   install, then run the tests   (ARGS="-m 'not gpu and not network'" runs the slow ones too)
# And `make lint` (ruff), `make types` (mypy), `make docs` (writes docs/reference/ anew, runs
# what the pages show, and builds the site into site/), `make page` (the page's bundle from its sources; needs npm).
PYTHON ?= python3.11
VENV ?= .venv
ARGS ?= -n auto --maxprocesses 4 --dist worksteal
NATIVE := $(wildcard zoo_datasets/networks/native/*.cpp zoo_datasets/networks/native/*.h) CMakeLists.txt

# Else every process of the tests compiles the packages anew: a third of the default run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: zoo test lint types docs page

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
	$(VENV)/bin/python -m pytest -q tests/test_docs.py tests/test_readme.py tests/test_site.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet

page:
	cd zoo_datasets/page/app && npm ci --silent && npm run build

# The kernels are compiled here; editing Python needs no new install.
$(VENV)/installed: pyproject.toml $(NATIVE)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@
