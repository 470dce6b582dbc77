# One word per command. `make` lists them; `check` never writes, `fix` may.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PYTHON := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Each module is compiled once, and not by each of the many processes that the tests start.
unexport PYTHONDONTWRITEBYTECODE

CXX ?= g++
CPP_SOURCES := $(wildcard csrc/*.cpp)
CPP_TESTS := $(wildcard tests/native/*.cpp)
CPP_HEADERS := $(wildcard csrc/*.hpp tests/native/*.hpp)
NATIVE_CPP := $(wildcard csrc/*.cpp csrc/*.hpp copycat/storage/*.hpp)
CPP_FILES := $(NATIVE_CPP) $(CPP_TESTS) $(wildcard tests/native/*.hpp)
CYTHON_FILES := $(wildcard copycat/storage/*.pyx copycat/storage/*.pxd copycat/storage/*.pxi)
NATIVE_FILES := setup.py $(NATIVE_CPP) $(CYTHON_FILES)

# Arguments of single commands: make demo FILE=x, make test K=word, make sim SEEDS=5000
FILE ?=
DEMO_ARGS ?=
K ?=
TEST_SEEDS ?= 40
TEST_JOBS ?= $(shell expr $$(nproc) + 1)
NEWER_PYTHONS ?= 3.12 3.13 3.14
SEEDS ?= 200
SEED ?=
NAME ?=

# The sanitizers try one in so many of the crash images, flips and steps of the model.
SAN_EVERY ?= 10
ASAN_LIB := build/asan/lib
ASAN_PRELOAD = $(shell $(CXX) -print-file-name=libasan.so):$(shell $(CXX) -print-file-name=libstdc++.so)
ASAN_ENV = LD_PRELOAD=$(ASAN_PRELOAD) ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc \
	PYTHONPATH=$(ASAN_LIB) PYTHONDONTWRITEBYTECODE=1

# Drivers in C++ alone, one folder of object files per sanitizer. make fuzz FUZZ_SEED=7 FUZZ_PERCENT=1000
FUZZ_SEED ?= 1
FUZZ_PERCENT ?= 100
FUZZERS := fuzz_frames fuzz_hard_state fuzz_packed fuzz_recovery
DRIVER_FLAGS := -std=c++20 -O1 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all \
	-Icsrc -Itests/native
DRIVER_OBJECTS := $(CPP_SOURCES:csrc/%.cpp=%.o) driver.o
# Every scan makes and frees windows: freed memory is not quarantined for long.
FUZZ_ENV := ASAN_OPTIONS=quarantine_size_mb=4:abort_on_error=1 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

.PHONY: help runtime build demo quick test check fix pythons sim chaos chaos-short explore san \
	fuzz tsan bench sweep golden ci clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) \
	| awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# --- building ---------------------------------------------------------------------------------

# step WORDS COMMAND: prints what is done, and how long it took.
STEP := step() { local began=$$SECONDS; printf '%s ... ' "$$1"; shift; "$$@"; \
	printf '%s s\n' "$$((SECONDS - began))"; }; step

$(VENV)/.stamp-venv:
	@for tool in $(firstword $(CXX)) git; do command -v $$tool > /dev/null || { \
	  echo "copycat is built with $$tool, which is not installed"; exit 1; }; done
	@test -n "$(BASE_PYTHON)" && $(BASE_PYTHON) -c \
	  'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "copycat needs Python 3.11 or later: make BASE_PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(PYTHON) || { $(STEP) "making $(VENV)" $(BASE_PYTHON) -m venv $(VENV); }
	@touch $@

# The packages that running copycat needs. The extension is compiled once, in place, by the rule below.
$(VENV)/.stamp-runtime: pyproject.toml | $(VENV)/.stamp-venv
	@$(STEP) "installing what builds copycat" \
	  $(PYTHON) -m pip install -q "setuptools>=77" "cython>=3.1" wheel
	@$(STEP) "installing what copycat needs" env NO_EXTENSION=1 \
	  $(PYTHON) -m pip install -q --no-build-isolation -e ".[cli,speed]"
	@touch $@

$(VENV)/.stamp-extension: $(VENV)/.stamp-runtime $(NATIVE_FILES)
	@$(STEP) "building the extension, about a minute" \
	  $(PYTHON) setup.py -q build_ext --inplace
	@touch $@

# The packages that test and check copycat.
$(VENV)/.stamp-packages: pyproject.toml $(VENV)/.stamp-runtime
	@$(STEP) "installing what tests and checks copycat" env NO_EXTENSION=1 \
	  $(PYTHON) -m pip install -q --no-build-isolation -e ".[cli,speed,tune,test,check]"
	@touch $@

runtime: $(VENV)/.stamp-extension

build: $(VENV)/.stamp-extension $(VENV)/.stamp-packages ## make .venv with all tools, build the extension

# --- running ----------------------------------------------------------------------------------

demo: runtime ## five processes, a SIGKILL, proof; FILE=path for your own lines
	$(PYTHON) -m copycat demo $(if $(FILE),--file "$(FILE)") $(DEMO_ARGS)

quick: build ## the tests that are not slow, in one to two minutes; K=word selects
	$(PYTHON) -m pytest -q -m "not slow" $(if $(K),-k "$(K)")

# The folders of tests/ that take longest run beside each other, the longest first, one more than
# there are cores: tests wait, too. The bugs, which use all cores by themselves, come last.
# part-rest is whatever no other part names.
PYTEST_ALL = $(PYTHON) -m pytest -q --durations=5 --seeds=$(TEST_SEEDS)
TEST_FOLDERS := sim log cli server client replica raft machine bugs
TEST_PARTS := $(subst part-log,part-log part-rest,$(TEST_FOLDERS:%=part-%))

test: build ## the whole test suite with 40 fresh simulator seeds; K=word selects
ifneq ($(K),)
	$(PYTEST_ALL) -k "$(K)"
else
	@echo "$(words $(TEST_PARTS)) parts, $(TEST_JOBS) at a time; each is printed when it has ended"
	@$(MAKE) --no-print-directory -j $(TEST_JOBS) -k -O $(TEST_PARTS)
endif

part-rest:
	@echo "--- tests, without the folders of the other parts"
	@$(PYTEST_ALL) $(TEST_FOLDERS:%=--ignore=tests/%) tests < /dev/null

part-%:
	@echo "--- tests/$*"
	@$(PYTEST_ALL) tests/$* < /dev/null

pythons: ## the quick tests on each newer Python that is installed here
	@for version in $(NEWER_PYTHONS); do \
	  python=$$(ls -d "$$HOME"/.pyenv/versions/$$version.*/bin/python$$version 2> /dev/null \
	    | tail -n 1) || python=python$$version; \
	  if ! "$$python" -c '' 2> /dev/null; then \
	    echo "Python $$version is not installed: nothing was tested on it"; continue; fi; \
	  $(MAKE) --no-print-directory VENV=build/python$$version BASE_PYTHON="$$python" build; \
	  build/python$$version/bin/python -m pytest -q -p no:cacheprovider -m "not slow"; \
	done

