# `make demo` and `make test` need Python >= 3.11, make and a C library; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
ORCHESTRATORS := airflow dagster prefect
LOCKS := tests/system/orchestrators
PIP_QUIETLY := --quiet --disable-pip-version-check --require-hashes
# Each job reads the migrations, and tests run hundreds: from source that takes eight times as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test types behaviour test-system debian torture fix docs lock bench clean

demo: $(STAMP)
	@$(BIN)/persona-etl demo

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory --jobs 2 types behaviour

# Side by side: mypy has work for one processor.
types: $(STAMP)
	$(BIN)/mypy
behaviour: $(STAMP)
	$(BIN)/pytest -n auto --dist worksteal

# Debian's Postgres instead of the embedded one, and every way to connect to it. Installs Debian's
# packages when they are missing. Whatever hangs on the server: of tests/db all that is not marked
# `one_server`, of the commands' tests those in which the server itself speaks. The others print what
# tests/db has got out of this server, and `make test` has them.
COMMANDS := check migrate_command prompts_command query_command signals
test-system: $(STAMP)
	$(MAKE) --no-print-directory --jobs 2 debian $(ORCHESTRATORS:%=$(VENV)/orchestrators/%/installed)
	$(BIN)/python -m tests.system.server $(BIN)/pytest -n auto --dist worksteal -m "every_server or not one_server" \
		tests/db tests/system $(COMMANDS:%=tests/cli/test_%.py)

debian:
	tests/system/install

# Whatever dies, whenever: N processes are killed, N/2 times the server goes, every statement fails
# once in every way. `make test` has the short form. The same SEED does the same again.
N ?= 300
SEED ?= 1
torture: $(STAMP)
	TORTURE_ROUNDS=$(N) TORTURE_SEED=$(SEED) \
		$(BIN)/pytest -s tests/torture tests/db/test_sync_killed.py

fix: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What is generated; `make test` holds it against the map. In the schema that the release names.
docs: $(STAMP)
	env -u PERSONA_ETL_DATABASE__SCHEMA $(BIN)/persona-etl --config /dev/null schema > docs/schema.md
	env -u PERSONA_ETL_DATABASE__SCHEMA $(BIN)/persona-etl --config /dev/null schema --format dbt \
		> docs/dbt/sources.yml

bench: $(STAMP)
	$(BIN)/python bench/load.py

# Needs uv on the PATH. The lock is universal (any platform, Python >= 3.11) and names no index.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		pyproject.toml -o requirements.lock
	for name in pip $(ORCHESTRATORS); do \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
			--no-emit-index-url --no-emit-find-links --no-header \
			$(LOCKS)/$$name.in -o $(LOCKS)/$$name.lock || exit 1; \
	done

clean:
	rm -rf $(VENV) dist build

# Not compiled: what is used of it is, when it is first imported.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"This is Python %d.%d, and 3.11 is needed: make demo PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# For tests/system: each orchestrator where nothing of ours is. The pip that comes with Python 3.11
# takes three times as long over them (43 s of CPU instead of 15), so the locked one does it.
$(VENV)/orchestrators/%/installed: $(LOCKS)/%.lock $(VENV)/orchestrators/pip/installed
	$(BIN)/python -m venv --clear --without-pip $(@D)
	PYTHONPATH=$(VENV)/orchestrators/pip $(BIN)/python -m pip --python $(@D)/bin/python install \
		$(PIP_QUIETLY) --no-deps --no-compile -r $<
	@touch $@

$(VENV)/orchestrators/pip/installed: $(LOCKS)/pip.lock $(STAMP)
	$(BIN)/pip install $(PIP_QUIETLY) --target $(@D) --upgrade -r $<
	@touch $@
