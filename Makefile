# Every command of the project; docs/contributing.md explains them.
# `make up` needs python3, python3-venv, make and git; `make test` installs the rest where it may.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make test` and `make bench` run beside our own code, as Debian packages.
TEST_PACKAGES := libiscsi-bin qemu-utils qemu-block-extra e2fsprogs tgt gcc libc6-dev libiscsi-dev

.PHONY: up test check tests bench sim format clean packages
.DEFAULT_GOAL := up

up: $(VENV)/.installed
	exec $(BIN)/pyjiva up demo --size 10GiB --replicas 3

test: packages $(VENV)/.installed-test
	$(MAKE) --no-print-directory check
	$(MAKE) --no-print-directory tests

tests: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/tidy

format: $(VENV)/.installed-test
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --fix --quiet .

# A long run of the simulation: make sim SIM_WORLDS=1000
sim: $(VENV)/.installed-test
	SIM_WORLDS=$${SIM_WORLDS:-500} $(BIN)/python -m pytest tests/sim

bench: packages $(VENV)/.installed-bench
	$(BIN)/python -m bench --markdown docs/explanation/performance.md $(BENCH_ARGUMENTS)

packages:
	@scripts/install-packages $(TEST_PACKAGES)

# The environment is made again when it was made elsewhere or by another python.
$(VENV)/.installed: pyproject.toml scripts/make-venv
	scripts/make-venv $(PYTHON) $(VENV) "" $@

$(VENV)/.installed-test: pyproject.toml scripts/make-venv
	scripts/make-venv $(PYTHON) $(VENV) "[test]" $@

$(VENV)/.installed-bench: pyproject.toml scripts/make-venv
	scripts/make-venv $(PYTHON) $(VENV) "[test,bench]" $@

clean:
	rm -rf $(VENV) bench/build .mypy_cache .ruff_cache .pytest_cache .hypothesis