sim: build ## SEEDS=n searches n fresh seeds on all cores; SEED=n replays one
	$(PYTHON) -m copycat.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

CHAOS = $(PYTHON) -m tests.chaos $(if $(SEED),--seed $(SEED))

chaos: build ## five processes, 200 faults, 100,000 operations: about ten minutes
	$(CHAOS) --faults 200 --operations 100000

chaos-short: build ## the same with 15 faults and 5,000 operations; SEED=n draws the faults
	$(CHAOS) --faults 15 --operations 5000 --pause 3

explore: build ## all orders of a few events of three and four cores; NAME=three selects
	$(PYTHON) -m tests.raft.exploration $(NAME)

bench: build ## benchmarks, beside their peers, to bench/results/; K=word selects
	$(PYTHON) -m pip install -q "lmdb>=1.6" "matplotlib>=3.9" "pysyncobj>=0.3.14" \
	  "rocksdict>=0.3.25"
	mkdir -p bench/results
	$(PYTHON) -m pytest bench -q --benchmark-json=bench/results/latest.json $(if $(K),-k "$(K)")
	$(PYTHON) -m bench.report bench/results/latest.json bench/results/small.json \
	  | tee bench/results/report.md

sweep: build ## sweeps of segment size and compaction threshold: docs/sweep*
	$(PYTHON) -m bench.sweep docs

