# Everything a developer types. Needs GNU make and Python 3.11 or newer, nothing else.

# The first Python on the machine that is new enough; `make PYTHON=… run` names another.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
BIN := .venv/bin
PORT ?= 8000
# How many random histories `make oracle` recounts.
SEEDS ?= 2000
# Passed on to pytest: make test ARGS="tests/usage -k void"
ARGS ?=

export PORT
export PYTHONUNBUFFERED := 1

# The checks of production settings need an environment that could be production's; they connect to nothing.
PRODUCTION := env DEBUG=false HTTPS=true ALLOWED_HOSTS=example.com SITE_URL=https://example.com \
	SECRET_KEY=lint-checks-the-settings-with-a-key-that-is-long-and-9-varied-enough \
	DATABASE_URL=postgres://tallybook:none@127.0.0.1:1/tallybook REDIS_URL=redis://127.0.0.1:1/0

.DEFAULT_GOAL := help
QUICK ?=
ONLY ?=
.PHONY: help run test bench oracle upload-check lint format install clean chromium

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: .venv/runs ## start PostgreSQL, Valkey, web, worker and beat on PORT (8000); Ctrl-C stops them all
	@exec $(BIN)/python -m config.supervisor

test: .venv/tests chromium ## run every test, on servers started for it (ARGS goes to pytest)
	@exec $(BIN)/python -m config.embedded $(BIN)/python -m pytest -n 2 $(ARGS)

upload-check: .venv/tests ## try out and ingest a file of ROWS (1000000) rows, and tell the memory that it took
	@exec env SECRET_KEY=upload-check $(BIN)/python -m config.embedded $(BIN)/python -m tests.benchmarks.upload_memory

bench: .venv/tests ## measure every bar of docs/performance.md (QUICK=1: smaller tables; ONLY=ingestion,folding,…)
	@exec env QUICK=$(QUICK) ONLY=$(ONLY) BENCH_JSON=$(CURDIR)/var/bench.json \
		$(BIN)/python -m config.embedded --durable $(BIN)/python -m tests.benchmarks

oracle: .venv/tests ## recount after thousands of random histories (SEEDS=2000); `make test` runs the first 200
	@exec env ORACLE_SEEDS=$(SEEDS) $(BIN)/python -m config.embedded $(BIN)/python -m pytest -n 2 -q tests/metrics/test_oracle.py

lint: .venv/tests ## check style, types, migrations and the production settings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(PRODUCTION) $(BIN)/mypy .
	@$(PRODUCTION) $(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	@$(PRODUCTION) $(BIN)/python manage.py check --deploy --fail-level WARNING

format: .venv/tests ## rewrite the sources in the agreed style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

install: .venv/runs .venv/tests ## make the virtual environment and nothing else

clean: ## remove the virtual environment and the caches; var/ with its data stays
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Reads the named lists of pyproject.toml, so that nothing has to be built to install what it asks for.
# umask: as root, PostgreSQL runs as another account and must be able to read its own program.
define install
	@echo "installing the dependencies ($(1))"
	@umask 022 && $(BIN)/python -c 'import sys, tomllib; \
		project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		extras = project["optional-dependencies"]; \
		print(*project["dependencies"], *(line for name in sys.argv[1:] for line in extras[name]), sep="\n")' $(1) \
		>.venv/wanted && $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input \
		--constraint constraints.txt --requirement .venv/wanted
	@touch $@
endef

.venv/runs: pyproject.toml constraints.txt | .venv/made
	$(call install,local)

.venv/tests: .venv/runs
	$(call install,local dev)

.venv/made:
	@test -n "$(PYTHON)" || { echo "Tallybook needs Python 3.11 or newer on the PATH." >&2; exit 1; }
	@umask 022 && $(PYTHON) -m venv .venv && touch $@

# The browser tests take any Chromium; where we may install Debian's, we do. Failing that, they skip and say so.
chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing Chromium for the browser tests"; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update && apt-get install -y --no-install-recommends chromium; } </dev/null >.venv/chromium.log 2>&1 \
			|| echo "Chromium could not be installed (.venv/chromium.log): the browser tests will be skipped."; \
	else echo "No Chromium on the PATH: the browser tests will be skipped."; fi
