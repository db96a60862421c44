# convscope: `make demo` trains, explains and shows; `make test` checks everything. Both set up .venv by themselves.

PYTHON ?= python3
BIN := .venv/bin

# PyTorch's builds without CUDA, which save 4 GB on a machine without an NVIDIA GPU; `make demo CPU=1` forces them.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# One test process more than processors, as some tests wait. Each runs whole files, in the order of tests/conftest.py.
# Compiled files are kept, as tests start many processes.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
export PYTHONDONTWRITEBYTECODE :=

# The sources of the explorer's page: after a change, installing rebuilds it (hatch_build.py).
PAGE := hatch_build.py $(shell find web -type f -not -path 'web/node_modules/*' 2>/dev/null)

.PHONY: demo test test-all test-oldest test-newest fuzz sweep summary-study notebooks check format bench docs docs-cli pictures dist clean web web-types web-check

demo: .venv/demo.stamp
	@$(BIN)/convscope demo

test: .venv/test.stamp
	$(PYTEST)

test-all: .venv/test.stamp
	$(PYTEST) -m "study or not study"

# The tests but for browsers with the oldest versions that pyproject.toml allows, and with the newest there are. Each has an
# environment beside .venv; torch comes first, as pip would otherwise choose a newer one. Libraries of different years may
# call each other deprecated, which is no failure here, and an old Hypothesis takes what tests/conftest.py freezes for garbage.
OTHER_VERSIONS := -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -W default::DeprecationWarning \
	-W default::hypothesis.errors.HypothesisWarning
test-oldest: build/oldest/installed.stamp
	CONVSCOPE_BROWSER=none build/oldest/bin/python $(OTHER_VERSIONS)

test-newest: build/newest/installed.stamp
	CONVSCOPE_BROWSER=none build/newest/bin/python $(OTHER_VERSIONS)

build/oldest/installed.stamp: .venv/test.stamp pyproject.toml scripts/oldest_versions.py
	$(PYTHON) -m venv build/oldest
	$(BIN)/python scripts/oldest_versions.py > build/oldest/constraints.txt
	build/oldest/bin/pip install -c build/oldest/constraints.txt torch
	build/oldest/bin/pip install --quiet -c build/oldest/constraints.txt -e '.[test]'
	@touch $@

build/newest/installed.stamp: .venv/test.stamp pyproject.toml
	$(PYTHON) -m venv build/newest
	build/newest/bin/pip install --upgrade torch torchvision
	build/newest/bin/pip install --quiet --upgrade --upgrade-strategy eager -e '.[test]'
	@touch $@

# The long runs of all tests that generate their input; each is seeded and bounded, and has a short run in `make test`.
FUZZ := tests/test_fuzz_*.py tests/*/test_fuzz_*.py tests/*/test_*_fuzz.py tests/*/test_*_properties.py tests/capture/test_capture_networks.py \
	tests/ops/test_operator_database.py tests/proof/test_verify_changed_numbers.py tests/proof/test_verify_networks.py \
	tests/server/test_server_api.py tests/training/test_run_damage_by_chance.py
fuzz: .venv/test.stamp
	$(PYTEST) --hypothesis-seed=0 -m "study or not study" $(FUZZ)

# Architectures of other libraries, traced and verified; torchvision and timm are installed beside .venv, not into it.
sweep: build/sweep/installed.stamp
	PYTHONPATH=src build/sweep/bin/python scripts/sweep.py --out build/sweep.jsonl

# The counts of `summary` compared with PyTorch's, on the same architectures.
summary-study: build/sweep/installed.stamp
	PYTHONPATH=src build/sweep/bin/python scripts/summary_study.py --out build/summary.jsonl

# The widget and the lessons in JupyterLab and marimo, which are installed beside .venv; the widget in a real browser.
notebooks: build/notebooks/installed.stamp
	$(BIN)/python -m pytest -m study tests/standalone/test_widget.py tests/lessons/test_notebooks_elsewhere.py

build/notebooks/installed.stamp: .venv/test.stamp
	$(PYTHON) -m venv build/notebooks
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > build/notebooks/main.pth
	cp build/notebooks/main.pth "$$(build/notebooks/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/"
	build/notebooks/bin/pip install --quiet jupyterlab marimo
	@touch $@

build/sweep/installed.stamp: .venv/test.stamp
	$(PYTHON) -m venv build/sweep
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > build/sweep/main.pth
	cp build/sweep/main.pth "$$(build/sweep/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/"
	build/sweep/bin/pip install --quiet --no-deps torchvision timm
	@touch $@

check: .venv/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/check_prose.py
	$(BIN)/mypy

format: .venv/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/test.stamp
	for bench in bench/*.py; do $(BIN)/python $$bench || exit 1; done

# The documentation in build/docs, every link checked; SHORT=1 executes the lessons in their short setting.
docs: .venv/test.stamp web/node_modules/.package-lock.json
	$(if $(SHORT),CONVSCOPE_LESSON_SHORT=1) $(BIN)/python scripts/build_site.py

docs-cli: .venv/test.stamp
	$(BIN)/python -m convscope.cli.reference > docs/reference/cli.md

# The pictures of README and docs: the present page in Chromium.
pictures: .venv/test.stamp
	$(BIN)/python scripts/docs_pictures.py

# Wheel and sdist in dist/, checked: their metadata, the page inside, and that each installs and runs without node.
dist: .venv/demo.stamp build/dist/bin/twine
	rm -rf dist
	build/dist/bin/python -m build --outdir dist .
	build/dist/bin/twine check --strict dist/*
	$(BIN)/python scripts/check_dist.py dist

build/dist/bin/twine: .venv/bin/python
	$(PYTHON) -m venv build/dist
	build/dist/bin/pip install --quiet build twine

web: .venv/bin/python
	$(BIN)/pip install --quiet --no-deps -e .

# Only these two targets need node (20.19 or newer) and npm on the PATH.
web-types: .venv/test.stamp web/node_modules/.package-lock.json
	@mkdir -p build
	$(BIN)/python -m convscope.server.openapi > build/openapi.json
	npm --prefix web run --silent types

web-check: .venv/test.stamp web/node_modules/.package-lock.json
	@mkdir -p build && cp -p web/src/lib/schema.d.ts build/schema.d.ts
	$(MAKE) web-types
	@cmp build/schema.d.ts web/src/lib/schema.d.ts || \
		{ echo "web/src/lib/schema.d.ts does not match the server's schema; keep the file that \`make web-types\` has just written"; exit 1; }
	@touch -r build/schema.d.ts web/src/lib/schema.d.ts # it is as it was, so the page is not built again for it
	npm --prefix web run --silent check
	npm --prefix web test --silent

web/node_modules/.package-lock.json: web/package-lock.json
	npm --prefix web ci
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "convscope needs Python 3.11 or newer; choose one with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/torch.stamp: .venv/bin/python constraints.txt
	@$(BIN)/python scripts/install_torch.py $(CPU_INDEX) $(if $(CPU),--cpu)
	@touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml constraints.txt $(PAGE)
	@echo "Installing convscope and building its page (about a minute)"
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/test.stamp: .venv/torch.stamp pyproject.toml constraints.txt $(PAGE)
	@echo "Installing convscope with everything that its tests need (some minutes)"
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@ .venv/demo.stamp

clean:
	rm -rf .venv build dist web/node_modules src/convscope/server/static .mypy_cache .pytest_cache .ruff_cache .hypothesis
