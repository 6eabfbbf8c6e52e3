# SPDX-License-Identifier: MIT
#
# Each target sets up what it needs in .venv, says what it does, and works as root or not.

SHELL := bash
.SHELLFLAGS := -o pipefail -c

VENV ?= .venv
PYTHON ?= python3
WHEELS_PYTHON ?= 3.12
BIN := $(VENV)/bin
COMPILED ?= .venv-compiled
STAMP := $(VENV)/.skbus-dev-installed
RUN_STAMP := $(VENV)/.skbus-installed
BENCH_STAMP := $(VENV)/.skbus-bench-installed

# pip, with a name for each thing that it gets, so that nobody waits before a silent terminal.
PIP_INSTALL = python -m pip install --disable-pip-version-check --progress-bar off
SAY_WHAT = awk 'function say(what) { if (what != last) print "    " what; last = what; fflush() } \
  /^Collecting / { say("getting " $$2) } \
  /Installing build dep|Preparing editable|Building (editable|wheel) for/ { say("building skbus") } \
  /^Installing collected/ { say("unpacking") } \
  /WARNING|ERROR/ { say($$0) }'

# A wheel is built with all that pip and the build say; of that, its steps and errors are shown.
PIP_WHEEL = python -m pip wheel --disable-pip-version-check --verbose --no-deps --wheel-dir dist
SAY_BUILD = awk '{ sub(/^ +/, "") } /^==> / { sub(/==>/, "   ") } \
  /^    |^ERROR|[Ee]rror:|mypyc refused/ { print; fflush() }'

.DEFAULT_GOAL := help
.PHONY: help demo quick unit durations test readme bench bench-peers bench-compare operations mutants check format compose wheels wheel compiled test-compiled clean

help: ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(RUN_STAMP): pyproject.toml
	@echo "==> setting up $(VENV) (a virtual environment with skbus), a minute"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skbus needs Python 3.11 or newer; choose one with make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/$(PIP_INSTALL) --editable '.[httpx,load]' | $(SAY_WHAT)
	@$(BIN)/python -m compileall -q common services  # else every process does it, where PYTHONDONTWRITEBYTECODE is set
	@touch $@

$(STAMP): $(RUN_STAMP)
	@echo "==> installing the development tools"
	@$(BIN)/$(PIP_INSTALL) --editable '.[dev]' | $(SAY_WHAT)
	@touch $@

demo: $(RUN_STAMP) ## Fetch pages both ways between Linux and our stack, and show one request's path.
	@echo "==> demo: our stack and the Linux kernel at the two ends of a virtual cable"
	@$(BIN)/skbus demo

NO_NAMESPACES = -m "not lab and not compose and not readme"
# LABS=2 runs the files of these tests two at a time; without it, one test after the other.
LABS ?=
IN_NAMESPACES = --durations=20 -m "lab and not compose and not readme" $(if $(LABS),-n $(LABS) --dist loadfile)

quick: $(STAMP) ## Run the short tests: every layer, the codec, the sockets, in about a minute.
	@echo "==> the short tests (pytest, on all cores), $$($(BIN)/python --version)"
	@$(BIN)/pytest -n logical --quick --durations=5

unit: $(STAMP) ## Run the tests that need no namespaces: with make PYTHON=python3.13 VENV=.venv-3.13, by another Python.
	@echo "==> tests on processors and virtual clocks alone (pytest, on all cores), $$($(BIN)/python --version)"
	@$(BIN)/pytest -n logical --durations=10 $(NO_NAMESPACES)

durations: $(STAMP) ## Record which tests take long, for make quick (tests/durations.json).
	@echo "==> the tests of make unit, and how long each takes"
	@$(BIN)/pytest -n logical --durations=20 --record-durations $(NO_NAMESPACES)

test: unit ## Run all tests but those that need a Docker engine.
	@echo "==> tests in network namespaces, against the kernel (pytest)"
	@$(BIN)/pytest $(IN_NAMESPACES)

readme: $(STAMP) ## Run README.md and docs/tutorial.md as they are printed, on a fresh clone; as root, and as an ordinary user.
	@echo "==> README.md and docs/tutorial.md, as printed"
	@$(BIN)/pytest --durations=0 -m "readme and not compose" tests/readme

$(BENCH_STAMP): $(STAMP)
	@echo "==> installing what is measured beside us"
	@$(BIN)/$(PIP_INSTALL) --editable '.[dev,bench]' | $(SAY_WHAT)
	@touch $@

bench: $(BENCH_STAMP) ## Measure skbus, compiled too, the kernel and pmd-pytcp in one run: a table, and JSON in bench-out/.
	@test -x $(COMPILED)/bin/skbus || $(MAKE) --no-print-directory compiled || \
	  echo "==> without the compiled build, for the reason above"
	@echo "==> benchmarks (some minutes)"
	@$(BIN)/python tests/bench/bench.py $(BENCH)