golden: build ## rewrite golden files and scripts, then show what changed
	$(PYTHON) -m pytest -q --rewrite tests/scripts tests/log tests/protocol tests/cli
	git --no-pager diff --stat -- tests

# --- checking ---------------------------------------------------------------------------------

check: build ## format, lint, types, imports, prose, C++; never writes
	ruff format --check copycat tests bench setup.py
	ruff check copycat tests bench setup.py
	mypy
	lint-imports --no-cache
	cython-lint $(CYTHON_FILES)
	clang-format --dry-run -Werror $(CPP_FILES)
	for source in $(CPP_SOURCES); do \
	  $(CXX) -std=c++20 -fsyntax-only -Wall -Wextra -Wconversion -Werror "$$source"; done
	for source in $(CPP_TESTS); do \
	  $(CXX) -std=c++20 -fsyntax-only -Wall -Wextra -Wconversion -Werror -Icsrc "$$source"; done
	$(PYTHON) -m pytest -q tests/tidy

fix: build ## format and apply safe fixes
	ruff check --fix copycat tests bench setup.py
	ruff format copycat tests bench setup.py
	clang-format -i $(CPP_FILES)

$(ASAN_LIB)/.stamp: $(VENV)/.stamp-packages $(NATIVE_FILES)
	SANITIZE=address,undefined $(PYTHON) setup.py -q build_ext \
	  --build-lib $(ASAN_LIB) --build-temp build/asan/temp
	touch $@

# A child that is forked while threads run may wait for ever for a lock of ASan's allocator.
san: build $(ASAN_LIB)/.stamp ## the log's tests and some seeds under ASan and UBSan
	$(PYTHON) setup.py -q build_py --build-lib $(ASAN_LIB)
	$(ASAN_ENV) $(PYTHON) -P -m pytest -q -o pythonpath="$(ASAN_LIB) ." \
	  -p no:cacheprovider --every=$(SAN_EVERY) -m "not forks" tests/log
	$(ASAN_ENV) $(PYTHON) -P -m copycat.sim --seeds 10 --jobs 1

build/native/address/%.o: csrc/%.cpp $(CPP_HEADERS)
	@mkdir -p $(@D)
	$(CXX) $(DRIVER_FLAGS) -fsanitize=address,undefined -c $< -o $@

build/native/address/%.o: tests/native/%.cpp $(CPP_HEADERS)
	@mkdir -p $(@D)
	$(CXX) $(DRIVER_FLAGS) -fsanitize=address,undefined -c $< -o $@

build/native/thread/%.o: csrc/%.cpp $(CPP_HEADERS)
	@mkdir -p $(@D)
	$(CXX) $(DRIVER_FLAGS) -fsanitize=thread -c $< -o $@

build/native/thread/%.o: tests/native/%.cpp $(CPP_HEADERS)
	@mkdir -p $(@D)
	$(CXX) $(DRIVER_FLAGS) -fsanitize=thread -c $< -o $@

build/native/fuzz_%: $(addprefix build/native/address/,fuzz_%.o $(DRIVER_OBJECTS))
	$(CXX) -fsanitize=address,undefined $^ -o $@

build/native/threads: $(addprefix build/native/thread/,threads.o $(DRIVER_OBJECTS))
	$(CXX) -fsanitize=thread $^ -pthread -o $@

.SECONDARY:

fuzz: $(FUZZERS:%=build/native/%) ## hostile bytes for the log's C++ under ASan and UBSan
	$(FUZZ_ENV) build/native/fuzz_frames $$((20000 * $(FUZZ_PERCENT))) $(FUZZ_SEED)
	$(FUZZ_ENV) build/native/fuzz_hard_state $$((1000 * $(FUZZ_PERCENT))) $(FUZZ_SEED)
	$(FUZZ_ENV) build/native/fuzz_packed $$((2000 * $(FUZZ_PERCENT))) $(FUZZ_SEED)
	$(FUZZ_ENV) build/native/fuzz_recovery $$((60 * $(FUZZ_PERCENT))) $(FUZZ_SEED)

tsan: build/native/threads ## the log with a server's threads around it, under TSan
	TSAN_OPTIONS=halt_on_error=1 build/native/threads

ci: ## what .ci/run runs
	.ci/run

clean: ## delete everything that `make build` made
	rm -rf build $(VENV)/.stamp-* $(ASAN_LIB)
