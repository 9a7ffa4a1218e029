# All targets use .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The hash of each file must be in the lock.
INSTALL := $(BIN)/python -m pip install --require-hashes --no-deps --only-binary :all:
# As many tests at a time as there are cores; each process needs a gigabyte of memory.
TOGETHER := -n logical --maxprocesses 4 --dist loadfile

.PHONY: demo test slow site lint types lock audit sbom sdist test-matrix clean

demo: $(READY)
	$(BIN)/rqrec demo

test: lint types
	$(BIN)/python -m pytest $(TOGETHER)

slow: $(READY)
	$(BIN)/python -m pytest -m slow --timeout 900 $(TOGETHER)

site: $(READY)
	$(BIN)/mkdocs build

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

$(READY): requirements-dev.txt requirements-torch.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rqrec needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements-dev.txt
	$(INSTALL) -r requirements-torch-cpu.txt || \
	    { echo "pip finds no torch built for the CPU; PyPI's follows, which is large for Linux."; $(INSTALL) -r requirements-torch.txt; }
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $@

# Locks what pyproject.toml asks for; `make lock UPGRADE=--upgrade` takes the newest versions.
lock: $(READY)
	$(BIN)/python tools/lock.py $(UPGRADE)

# Known vulnerabilities of the locked versions. A database that knows none of an old release is out of reach.
AUDIT := $(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps
audit: $(READY)
	@if echo jinja2==2.10 | $(AUDIT) -r /dev/stdin 2>/dev/null | grep -qE 'PYSEC|GHSA|CVE'; then $(AUDIT) -r requirements-dev.txt -r requirements-torch.txt; \
	else echo "The database of vulnerabilities cannot be reached: nothing was audited."; fi

# The list of all packages that rqrec runs on, in the CycloneDX format.
sbom: $(READY)
	mkdir -p dist
	cat requirements.txt requirements-torch.txt | \
	    $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o dist/sbom.json -

sdist: $(READY)
	$(BIN)/python -m build --no-isolation --sdist

# The fast tests with each supported Python that is installed, each in an environment of its own.
test-matrix:
	@failed=; for version in 3.11 3.12 3.13 3.14; do \
	    if python$$version --version >/dev/null 2>&1; then \
	        $(MAKE) PYTHON=python$$version VENV=.venv-$$version .venv-$$version/.ready && \
	            .venv-$$version/bin/python -m pytest $(TOGETHER) || failed="$$failed $$version"; \
	    else echo "python$$version is not installed: not tested."; fi; \
	done; test -z "$$failed" || { echo "Failed with Python$$failed."; exit 1; }

clean:
	rm -rf .venv .venv-3.* dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
