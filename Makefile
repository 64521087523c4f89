# Everything runs in one environment, .venv, made on first use and kept while pyproject.toml and
# constraints.txt stay as they are.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Two test processes on two cores: one thread each is faster than four that wait for one another.
TESTING := OMP_NUM_THREADS=1 MPLBACKEND=agg

.PHONY: demo test check bench browser ui lint clean help

help:
	@echo "make demo   the main job on this machine, end to end; then open runs/demo/report.html"
	@echo "make test   all tests         make check  the quick ones (under five minutes)"
	@echo "make lint   style, types and import rules"
	@echo "make bench  benchmarks against named peers; takes long, prints ratios, gates nothing"
	@echo "make browser  Chromium, for the test of the UI (Debian, as root); skipped without one"
	@echo "make ui     a Prefect server with its UI on this machine; trigger flows there"
	@echo "make clean  remove caches and build leftovers (not runs/)"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, but {sys.executable} is {v[0]}.{v[1]}; run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/foresight demo

test: $(READY)
	$(TESTING) $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)
	$(TESTING) $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not gpu and not network'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@for file in tests/benchmarks/bench_*.py; do \
	  name=$${file##*/}; echo "== $${name%.py}"; $(BIN)/python -m tests.benchmarks.$${name%.py} || exit 1; done

browser:
	@command -v chromium || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

ui: $(READY)
	$(BIN)/foresight ui

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
