# Everything here makes .venv as it needs it; python3 with venv and pip is all that must be there.
.DEFAULT_GOAL := help
.PHONY: help run docs test test-root test-browser test-python crash soak load fleet fuzz lab lint notebooks bench lock clean

PYTHON ?= python3
SECONDS ?= 60
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Tests read and write text as UTF-8, also where the locale says otherwise; tests of locales turn this off.
PYTEST := PYTHONUTF8=1 $(BIN)/python -m pytest
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.run ## the main job: establish and renew a connection in the sandbox, by notebooks, headless
	$(BIN)/python -m tools.main_job

test: lint ## the linters, then every test but those in a browser
	$(PYTEST) -n auto --dist loadfile --ignore tests/browser

test-root: .venv/.dev ## as root: the tests that are skipped for an ordinary user, and no others
	$(PYTEST) -n auto --dist loadfile -m needs_root --ignore tests/browser

test-browser: .venv/.dev .venv/.browser ## the notebooks and the site (make docs first) in Chromium (BROWSER_FLAGS=--no-skips)
	$(PYTEST) -n auto --dist worksteal $(BROWSER_FLAGS) tests/browser

test-python: ## as root: every test but those in a browser, with Debian 13's Python in a chroot (SUITE=sid)
	tools/second-python $(if $(SUITE),--suite $(SUITE))

# What make test runs shortened, in full; docs/reference/proof.md has the figures of one run of each.
crash: .venv/.dev ## a program killed, or its system calls failed, at each of them; power cuts; cut notebooks (an hour)
	$(PYTEST) -n auto --dist worksteal --whole tests/crash

soak: .venv/.dev ## a server that misbehaves in one of five calls, and in nine of ten; every fault at every call
	$(PYTEST) --whole tests/faults/test_soak.py tests/faults/test_wire_establishing.py

load: .venv/.dev ## 1,000 connections side by side, 10,000 calls, 100,000 guessed tokens
	$(PYTEST) --whole --ignore tests/load/test_fleet_dask.py tests/load tests/hostile/test_door.py tests/hostile/test_floods.py

fleet: .venv/.dev ## 10,000 connections renewed over Dask while workers are killed (an hour)
	$(PYTEST) --whole tests/load/test_fleet_dask.py

fuzz: .venv/.dev ## what reads others' words, given what breaks it (SECONDS=60)
	$(BIN)/python tests/hostile/fuzz_run.py --seconds $(SECONDS)

# For practice the home folder is ./.ucl. For real connections, name a folder outside the checkout.
lab: UCL_HOME ?= $(CURDIR)/.ucl
# It serves the whole checkout, because notebooks link to docs. tools/jupyter switches off the question about news.
lab: LAB_CONFIG := $(CURDIR)/tools/jupyter$(if $(JUPYTER_CONFIG_PATH),:$(JUPYTER_CONFIG_PATH))
lab: .venv/.lab ## JupyterLab on copies of the notebooks in ./my-notebooks, with the home folder ./.ucl or UCL_HOME=/FOLDER (LAB_FLAGS=--no-browser)
	@mkdir -p my-notebooks && for each in notebooks/*.ipynb; do [ -e "my-notebooks/$${each##*/}" ] || cp "$$each" my-notebooks/; done
	@echo "Connections are kept in $(UCL_HOME)."
	@echo "The notebooks are copies in ./my-notebooks. If you want an original back, delete its copy."
	@PYTHONSAFEPATH=1 UCL_HOME="$(UCL_HOME)" JUPYTER_CONFIG_PATH="$(LAB_CONFIG)" \
		$(BIN)/jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) \
		--LabApp.default_url=/lab/tree/my-notebooks/00_start_here.ipynb --LabApp.news_url=None \
		--KernelManager.transport_encryption=required $(LAB_FLAGS)

lint: .venv/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: .venv/.dev ## run every notebook in a sandbox of its own and write it back, normalised
	$(BIN)/python -m tools.build_notebooks

docs: .venv/.dev .venv/.docs ## the documentation site in build/site, its notebooks executed; fails on any warning or broken link
	$(BIN)/python -m tools.build_docs
	$(PYTEST) tests/site

bench: .venv/.dev ## measure, print a table, write benchmarks/results (BENCH="NAME --pairs 5" for some of it; all: half an hour)
	$(BIN)/python -m benchmarks $(BENCH)

lock: .venv/.dev ## solve the requirements anew (LOCK=--upgrade moves to newer versions)
	$(COMPILE) $(LOCK) pyproject.toml --extra dev -o requirements/dev.txt
	for extra in run lab docs browser; do \
		$(COMPILE) -c requirements/dev.txt pyproject.toml --extra $$extra -o requirements/$$extra.txt || exit 1; \
	done
	printf 'hatchling\neditables\n' | $(COMPILE) -c requirements/dev.txt - -o requirements/build.txt

clean: ## remove what was made: environment, caches, builds (not ./.ucl, where connections live)
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A larger set installed over a smaller one only adds to it: all sets are solved together.
.venv/.%: requirements/%.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements/build.txt -r $<
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed. If it has another name: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "The venv and ensurepip modules are needed (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
