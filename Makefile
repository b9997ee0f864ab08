# The two commands of the README: `make run` (`make run NODES=3`) and `make test`. Everything they need goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 9092
DATA   ?= data
NODES  ?= 1

.PHONY: run test lint bench compiled image test-containers clean

# Remade when a dependency changes; the package itself is installed editable. What only tests, checks and
# benchmarks need is added when one of them is asked for.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Odradek needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(VENV)/.installed
ifeq ($(NODES),1)
	$(BIN)/odradek start --port $(PORT) --data $(DATA) $(ARGS)
else
	$(BIN)/odradek cluster start --nodes $(NODES) --base-port $(PORT) --dir $(DATA)-cluster --foreground $(ARGS)
endif

# Everything, in parts (tests/in_parts.py); with ARGS="..." what these ask pytest for.
test: $(VENV)/.installed-dev
ifeq ($(strip $(ARGS)),)
	$(BIN)/python tests/in_parts.py
else
	$(BIN)/python -m pytest $(ARGS)
endif

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Optional: what costs per record, as C extensions beside their sources. `make compiled ARGS=--remove` undoes it.
compiled: $(VENV)/.installed-dev
	$(BIN)/python proto/compile.py $(ARGS)

bench: $(VENV)/.installed-dev
	$(BIN)/python -m bench $(ARGS)

# The container image, and the tests that need an engine: deploy/docker/README.md.
IMAGE      ?= odradek
BASE_IMAGE ?= python:3.13-slim-trixie
PIP_ARGS   ?=
image:
	docker build -f deploy/docker/Dockerfile -t $(IMAGE) --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg PIP_ARGS="$(PIP_ARGS)" .

test-containers: image $(VENV)/.installed-dev
	ODRADEK_TEST_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/deploy tests/k8s/test_pods.py -n0 $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