bench-peers: $(BENCH_STAMP) ## The same beside gVisor's netstack (Go) and lwIP (C), which it builds from Debian's packages.
	@test -x $(COMPILED)/bin/skbus || $(MAKE) --no-print-directory compiled || \
	  echo "==> without the compiled build, for the reason above"
	@echo "==> benchmarks (some minutes; Go's first build takes half of one)"
	@$(BIN)/python tests/bench/bench.py --subjects linux,gvisor,lwip,pmd,skbus,compiled,fused \
	  --only bulk_in,bulk_out,rr,crr,udp_in,udp_out,http --idle 0 $(BENCH)

bench-compare: $(BENCH_STAMP) ## Measure what lies here against another commit, in pairs: make bench-compare BASE=HEAD~1.
	@test -n "$(BASE)" || { echo "which commit? make bench-compare BASE=HEAD~1" >&2; exit 2; }
	@echo "==> $(BASE) and what lies here, round by round in turn (some minutes)"
	@$(BIN)/python tests/bench/compare.py "$(BASE)" $(BENCH)

operations: $(STAMP) ## Count what a small message takes, and record it for the test that holds it.
	@echo "==> system calls, messages, function calls of small messages"
	@$(BIN)/python tests/bench/operations.py --record

mutants: $(STAMP) ## Change the code a little, often, and see whether the tests notice (docs/mutants.md; half an hour).
	@echo "==> installing mutmut"
	@$(BIN)/$(PIP_INSTALL) --editable '.[dev,mutants]' | $(SAY_WHAT)
	@echo "==> mutants (nothing is said until a module is done)"
	@$(BIN)/python tests/mutants/run.py $(MUTANTS)

check: $(STAMP) ## Lint, check the format, check the types.
	@echo "==> ruff check"
	@$(BIN)/ruff check
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check
	@echo "==> mypy"
	@$(BIN)/mypy

format: $(STAMP) ## Format the code.
	@$(BIN)/ruff format

compose: wheels ## Run the tests of docker-compose.yml; needs a Docker engine.
	@echo "==> tests of docker-compose.yml"
	@$(BIN)/pytest --durations=10 -m compose tests/compose tests/readme

wheels: wheel ## Get wheels for the image into deploy/wheels: docker build then needs no network.
	@echo "==> wheels for the image's Python $(WHEELS_PYTHON), in deploy/wheels"
	@rm -rf deploy/wheels && mkdir -p deploy/wheels
	@$(BIN)/python -m pip download --progress-bar off --only-binary=:all: --python-version $(WHEELS_PYTHON) \
	  $(foreach libc,2014 _2_17 _2_26 _2_27 _2_28,--platform manylinux$(libc)_$$(uname -m)) --platform any \
	  --dest deploy/wheels "$$(echo dist/skbus-*-none-any.whl)[load]" hatchling mypy setuptools | $(SAY_WHAT)
	@cp dist/skbus-*.whl deploy/wheels

wheel: $(RUN_STAMP) ## Build skbus's wheels into dist: the pure one, and where there is a C compiler a compiled one.
	@echo "==> the pure wheel, in dist"
	@rm -rf dist
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@echo "==> the compiled wheel, in dist (minutes)"
	@SKBUS_COMPILE=auto $(BIN)/$(PIP_WHEEL) . 2>&1 | $(SAY_BUILD)

compiled: ## Build skbus compiled by mypyc, in .venv-compiled (minutes; docs/performance.md).
	@echo "==> setting up $(COMPILED) (a virtual environment with skbus, compiled)"
	@test -x $(COMPILED)/bin/python || $(PYTHON) -m venv $(COMPILED) || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(COMPILED)/bin/$(PIP_INSTALL) 'hatchling>=1.25' 'mypy>=1.13' 'setuptools>=70' | $(SAY_WHAT)
	@echo "==> compiling (mypyc and the C compiler say nothing for some minutes)"
	@rm -rf build/wheel-compiled
	@SKBUS_COMPILE=1 $(COMPILED)/bin/python -m hatchling build --target wheel --directory build/wheel-compiled >/dev/null
	@echo "==> installing it"
	@wheel=$$(echo build/wheel-compiled/skbus-*.whl) && \
	  $(COMPILED)/bin/$(PIP_INSTALL) "$$wheel[httpx]" | $(SAY_WHAT) && \
	  $(COMPILED)/bin/python -m pip install --quiet --force-reinstall --no-deps "$$wheel"
	@echo "==> done: $(COMPILED)/bin/skbus is compiled, $(BIN)/skbus (make demo) is not; all else is the same"

test-compiled: compiled ## Run all tests but those that need a Docker engine, with what make compiled builds.
	@echo "==> installing the development tools"
	@$(COMPILED)/bin/$(PIP_INSTALL) "$$(echo build/wheel-compiled/skbus-*.whl)[dev]" | $(SAY_WHAT)
	@echo "==> tests on processors and virtual clocks alone, compiled (pytest, on all cores)"
	@$(COMPILED)/bin/pytest -n logical --durations=10 $(NO_NAMESPACES)
	@echo "==> tests in network namespaces, compiled (pytest)"
	@$(COMPILED)/bin/pytest $(IN_NAMESPACES)

clean: ## Remove what the targets above have made.
	@echo "==> removing $(VENV), $(COMPILED), caches and what was built"
	@rm -rf $(VENV) .venv-3.* $(COMPILED) dist build bench-out deploy/wheels .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find common services tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
