# Everything a newcomer needs: `make demo`, then `make dev`; `make test`. Only Python and make are expected here.
PYTHON ?= python3
S2S_HOME ?= s2s_home
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo dev test check lint types bench audit clean help

help:
	@echo "make demo    mine the embedded miniature library, end to end"
	@echo "make dev     serve the Dagster UI on 127.0.0.1:3000 with the demo's home"
	@echo "make test    run the tests"
	@echo "make check   lint, strict types, tests"
	@echo "make bench   run the benchmarks against named peers"
	@echo "make audit   look for published vulnerabilities of what is installed"

# uv resolves a hundred packages in seconds where pip needs minutes; the constraints pin every one of them.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,narration]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/s2s demo --home $(S2S_HOME)

dev: $(INSTALLED)
	$(BIN)/python -m demo.serve --home $(S2S_HOME)

# A file is one worker's; more than four workers would want more than 8 GB.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# Advisories are published somewhere: where that is out of reach the audit says that it was skipped, and ends well.
audit: $(INSTALLED)
	$(BIN)/python deploy/audit.py

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
