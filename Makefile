# Needs Python >= 3.11 with pip, and make. Everything is installed into .venv and nothing outside this folder changes.
#
#   make demo    train one layer of linear attention, compare it with gradient descent, write an interactive report
#   make demo-lm  fetch a small language model and write its card: how it learns in context, and what it shows of it
#   make test    style, types, import contracts and all tests
#   make smoke   every paper from end to end at its smallest size, and what else is too slow for every run
#   make browser  the report, the dashboard and the site in Chromium (apt-get install chromium chromium-driver npm)
#   make lint    the first three of them
#   make verdicts  tell the verdicts of results/ to the installed command `meta-icl papers`
#   make site    build the documentation into docs/_build/html, a folder that works without a server
#   make notebooks  run the notebooks and keep them, with their outputs, for the site
#   make readme  bring the README's table of papers up to date with results/
#   make format  let ruff rewrite what it can
#   make clean   remove caches and builds;  make distclean  removes .venv as well

PYTHON ?= python3
BIN := .venv/bin
PAPER ?= rossi2024
PRESET ?= demo

# Tests are many small programs: compile each once, and keep it for the next time (how they are compiled is said in
# tests/conftest.py). The tests of a file share programs and fixtures, so they go to one worker (--dist loadfile).
TEST_ENV := OMP_NUM_THREADS=1 \
  JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.cache/jax" \
  JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

# Bytecode is compiled when first imported, which saves minutes where most of it never is; where it is not kept, every
# process that imports JAX and its neighbours spends 8 seconds on parsing them.
export PYTHONDONTWRITEBYTECODE :=

# The pip at hand installs into the environment, itself too; that `venv` unpacks one takes ten seconds more. An old pip
# cannot, and some systems ship Python without any.
INSTALL = set -- $(PYTHON) -m pip --python $(BIN)/python; \
  "$$@" --version > /dev/null 2>&1 || { $(BIN)/python -m ensurepip > /dev/null; set -- $(BIN)/python -m pip; }; \
  "$$@" install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt pip --editable

.PHONY: demo demo-lm test smoke browser lint verdicts readme site notebooks format clean distclean
.DELETE_ON_ERROR:

demo: .venv/core.stamp
	$(BIN)/meta-icl reproduce $(PAPER) --preset $(PRESET)

demo-lm: .venv/lm.stamp
	$(BIN)/meta-icl models get smollm2
	$(BIN)/meta-icl card smollm2

# Style and types take a quarter of a minute of one core, beside the tests; what they say stands at the end.
test: .venv/dev.stamp
	@mkdir -p .cache
	@$(MAKE) --no-print-directory lint > .cache/lint.log 2>&1 & lint=$$!; \
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS); tests=$$?; \
	wait $$lint; style=$$?; cat .cache/lint.log; test $$tests = 0 -a $$style = 0

smoke: .venv/dev.stamp
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m slow $(PYTEST_ARGS)

browser: .venv/dev.stamp .venv/docs.stamp
	npm install --silent --no-save --prefix .cache axe-core
	$(TEST_ENV) $(BIN)/python -m pytest -m slow tests/apps/report tests/apps/dashboard tests/docs/test_site*.py $(PYTEST_ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --cache-dir .cache/import_linter
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python --min-severity error --summary=none

verdicts: .venv/core.stamp
	$(BIN)/python -m meta_icl.apps.cli.results results src/meta_icl/papers/verdicts.json

readme: .venv/core.stamp
	$(BIN)/python docs/_ext/readme.py

site: .venv/docs.stamp
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

notebooks: .venv/notebooks.stamp
	@mkdir -p docs/notebooks
	@for source in notebooks/*.py; do name=$$(basename $$source .py); \
	  $(BIN)/jupytext --quiet --to ipynb --execute --output docs/notebooks/$$name.ipynb $$source || exit 1; \
	done

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "meta_icl needs Python 3.11 or newer; choose one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --without-pip .venv

.venv/core.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing meta_icl into .venv (about a minute)"
	@$(INSTALL) .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing meta_icl and its tools into .venv (a minute or two)"
	@$(INSTALL) ".[dev]"
	@touch $@ .venv/core.stamp

.venv/lm.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing meta_icl and what reads language models into .venv (about a minute)"
	@$(INSTALL) ".[lm]"
	@touch $@ .venv/core.stamp

.venv/notebooks.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing meta_icl and what renders notebooks into .venv (about a minute)"
	@$(INSTALL) ".[notebooks]"
	@touch $@ .venv/core.stamp

.venv/docs.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing meta_icl and what builds the site into .venv (about a minute)"
	@$(INSTALL) ".[docs]"
	@touch $@ .venv/core.stamp

clean:
	rm -rf .cache build dist docs/_build docs/papers docs/reference docs/standing.md docs/rooms.svg .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
