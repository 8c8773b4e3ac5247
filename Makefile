# The whole developer interface: `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Each writes files, or with --check tells whether they are up to date.
GENERATORS := charts/write_crds.py charts/write_values.py docs/write_reference.py requirements/write_locks.py

.DEFAULT_GOAL := help
.PHONY: help setup check test demo demo-edge demo-mesh demo-helm bench-webhook bench-sidecar bench-relay bench-reconciler bench-edge bench-mesh crds proto lock docs clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

setup: $(STAMP) ## Make the virtual environment with the locked dependencies

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgefarm-network needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

check: $(STAMP) ## Lint, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for made in $(GENERATORS); do $(BIN)/python $$made --check || exit 1; done

test: export PYTHONDONTWRITEBYTECODE :=
test: $(STAMP) ## Run all tests (real nats-server, OpenBao and kubectl; ARGS= for pytest)
	$(BIN)/python -m tests $(ARGS)

demo: $(STAMP) ## Run the main job on localcluster and check it (ARGS=--json for machine-readable lines)
	@$(BIN)/edgefarm demo main $(ARGS)

demo-edge: $(STAMP) ## Run edge nodes on localcluster, cut an uplink, and check what survives (ARGS=--json)
	@$(BIN)/edgefarm demo edge $(ARGS)

demo-mesh: $(STAMP) ## Run edge hosts and gateways in network namespaces and check the mesh (Linux, root; ARGS=--json)
	@$(BIN)/edgefarm demo mesh $(ARGS)

demo-helm: $(STAMP) ## Install the chart on localcluster with Helm's SDK and check use, upgrade, rollback, removal (ARGS=--json)
	@$(BIN)/edgefarm demo helm $(ARGS)

bench-webhook: $(STAMP) ## Webhook beside a bare application on the same body: throughput, latency, memory (JSON lines; needs wrk)
	@$(BIN)/python -m tests.bench.webhook $(ARGS)

bench-sidecar: $(STAMP) ## Sidecar beside bao agent: time to credentials, memory (JSON lines)
	@$(BIN)/python -m tests.bench.sidecar $(ARGS)

bench-relay: $(STAMP) ## The sidecar's relay beside a direct TLS connection: messages, latency (JSON lines)
	@$(BIN)/python -m tests.bench.relay $(ARGS)

N ?= 200
bench-reconciler: $(STAMP) ## Converge N networks with five policies each beside bare Vault writes (JSON lines)
	@$(BIN)/python -m tests.bench.reconciler --networks $(N) $(ARGS)

bench-edge: $(STAMP) ## Leafs, streams and outages beside plain nats-servers (JSON lines; ARGS=--help)
	@$(BIN)/python -m tests.bench.edge $(ARGS)

bench-mesh: $(STAMP) ## The mesh beside bare wireguard-go: throughput, latency, joins, gaps (JSON lines; Linux, root)
	@$(BIN)/python -m tests.bench.mesh $(ARGS)

crds: $(STAMP) ## Write what is generated: CRDs and their reference, schema and README of the chart's values, images' locks
	for made in $(GENERATORS); do $(BIN)/python $$made || exit 1; done

proto: $(STAMP) ## Write the Python code of abbot-proto
	cd edgefarm/abbotproto && ../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. abbot.proto

lock: ## Resolve the dependencies again into requirements.lock (needs uv)
	uv pip compile pyproject.toml --extra localcluster --group dev --universal --generate-hashes \
	  --python-version 3.11 --no-emit-index-url --no-annotate --custom-compile-command 'make lock' \
	  --quiet -o requirements.lock
	$(BIN)/python requirements/write_locks.py

docs: $(STAMP) ## Build the documentation into site/ (links and anchors are checked)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
