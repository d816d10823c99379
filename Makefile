# Everything that a developer or a new user runs. Each target builds what it needs, once, and again when the
# requirements change.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The Python of each environment; uv finds one that is installed and never downloads any.
TODAY_PYTHON ?= >=3.11,<3.13
ESTIMATOR_PYTHON ?= >=3.10,<3.12
# A wheel of PyTorch's for the CPU may be there for one Python alone.
TORCH_PYTHON ?= 3.11

UV ?= $(or $(shell command -v uv),.tool/bin/uv)
export UV_PYTHON_DOWNLOADS = never
# Where it is set, each of the thousand processes that the tests start compiles all of Keras and MLflow anew.
unexport PYTHONDONTWRITEBYTECODE
export TF_CPP_MIN_LOG_LEVEL ?= 2
export TF_ENABLE_ONEDNN_OPTS ?= 0

# TensorFlow and MLflow take seconds to import, in every process that a test starts: as many at a time as there
# are processors. A file's tests stay together, for the blocks of a page are one program.
PYTEST ?= -n auto --dist loadfile

TODAY := .venv/.ready
ESTIMATOR := .venv-estimator/.ready
JAX := .venv-jax/.ready
TORCH := .venv-torch/.ready
BENCH := .venv-bench/.ready
MORE := .venv-more/.ready
AZURITE := .tool/azurite/.ready

# The MLflows that `make test-mlflow` tests as a client: the oldest that mlwrap supports, two between, the newest, and
# a pre-release that is newer, if there is one. MLflow 2 is there as a server alone.
MLFLOWS ?= 3.4 3.11 3.17 newest pre
MLFLOW_READY := $(patsubst %,.venv-mlflow-%/.ready,2.22 $(MLFLOWS))

# How many processes `make chaos` kills.
N ?= 30

.PHONY: help setup demo test test-fast lint types test-today test-estimator test-jax test-torch test-mlflow test-more chaos zoo bench examples requirements format clean

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(TODAY) $(ESTIMATOR) $(JAX) $(TORCH)  ## All environments

demo: $(TODAY)  ## Train a digits classifier, show what was logged, load it back
	.venv/bin/python examples/digits.py
	.venv/bin/mlwrap show
	.venv/bin/python examples/load_digits.py

test: lint types test-today test-estimator test-jax test-torch  ## Every check

lint: $(TODAY)  ## Style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: $(TODAY)  ## Static types
	.venv/bin/mypy
	.venv/bin/basedpyright

test-fast: lint types  ## What matters, in a minute: neither TensorFlow, servers nor processes
	.venv/bin/python -m pytest $(PYTEST) -m "not tensorflow and not server and not slow" tests

test-today: $(TODAY)  ## Tests, README and docs on today's TensorFlow
	.venv/bin/python -m pytest $(PYTEST) -m "not more" --ignore=tests/mlflow_versions tests README.md docs

# Tests that no version of TensorFlow can change run once: of servers, disks, the registry, other frameworks.
EVERYWHERE_THE_SAME := tests/faults tests/mlflow_versions tests/property tests/stores $(addprefix tests/integration/test_,from_a_server.py registry.py \
  plugins.py flavors.py) $(addprefix tests/unit/,journal spool mlflow delivery sender loading)
test-estimator: $(ESTIMATOR)  ## Tests on TensorFlow 2.15, with real Estimators
	@if [ -x .venv-estimator/bin/python ]; then \
	  .venv-estimator/bin/python -m pytest $(PYTEST) $(addprefix --ignore=,$(EVERYWHERE_THE_SAME)) tests; \
	else \
	  echo "test-estimator: skipped, for TensorFlow 2.15 needs a Python $(ESTIMATOR_PYTHON) and none is installed"; \
	fi

test-jax: $(JAX)  ## Keras on JAX, without TensorFlow
	.venv-jax/bin/python -m pytest $(PYTEST) tests/backends tests/zoo

test-torch: $(TORCH)  ## Keras on PyTorch, without TensorFlow
	@if [ -x .venv-torch/bin/python ]; then \
	  .venv-torch/bin/python -m pytest $(PYTEST) tests/backends tests/zoo; \
	else \
	  echo "test-torch: skipped, for pip finds no PyTorch for the CPU that Python $(TORCH_PYTHON) can import here"; \
	fi

