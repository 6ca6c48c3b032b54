# What a person does with this repository. Every target sets up .venv when needed; a second run finds it ready.
#
#   make demo                    make test ARGS="-k worker"          make crash SEEDS=20
#   make PYTHON=/opt/python3.12/bin/python3 demo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check format bench soak crash lock clean

PYTHON ?=
ARGS ?=
RUNS ?= 20
SEEDS ?= 20
MINUTES ?= 20
UPGRADE ?=

# The whole suite waits more than it computes: two processes, of which one has the crash tests.
SHARED := -n 2 --no-loadscope-reorder

BIN := .venv/bin
LOCKS := deploy/requirements
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
# The lock files name every package with its version and hashes: nothing is left to resolve.
INSTALL := $(PIP) install --no-deps --require-hashes
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)
EXTRAS := pyproject.toml --extra embedded --extra emulator --extra demo
say = @echo "==> $(1)"

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.bridge ## jobs of every fate through an embedded broker and the emulator, shown live; needs only Python
	$(call say,tams-bridge demo)
	@$(BIN)/tams-bridge demo

# The two demands on coverage are silent unless they fail, so that pytest has the last word.
test: .venv/.dev ## all tests; BRIDGE_TEST_BROKER=embedded|apache|HOST:PORT chooses the broker, ARGS goes to pytest
	$(call say,pytest)
	@$(BIN)/python -m pytest --cov=bridge $(if $(ARGS),$(ARGS),$(SHARED))
	@test -n '$(ARGS)' || $(BIN)/coverage report --include='bridge/core/*' --fail-under=100 >.venv/core-coverage \
		|| { cat .venv/core-coverage; echo "make: bridge/core must be covered in full, branches too" >&2; exit 1; }
	@test -n '$(ARGS)' || $(BIN)/coverage report --format=total --fail-under=95 >/dev/null \
		|| { echo "make: bridge must be covered to 95 % (the table above names what is not)" >&2; exit 1; }

check: .venv/.dev ## formatter, linter, types, architecture
	$(call say,ruff format --check)
	@$(BIN)/ruff format --check --quiet --output-format concise || { echo "make: run 'make format'" >&2; exit 1; }
	$(call say,ruff check)
	@$(BIN)/ruff check --quiet
	$(call say,mypy)
	@$(BIN)/mypy
	$(call say,lint-imports)
	@$(BIN)/lint-imports --no-logo

format: .venv/.dev ## lay out the code as `make check` wants it
	$(call say,ruff check --fix and ruff format)
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet

bench: .venv/.bench ## every measurement of bench/ but the soak, one after the other
	@for script in $(filter-out bench/soak.py,$(wildcard bench/*.py)); do echo "==> $$script"; $(BIN)/python "$$script" || exit 1; done

soak: .venv/.bench ## steady load for MINUTES (20): what memory, sockets and delays do
	$(call say,bench/soak.py)
	@$(BIN)/python bench/soak.py --minutes $(MINUTES)

crash: .venv/.dev ## SEEDS plans of faults on three brokers, a minute each (20); outages of a minute; RUNS kills of each kind (20)
	$(call say,pytest tests/crash with $(SEEDS) plans and $(RUNS) kills)
	@BRIDGE_CRASH_SEEDS=$(SEEDS) BRIDGE_CRASH_PLAN_S=60 BRIDGE_OUTAGE_S=60 BRIDGE_CRASH_RUNS=$(RUNS) \
		$(BIN)/python -m pytest tests/crash --timeout=0 -rP $(ARGS)

lock: .venv/.dev ## write the lock files anew after a change of pyproject.toml; UPGRADE=1 takes the newest versions
	$(call say,$(LOCKS): dev.txt and then the others from the same versions)
	@$(COMPILE) $(EXTRAS) --group dev --output-file $(LOCKS)/dev.txt
	@$(COMPILE) $(EXTRAS) --constraints $(LOCKS)/dev.txt --output-file $(LOCKS)/runtime.txt
	@$(COMPILE) --group build --constraints $(LOCKS)/dev.txt --output-file $(LOCKS)/build.txt
	@$(COMPILE) --group bench --constraints $(LOCKS)/dev.txt --output-file $(LOCKS)/bench.txt

clean: ## remove .venv and what tools left behind
	$(call say,removing .venv and caches)
	@rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist
	@find bridge tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- .venv, in steps; each leaves a stamp
.venv/.made:
	@rm -rf .venv
	@PYTHON='$(PYTHON)' deploy/make-venv .venv
	@touch $@

.venv/.runtime: .venv/.made $(LOCKS)/runtime.txt $(LOCKS)/build.txt
	$(call say,installing what the bridge runs on)
	@$(INSTALL) -r $(LOCKS)/runtime.txt -r $(LOCKS)/build.txt
	@touch $@

.venv/.bridge: .venv/.runtime pyproject.toml
	$(call say,installing tams-bridge itself as an editable package)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.bridge $(LOCKS)/dev.txt
	$(call say,installing what tests and checks need)
	@$(INSTALL) -r $(LOCKS)/dev.txt
	@touch $@

.venv/.bench: .venv/.dev $(LOCKS)/bench.txt
	$(call say,installing what measurements need besides)
	@$(INSTALL) -r $(LOCKS)/bench.txt
	@touch $@
