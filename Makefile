# What a person types here; docs/contributing.md explains each.
# `make up` needs python3, python3-venv, make and git; `make test` installs the rest where it may.
.DEFAULT_GOAL := help
.PHONY: help up test tests check audit format bench bench-rebuild bench-stall bench-scale bench-yielding sim torture fuzz suite clean

# `make up UP="demo --size 10GiB --replicas 3 --data /srv/pyjiva"`
UP ?= demo --size 10GiB --replicas 3

help:
	@echo 'make up      run a volume with three replicas on this machine; Ctrl-C stops it'
	@echo 'make test    install what the tests need, then run every check and every test'
	@echo 'make tests   the tests alone: make tests PYTEST="tests/iscsi -k login"'
	@echo 'make check   format, lint, types, the rules of docs/ARCHITECTURE.md and an audit'
	@echo 'make audit   whether a library that is installed has a known vulnerability, as make check asks once a day'
	@echo 'make format  format the sources, and mend what the linter can mend'
	@echo 'make bench   measure, and write docs/explanation/performance.md: BENCH_ARGUMENTS=--help'
	@echo 'make bench-rebuild, make bench-stall   what a rebuild moves; how long a host waits when a replica dies'
	@echo 'make bench-scale   many volumes on one machine, a very large one, many sessions'
	@echo 'make bench-yielding   how much rebuilds, scrubs and the like delay hosts'
	@echo 'make sim     many simulated worlds: make sim SIM_WORLDS=300 SIM_SECONDS=120'
	@echo 'make torture real daemons, real faults, every read checked: make torture TORTURE_SECONDS=1800'
	@echo 'make fuzz    look for inputs that break the target: make fuzz FUZZ_SECONDS=600'
	@echo 'make suite   run libiscsi'"'"'s suite and write docs/reference/libiscsi.md'
	@echo 'make clean   remove what these made, but no data of volumes'

up:
	@scripts/venv
	@exec .venv/bin/pyjiva up $(UP)

test:
	@scripts/debian-packages tests bench
	@timeout 900 scripts/s3-server >/dev/null || true # the tests that need it say that it is missing
	@timeout 1800 scripts/kube-assets >/dev/null || true # here too
	@timeout 900 scripts/image --local-base --root .cache/image >/dev/null || true # as above
	@scripts/test

tests:
	@scripts/venv test
	@exec .venv/bin/python -m pytest $(PYTEST)

check:
	@scripts/check

audit:
	@scripts/audit

format:
	@scripts/venv test
	@.venv/bin/ruff format --quiet
	@.venv/bin/ruff check --fix --quiet

bench:
	@scripts/debian-packages bench
	@scripts/compiled-venv bench
	@exec .venv-compiled/bin/python -m bench --markdown docs/explanation/performance.md $(BENCH_ARGUMENTS)

bench-rebuild bench-stall bench-scale bench-yielding: bench-%:
	@scripts/debian-packages bench
	@scripts/compiled-venv bench
	@exec .venv-compiled/bin/python -m bench.$* --markdown docs/explanation/performance.md $(BENCH_ARGUMENTS)

sim:
	@scripts/sim

torture:
	@scripts/debian-packages tests
	@exec scripts/torture $(TORTURE_ARGUMENTS)

fuzz:
	@scripts/fuzz

suite:
	@scripts/debian-packages tests
	@scripts/venv test
	@exec .venv/bin/python -m tests.real.libiscsi_suite

clean:
	rm -rf .venv .venv-compiled .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache bench/build
	find src tests bench -name __pycache__ -type d -exec rm -rf {} +