# Not part of "make test": minutes for each version. A test has the servers of all versions that have an environment.
MLFLOW_TESTS := tests/mlflow_versions tests/faults/test_server.py $(addprefix tests/unit/,mlflow delivery loading)
test-mlflow: $(addprefix test-mlflow-,$(MLFLOWS))  ## Delivery and loading with each supported MLflow, and servers of others
test-mlflow-%: $(MLFLOW_READY)
	@if [ -x .venv-mlflow-$*/bin/python ]; then \
	  .venv-mlflow-$*/bin/python -m pytest $(PYTEST) $(MLFLOW_TESTS); \
	else \
	  echo "test-mlflow-$*: skipped, for there is no pre-release of MLflow that is newer than the newest release"; \
	fi

# Not part of "make test": it takes long, or a gigabyte of packages and a registry of npm's.
MORE_TESTS := tests/unit/savers/test_mlflow_flavors.py $(addprefix tests/integration/test_,flavors.py sweep_engines.py)
test-more: $(TODAY) $(MORE) $(TORCH) $(AZURITE)  ## MariaDB, Azure, twenty kills; Ray, and all of MLflow's flavors that have a saver
	.venv/bin/python -m pytest $(PYTEST) -m more tests
	.venv-more/bin/python -m pytest $(PYTEST) $(MORE_TESTS) tests/travel/test_engines.py
	@if [ -x .venv-torch/bin/python ]; then \
	  .venv-torch/bin/python -m pytest $(PYTEST) tests/unit/savers/test_mlflow_flavors.py; \
	fi

chaos: $(TODAY)  ## kill -9 at random moments, N=30 times, and look what was lost
	.venv/bin/python tests/faults/chaos.py $(N)

# Each environment finds its own part of the page.
zoo: setup  ## Models as people publish them, trained, loaded and served: docs/reference/zoo.md
	for environment in .venv .venv-estimator .venv-jax .venv-torch; do \
	  if [ -x $$environment/bin/python ]; then $$environment/bin/python -m tests.zoo.page; fi; \
	done

# The rivals are here alone; the servers run where they are not. Estimators are measured, too, if `make setup`
# has made their environment.
bench: $(BENCH) $(TODAY)  ## Measure against what there is: docs/reference/benchmarks.md
	.venv-bench/bin/python benchmarks/run.py

format: $(TODAY)  ## Bring the code into its format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

requirements: $(UV)  ## Pin the environments anew
	$(UV) pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-package tensorflow --no-emit-package tensorflow-text pyproject.toml --group today \
	  -o requirements/today.txt
	$(UV) pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  pyproject.toml --group estimator -o requirements/estimator.txt
	$(UV) pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  pyproject.toml --group jax -o requirements/jax.txt
	$(UV) pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  pyproject.toml --group torch -o requirements/torch.txt
	sed -i -E '/^(cuda|nvidia|triton)/d' requirements/torch.txt
	$(UV) pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  pyproject.toml --group more -o requirements/more.txt
	$(UV) pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --no-emit-package tensorflow pyproject.toml --group bench -o requirements/bench.txt

clean:  ## Remove what was built
	rm -rf .venv .venv-estimator .venv-jax .venv-torch .venv-bench .venv-more .venv-mlflow-* .tool build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

# uv installs both environments in seconds; where it is missing it comes into a tool environment of our own.
.tool/bin/uv:
	$$(command -v python3.11 || command -v python3) -m venv .tool
	.tool/bin/python -m pip install -q --disable-pip-version-check uv

# tf-keras asks for the package "tensorflow"; "tensorflow-cpu" is the same and smaller, so the pinned list names
# that alone, and "sync" installs exactly the list.
$(TODAY): requirements/today.txt pyproject.toml | $(UV)
	$(UV) venv -q --clear --python '$(TODAY_PYTHON)' .venv
	$(UV) pip sync -q --python .venv requirements/today.txt
	$(UV) pip install -q --python .venv --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH): requirements/bench.txt pyproject.toml | $(UV)
	$(UV) venv -q --clear --python '$(TODAY_PYTHON)' .venv-bench
	$(UV) pip sync -q --python .venv-bench --compile-bytecode requirements/bench.txt
	$(UV) pip install -q --python .venv-bench --no-deps --no-build-isolation --editable .
	@touch $@

