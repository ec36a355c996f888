# `make` alone lists the commands.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help install up test check bench guest-image conformance clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP) ## Install system packages (as root) and the locked Python environment
$(STAMP): requirements.lock pyproject.toml packaging/install.sh
	@bash packaging/install.sh $(VENV)
	@touch $(STAMP)
