# `make` alone lists the commands.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
GUEST := guest.qcow2
ARGS ?=
SETS ?= smoke
TESTS ?= tests
# OpenAPI documents of the APIs, where they are at hand, to hold replies against
OPENAPI := $(wildcard ../shared/openapi)

ifneq ($(OPENAPI),)
export OPENAPI_DOCUMENTS ?= $(abspath $(OPENAPI))
endif

.PHONY: help install up test check format docs bench guest-image conformance swift-suite clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(TEST_STAMP) ## Install system packages (as root) and the locked Python environment

up: $(STAMP) ## Start the cloud in the foreground and run the demo against it (ARGS="--bind 192.0.2.10")
	@VENV=$(VENV) GUEST=$(GUEST) bash packaging/up.sh $(ARGS)

test: $(TEST_STAMP) check ## Check, then run all tests (TESTS=tests/unit for some)
	@if [ ! -e $(GUEST) ]; then bash packaging/guest_image.sh $(GUEST); fi
	@if [ -e $(GUEST) ]; then export CUMULET_GUEST_IMAGE=$${CUMULET_GUEST_IMAGE:-$(abspath $(GUEST))}; fi; \
		$(PY) -m pytest $(TESTS) $(ARGS)

check: $(TEST_STAMP) ## Lint, types, shape
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@if [ -d tests/shape ]; then $(PY) -m pytest -q tests/shape; fi

format: $(TEST_STAMP) ## Format the source
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs: $(TEST_STAMP) ## Write the pages that are made from the code
	@$(PY) -m tests.unit.test_docs

bench: $(TEST_STAMP) ## Measure what SPECIFICATION.md promises
	@$(PY) -m bench.measure $(ARGS)

guest-image: $(STAMP) ## Build the guest image anew
	@bash packaging/guest_image.sh $(GUEST)

conformance: ## Run pinned Tempest suites against the running cloud (SETS="identity image")
	@conformance/run $(SETS) $(ARGS)

swift-suite: $(TEST_STAMP) ## Run swift's own functional tests against the running cloud (ARGS="--data DIR")
	@$(PY) conformance/swift_suite.py $(ARGS)

clean: ## Remove what was installed and built here; the cloud's data stays
	@rm -rf $(VENV) $(GUEST) build dist artifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): requirements.lock packaging/build.lock pyproject.toml packaging/install.sh
	@bash packaging/install.sh run $(VENV)
	@touch $@

$(TEST_STAMP): $(STAMP)
	@bash packaging/install.sh test $(VENV)
	@touch $@
