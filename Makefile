# Two commands: `make drill` runs the weekly restore drill in a sandbox on this machine, `make test` everything CI runs.
# Both set up what they need. What else there is: `make help`.

PYTHON  ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV    := .venv
PY      := $(VENV)/bin/python
REPORTS ?= reports
# What to drill: an SQL file or a dump instead of the TenSafe-like database, its size, the major version.
DATABASE ?=
SCALE    ?= 1
MAJOR    ?= 17

EVIDENCE = --reports=$(REPORTS) --junitxml=$(REPORTS)/junit.xml --alluredir=$(REPORTS)/allure-results --clean-alluredir
SANDBOX  = --scale=$(SCALE) --major=$(MAJOR) $(if $(DATABASE),--database=$(DATABASE))
# A database of your own has no TenSafe audit log to prove.
DRILL    = $(if $(DATABASE),-k without_an_audit_log,-m weekly)
# Folders of proofs, the longest first, so that none of them is begun last; they run beside each other.
LONG_PROOFS = tests/sweep tests/restore tests/wal tests/bad_input tests/detection tests/sandbox tests/leftovers tests/matrix
PROOFS      = $(filter-out $(LONG_PROOFS),$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))
JOBS       ?= 2
NORTHWIND = $(wildcard ../shared/data/northwind.sql)

.PHONY: help setup drill test lint types architecture unit prove-rest long runbook containers forget northwind bench lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r t w; do printf '  make %-13s %s\n' "$$t" "$$w"; done

setup: $(VENV)/ready  ## make .venv with everything in it, every package pinned by its hash

$(VENV)/ready: requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none of python3, python3.13, python3.12," \
	  "python3.11 is. To fix this: install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version); this happens once and takes about a minute"
	@rm -rf $(VENV)
	@$(PYTHON) deploy/make_venv.py $(VENV)
	@PIP_CONSTRAINT=requirements.lock \
	  $(PY) -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r requirements.lock
	@ln -sf ../../deploy/runbook $(VENV)/bin/runbook
	@touch $@

drill: setup forget  ## run the weekly restore drill in the sandbox [SCALE=1 MAJOR=17 DATABASE=file.sql]
	@$(PY) -m pytest features $(DRILL) $(SANDBOX) $(EVIDENCE)

test: lint types architecture unit runbook northwind $(if $(CI),containers)  ## run everything that CI runs

lint: setup  ## style
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check --quiet .

types: setup  ## types, strictly
	@$(VENV)/bin/mypy

architecture: setup  ## who may import whom
	@$(VENV)/bin/lint-imports --no-logo 2>/dev/null || $(VENV)/bin/lint-imports

unit: setup  ## proofs of the library, every detector in both directions [JOBS=2]
	@$(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) \
	  $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) $(addprefix prove/,$(LONG_PROOFS) $(PROOFS)) prove-rest

long: setup  ## proofs that are too long for CI: the whole version matrix, every fault at every request
	@RUNBOOK_FULL_MATRIX=1 RUNBOOK_SWEEP=1 $(PY) -m pytest tests/matrix tests/restore/test_point_in_time.py

prove/%:
	@$(PY) -m pytest $*

prove-rest:
	@$(PY) -m pytest $(wildcard tests/test_*.py)

runbook: setup forget  ## the whole runbook in the sandbox
	@$(PY) -m pytest features $(SANDBOX) $(EVIDENCE)

containers: setup  ## the weekly drill with PostgreSQL in a container, whose WAL is not in S3; needs Docker, or root on Debian [MAJOR=17]
	@$(PY) deploy/engine.py $(if $(CI),--install) -- $(PY) -m pytest features -m "weekly or reads" --env containers \
	  --allow-unproven --scale=0.2 --major=$(MAJOR) --reports=$(REPORTS)/containers

forget:
	@rm -f $(REPORTS)/summary.json $(REPORTS)/summary.md  # an old verdict must not outlive a run that could not begin

northwind: setup  ## drill a database that nobody here wrote, where there is one beside this project
	@$(if $(NORTHWIND),$(PY) -m pytest features -k without_an_audit_log --database=$(NORTHWIND) --reports=$(REPORTS)/northwind,\
	  echo "no ../shared/data/northwind.sql: not drilled")

bench: setup  ## what proof costs, as ratios to what people do without it [BENCH="--scale 5 --rounds 5"]
	@$(PY) -m tests.bench $(BENCH)

lock:  ## resolve requirements.lock anew (needs uv)
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --quiet \
	  --group dev pyproject.toml -o requirements.lock

clean:  ## remove .venv, caches and reports
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache
	find $(REPORTS) -mindepth 1 ! -name README.md -delete
