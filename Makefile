# One command each; every one of them first makes the virtual environment it needs.
#
#   make demo    a corpus, a model trained on it, its table, and music: below demo/
#   make data    the rows of the packaged models from their sources in SOURCES, below data/
#   make test    format check, lint, types, and all tests but the slow ones
#   make check   the same with all tests; continuous integration runs it
#
# Variables: PYTHON (which Python 3.11 or 3.12 makes the environment), VENV (where it lies),
# SOURCES (folder with a clone or an archive of each source of docs/data.md),
# WORKERS (processes that run tests; one more than two cores, as some wait for others).

VENV ?= .venv
SOURCES ?= sources
WORKERS ?= 3
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.12 python3.11 python3 python)

# A candidate may be a version manager's shim that exists and only prints an error, another
# version, or a Python whose venv module is packaged apart: it is tried, not looked up.
SUITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

.DELETE_ON_ERROR:
.PHONY: help demo data test types tests check clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed-demo
	@$(VENV)/bin/python -m experiments.demo

data: $(VENV)/.installed-demo
	@$(VENV)/bin/python -m experiments.release.rebuild --sources=$(SOURCES) --output=data

# Tests marked `slow` train, kill or start whole programs; pytest prints how many did not run.
test: SELECTION := -m "not slow"

test check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	@$(MAKE) --no-print-directory -j 2 types tests SELECTION='$(SELECTION)'

# Both at once: some tests wait for processes that they start, so that a core is free.
types:
	$(VENV)/bin/mypy

tests:
	$(VENV)/bin/python -m tests.warm_up
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist=worksteal $(SELECTION)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find musicvae_jax data_pipeline experiments tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@for python in $(PYTHONS); do \
	  if "$$python" -c '$(SUITS)' >/dev/null 2>&1; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    exec "$$python" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "error: none of '$(PYTHONS)' is a Python 3.11 or 3.12 with its venv module" \
	  "(Debian, Ubuntu: apt install python3-venv); name one: make PYTHON=/path/to/python3.11" >&2; \
	exit 2

# The stamp is older than setup.cfg when the dependencies may have changed.
$(VENV)/.installed-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing the project and its dependencies into $(VENV)"
	$(VENV)/bin/python -m pip install --disable-pip-version-check -e '.[$*]'
	@touch $@
