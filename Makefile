# SPDX-License-Identifier: Apache-2.0
# Short names for people. Needs GNU make, git, and Python 3.11 or 3.12 with venv; the rest comes from docker/gate-cpu.lock.
# PYTHON=python3.12 chooses the interpreter, ARGS="..." goes on to the command, PORT=DIR is another port than the demo's.

PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && exit; done; echo python3)
DOCKER ?= docker
PORT ?= build/tiny_wan
ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help env demo test lint gate-docker clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

env: ## the environment in .venv, from the lock (kept when nothing changed)
	@$(PYTHON) ci/env.py

demo: env ## the main job: bake a port of a tiny Wan, run every check of its gate, show the verdict
	@$(BIN)/python -m examples.demo $(ARGS)

test: env ## the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: env ## everything that reads the files without running them
	@$(BIN)/nox -s lint

gate-docker: env ## the gate inside the image: make gate-docker DOCKER=podman ARGS="mapping keys parity gate"
	@$(BIN)/python -m ci.container --engine $(DOCKER) --port $(PORT) $(ARGS)

clean: ## remove what was built (not .venv)
	rm -rf build .nox .pytest_cache .mypy_cache .ruff_cache