$(MORE): requirements/more.txt pyproject.toml | $(UV)
	$(UV) venv -q --clear --python '$(TODAY_PYTHON)' .venv-more
	$(UV) pip sync -q --python .venv-more requirements/more.txt
	$(UV) pip install -q --python .venv-more --no-deps --no-build-isolation --editable .
	@touch $@

# Microsoft's emulator of Azure's blob storage; without it its test is skipped, and says so.
$(AZURITE):
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix $(@D) azurite@3; fi || \
	  echo "test-more: Azurite could not be installed" >&2
	@touch $@

$(ESTIMATOR): requirements/estimator.txt pyproject.toml | $(UV)
	@rm -rf .venv-estimator && mkdir .venv-estimator
	@if $(UV) python find -q '$(ESTIMATOR_PYTHON)' >/dev/null 2>&1; then \
	  set -x; \
	  $(UV) venv -q --clear --python '$(ESTIMATOR_PYTHON)' .venv-estimator; \
	  $(UV) pip sync -q --python .venv-estimator requirements/estimator.txt; \
	  $(UV) pip install -q --python .venv-estimator --no-deps --no-build-isolation --editable .; \
	fi
	@touch $@

$(JAX): requirements/jax.txt pyproject.toml | $(UV)
	$(UV) venv -q --clear --python '$(TODAY_PYTHON)' .venv-jax
	$(UV) pip sync -q --python .venv-jax requirements/jax.txt
	$(UV) pip install -q --python .venv-jax --no-deps --no-build-isolation --editable .
	@touch $@

# PyTorch comes through pip, which knows where this machine's wheels lie, and without the gigabytes of CUDA that the
# one from the index asks for: where that is the one found, it can't be imported, and there is no environment.
$(TORCH): requirements/torch.txt pyproject.toml | $(UV)
	@rm -rf .venv-torch && mkdir .venv-torch
	@if $(UV) python find -q '$(TORCH_PYTHON)' >/dev/null 2>&1; then \
	  set -x; \
	  $(UV) venv -q --clear --seed --python '$(TORCH_PYTHON)' .venv-torch; \
	  if .venv-torch/bin/python -m pip install -q --no-deps --only-binary :all: $$(grep '^torch==' requirements/torch.txt); then \
	    grep -v '^torch==' requirements/torch.txt | $(UV) pip install -q --python .venv-torch -r -; \
	    $(UV) pip install -q --python .venv-torch --no-deps --no-build-isolation --editable .; \
	  fi; \
	  .venv-torch/bin/python -c 'import torch' || { rm -rf .venv-torch && mkdir .venv-torch; }; \
	fi
	@touch $@

# The wheel of "mlflow" has all files of "mlflow-skinny" and "mlflow-tracing", which an index may have days later. So
# the newest comes in two steps: the one that can be resolved, for what it requires, and then the newest by itself.
MLFLOW_VERSION = ==$*.*
MLFLOW_BESIDE = -r pyproject.toml --group mlflow
.venv-mlflow-newest/.ready .venv-mlflow-pre/.ready: MLFLOW_VERSION = <4
.venv-mlflow-pre/.ready: PRERELEASE = --prerelease allow
.venv-mlflow-pre/.ready: .venv-mlflow-newest/.ready
.venv-mlflow-3.4/.ready: MLFLOW_BESIDE += 'sqlalchemy<2.1'
.venv-mlflow-2.22/.ready: MLFLOW_BESIDE = 'sqlalchemy<2.1'
.SECONDARY: $(MLFLOW_READY)
.venv-mlflow-%/.ready: pyproject.toml | $(UV)
	$(UV) venv -q --clear --python '$(TODAY_PYTHON)' $(@D)
	$(UV) pip install -q --python $(@D) 'mlflow$(MLFLOW_VERSION)' $(MLFLOW_BESIDE)
	$(UV) pip uninstall -q --python $(@D) mlflow mlflow-skinny mlflow-tracing
	$(UV) pip install -q --python $(@D) --no-deps $(PRERELEASE) 'mlflow$(MLFLOW_VERSION)'
	$(if $(filter 2.22,$*),,$(UV) pip install -q --python $(@D) --no-deps --no-build-isolation --editable .)
	@set -- .venv-mlflow-{newest,$*}/lib/*/site-packages/mlflow-*.dist-info; \
	  if [ $* = pre ] && [ $${1##*/} = $${2##*/} ]; then rm -rf $(@D) && mkdir $(@D); fi
	@touch $@
