# `make` lists the targets. STACK chooses a stack file: make up STACK=dev

STACK ?= dev
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
REHEARSE := @$(PY) -m rehearsal

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help:
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ The embedded environment

.PHONY: up down preview status url key logs kubeconfig recover doctor verify preflight toolchain
up: $(READY) ## bring the stack up on this machine, with all that it needs
	$(REHEARSE) up --stack $(STACK)

down: $(READY) ## destroy the stack and end everything that was started (FORCE=1: even if destroy fails)
	$(REHEARSE) down $(if $(FORCE),--force)

preview: $(READY) ## show what `make up` would change
	$(REHEARSE) preview --stack $(STACK)

status: $(READY) ## succeed exactly when everything is Ready, else say what is not and why
	$(REHEARSE) status

url: $(READY) ## print the address that answers for the stack
	$(REHEARSE) url

key: $(READY) ## print a new API key: make key TENANT=acme
	$(if $(TENANT),,$(error name the tenant: make key TENANT=acme))
	$(REHEARSE) key --tenant $(TENANT)

logs: $(READY) ## list the logs; NAME=part shows one, FOLLOW=1 follows it
	$(REHEARSE) logs $(NAME) $(if $(FOLLOW),--follow)

kubeconfig: $(READY) ## print a path for kubectl: KUBECONFIG=$(make kubeconfig) kubectl get pods -A
	$(REHEARSE) kubeconfig

recover: $(READY) ## put right what a killed `up` left behind (`make up` does it by itself)
	$(REHEARSE) ops recover --stack $(STACK)

doctor: $(READY) ## walk each model's chain, and name what is broken, the evidence and the fix: make doctor MODEL=name
	$(REHEARSE) ops doctor --stack $(STACK) $(MODEL)

verify: $(READY) ## ask the stack whether it does what its configuration promises: OPTIONS="--min-rps 25"
	$(REHEARSE) ops verify --stack $(STACK) $(OPTIONS)

preflight: $(READY) ## say what would stand in the way of the first `up`, before it: make preflight STACK=tpu
	$(REHEARSE) preflight --stack $(STACK)

toolchain: $(READY) ## build every tool that is not in the cache yet
	@$(PY) -m rehearsal.toolchain

##@ Development

.PHONY: test test-fast test-long test-stacks lint format golden docs check-docs
test: $(READY) toolchain ## all tests but the long ones, whole stacks, and those that need a cloud account
	@$(PY) -m pytest

test-fast: $(READY) ## the tests that start no cluster
	@$(PY) -m pytest -m "not rehearsed and not cloud and not long and not stacks"

test-long: $(READY) toolchain ## the long tests: more faults, more load
	@$(PY) -m pytest -m "long and not cloud"

test-stacks: $(READY) toolchain ## whole stacks under changes and faults, about an hour (ONLY=tpu_changes: one module)
	@$(PY) -m pytest -m "stacks and not cloud" $(if $(ONLY),tests/rehearsed/test_$(ONLY).py)

lint: $(READY) check-docs ## check style and generated files
	@$(PY) -m ruff check --quiet --output-format concise
	@$(PY) -m ruff format --check --quiet

format: $(READY) ## put the code into the project's style
	@$(PY) -m ruff check --quiet --fix-only
	@$(PY) -m ruff format --quiet

golden: $(READY) ## rewrite the golden inventories after an intended change
	@$(PY) -m pytest tests/stacks --update-golden

docs: $(READY) ## write the config schema and reference anew
	@$(PY) -m stacks.config schema
	@$(PY) -m stacks.config reference

check-docs: $(READY) ## say whether the config schema and reference are current
	@$(PY) -m stacks.config schema --check
	@$(PY) -m stacks.config reference --check

##@ The virtual environment

.PHONY: venv constraints clean
venv: $(READY) ## create .venv with exactly the pinned packages
	@:

# The marker comes last, so an interrupted installation is done again from the start.
$(READY): requirements.txt requirements-ops.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or later is needed and $(PYTHON) is not one; name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot create virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "installing the Python packages into $(VENV) (about half a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

constraints: ## choose the newest versions of what the requirements files leave open, and pin them
	@$(PYTHON) -m venv --clear $(VENV)
	@: > constraints.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@{ echo "# What the requirements files leave open, pinned; \`make constraints\` writes it anew."; \
	   $(PY) -m pip freeze; } > constraints.txt
	@touch $(READY)

clean: ## end the rehearsal and remove what this checkout made; the cache that clones share stays
	@if [ -d .rehearsal ] && [ -x $(PY) ]; then $(PY) -m rehearsal down --force; fi
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@rm -rf $(VENV) .pytest_cache .ruff_cache
	@echo "kept, since all clones share it: $${LLMP_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/llm-platform}"
