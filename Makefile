# `make help` lists the targets. Each makes the environment in .venv first, where it is not there yet.

EXTRAS ?= train,dev
ARGS ?=
# Test processes; the tests of one file stay together, since many share what the first of them made.
TEST_WORKERS ?= 2
export SYSTEM_PACKAGES ?= check

# Nothing is reported to anyone: control rooms have closed networks.
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export STREAMLIT_BROWSER_GATHER_USAGE_STATS = false

PYTHON := .venv/bin/python
comma := ,
# The stamp changes with what the environment is made from and where it lies, so that a stale one is never used.
CONTENT := $(shell { pwd; cat pyproject.toml requirements.lock; } | cksum | cut -d' ' -f1)
STAMP := .ready-$(CONTENT)-$(subst $(comma),+,$(EXTRAS))
READY := .venv/$(STAMP)
# Options of the demo, given only where the variable is: $(call option,--name,$(VARIABLE)).
option = $(if $(2),$(1) "$(2)")

.PHONY: help setup demo test lint dashboard serve bench figures lock clean distclean
.DEFAULT_GOAL := help

help: ## List the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY):
	@deployments/setup.sh environment "$(EXTRAS)" "$(STAMP)"

setup: $(READY) ## Make the environment in .venv (EXTRAS=train,dev,gpu on a GPU machine)

demo: $(READY) ## Run the main job, small: SCAN=file ENERGY_KEV=12.4 PIXEL_SIZE_UM=0.3 WORKERS=2
	$(PYTHON) -m flows end_to_end $(call option,--scan,$(SCAN)) $(call option,--energy-kev,$(ENERGY_KEV)) \
		$(call option,--pixel-size-um,$(PIXEL_SIZE_UM)) $(call option,--cluster.workers,$(WORKERS)) $(ARGS)

test: $(READY) ## Run the tests (ARGS="-k fresnel")
	@deployments/setup.sh tests
	$(PYTHON) -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## Check style, formatting, types and the import rules
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports --no-logo

dashboard: $(READY) ## Show the published results in a browser
	$(PYTHON) -m streamlit run dashboard/app.py $(ARGS)

serve: $(READY) ## Prefect server, deployments and a worker on this machine
	$(PYTHON) -m deployments.serve $(ARGS)

bench: $(READY) ## Run every benchmark: ours and a peer's on the same work
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(PYTHON) "$$script"; done

figures: $(READY) ## Make the pictures of the README and the docs
	$(PYTHON) -m docs.figures $(ARGS)

lock: ## Resolve the dependencies anew into requirements.lock (ARGS=--upgrade)
	deployments/setup.sh lock $(ARGS)

clean: ## Remove caches and build products, keep .venv and workspace
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## Remove the environment as well
	rm -rf .venv .venv-uv .setup.lock
