# What a newcomer and CI run. `make demo` and `make test` set up everything they need, as root on Debian 12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT := etcd-server etcd-client crun runc conmon skopeo nftables iproute2 procps catatonit kmod zstd busybox-static nginx-light haproxy docker-registry wrk wireguard-tools wireguard-go libfaketime strace e2fsprogs python3-venv
PROTOS := $(sort $(wildcard swarm/proto/*.proto swarm/proto/etcd/*.proto))

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types imports proto check test chaos demo bench lock

help: ## Show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## Install Debian packages and the locked Python environment
$(VENV)/.ready: requirements.lock pyproject.toml
	@missing=$$(for p in $(APT); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check 'uv>=0.9'
	$(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -C editable_mode=compat -e .
	@touch $@

lock: ## Resolve the dependencies again into requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --group dev pyproject.toml \
		--generate-hashes --no-emit-index-url --no-header -o requirements.lock

fmt: setup ## Format the code
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .

lint: setup ## Check format and lint
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .

types: setup ## Check types (mypy strict)
	$(BIN)/mypy

imports: setup ## Check that imports go one way
	$(BIN)/lint-imports --no-cache

proto: setup ## Generate the stubs under swarm/proto/gen
	$(BIN)/python -m grpc_tools.protoc -Iswarm/proto/gen=swarm/proto \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
		$(patsubst swarm/proto/%,swarm/proto/gen/%,$(PROTOS))

check: lint types imports proto ## Everything but the tests; fails when the committed stubs are stale
	@git diff --quiet -- swarm/proto/gen && test -z "$$(git ls-files --others --exclude-standard swarm/proto/gen)" \
		|| { echo "the stubs under swarm/proto/gen are stale: run make proto and commit"; exit 1; }
	@PATH=$(BIN):$$PATH $(BIN)/python -m tests.sizes

test: setup ## Run all tests
	$(BIN)/pytest -n 2 --dist loadfile

chaos: setup ## Break labs in every way; CHAOS_SEED=... replays, CHAOS_MINUTES=10, 0 for everything; CHAOS=stack_turns: stacks
	$(BIN)/python -m tests.chaos.$(or $(CHAOS),run)
	$(if $(CHAOS),,$(BIN)/pytest -m soak)
	$(if $(CHAOS),,$(BIN)/pytest --hypothesis-profile=anew tests/property)

demo: setup ## Show the main job on three lab hosts
	$(BIN)/python -m swarm.lab.demo

bench: setup ## Measure against floors of the same run
	$(BIN)/python -m bench
