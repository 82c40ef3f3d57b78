# The index of what you can do here. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
# Compiled modules are kept, whatever the shell says: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=
# Set PYTEST_ARGS="-k name -x" to run some of the tests.
PYTEST_ARGS ?=
# How many processes run tests: 0 is one after the other, in this one. Without it as many as two cores have work for.
TEST_PROCESSES ?=
# make sam-demo SAM_DEMO_ARGS=--serve keeps the local S3 up for `sam local invoke` by hand.
SAM_DEMO_ARGS ?=
BENCH_ARGS ?=
# make cdk CDK_ARGS="deploy comfy-serverless-sagemaker -c max_instances=2"
CDK_ARGS ?= list
# make dev DEV_ARGS="--workers 2"
DEV_ARGS ?=
# make deploy TARGET=worker SET="MemorySize=10240 AlarmTopicArn=arn:…" (docs/deploy-lambda.md)
STACK ?= comfy-serverless
TARGET ?=
OWNER ?=
SET ?=
DEPLOY_ARGS ?=
UNDEPLOY_ARGS ?=
# How many jobs a soak runs, and which: the same seed makes the same jobs; without one they are random.
SOAK_JOBS ?= 2000
SOAK_SEED ?=
# How many runs of named workflows follow, while their aliases move.
SOAK_RUNS ?= 500
# make comfyui-upgrade REF=v0.33.0
REF ?=
# make image TORCH=cuda, or TAG=…, or IMAGE_ARGS="--build-arg ALLOW_IMPORT_FAILURES=pack"
TORCH ?= cpu
TAG ?= comfy-serverless:$(if $(filter cuda,$(TORCH)),gpu,cpu)
IMAGE_ARGS ?=
IMAGE_OUT ?= out/image
UPGRADE_ARGS ?=

.PHONY: help setup demo dev traces test test-fast test-services test-console extras soak e2e e2e-comfyui sam-demo deploy declarations undeploy adopt budget contract bench infra cdk image image-size gpu-image sbom scan bench-api bench-batch bench-console bench-ping bench-workers lint docs format lock lock-torch comfyui-upgrade clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Fill .venv from the locked requirements (skipped when nothing changed)

$(VENV)/.installed: requirements/dev.txt pyproject.toml tools/setup.py
	@$(PYTHON) tools/setup.py $(VENV) requirements/dev.txt
	@touch $@

demo: setup ## Local S3 + real Lambda runtime emulator: events in, pictures out (out/demo.png)
	@$(RUN) -m demo

dev: setup ## The whole service at http://127.0.0.1:8189 (PORT, API_KEY, COMFYUI_DIR); Ctrl-C ends it
	@exec $(RUN) -m local $(DEV_ARGS)

# Comfy's SDK for TypeScript, for the example; Node is one of the locked requirements.
TYPESCRIPT := examples/typescript/node_modules

$(TYPESCRIPT)/.installed: examples/typescript/package-lock.json $(VENV)/.installed
	@cd examples/typescript && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Whatever needs no container is in one of two targets: nearly all tests, and those of services that run as processes.
# Each process reads all tests first, ten seconds for ten thousand; those of services wait more than they work.
# Files begin in their order (`--no-loadscope-reorder`): the long ones of tests/integration must not be the last to begin.
# Schemathesis, of one file of tests/integration, loads for a quarter of a second in each process.
NO_FUZZ := -p no:schemathesis
PYTEST := $(RUN) -m pytest --dist loadfile --no-loadscope-reorder

test: setup ## The tests that start no service; those that do: make test-services
	$(PYTEST) $(NO_FUZZ) tests/unit -n $(or $(TEST_PROCESSES),3) $(PYTEST_ARGS)

test-services: setup $(TYPESCRIPT)/.installed ## Those of engines, workers and whole stacks, which run as processes
	$(PYTEST) tests/integration tests/contract -n $(or $(TEST_PROCESSES),5) $(PYTEST_ARGS)

test-console: setup ## The pages in a real browser: Debian's Chromium (CHROMIUM); UPDATE_PICTURES=1 keeps how they look now
	$(PYTEST) tests/console -n 0 $(PYTEST_ARGS)

# What decides without a process, a server or AWS: the state machine, the graph, requests, settings, the rooms.
FAST_TESTS := tests/unit/graph tests/unit/jobs/test_request.py \
  $(filter-out %/test_process.py %/test_confinement.py,$(wildcard tests/unit/connector/test_*.py)) \
  tests/unit/table/test_job_store.py tests/unit/handlers/test_events.py \
  tests/unit/test_settings.py tests/unit/test_errors.py tests/unit/test_files.py

test-fast: setup ## The pure part of the tests: seconds, while you work
	$(RUN) -m pytest $(NO_FUZZ) $(FAST_TESTS) -n $(or $(TEST_PROCESSES),3) $(PYTEST_ARGS)

extras: setup ## Each extra in a fresh environment, and the README's lines with it (needs a package index)
	$(RUN) -m pytest tests/extras $(PYTEST_ARGS)

traces: setup ## The spans of one line of a batch as a picture, from the service on this machine (docs/images/trace.svg)
	@$(RUN) -m demo.traces

soak: setup ## Thousands of jobs with faults thrown at random: make soak SOAK_JOBS=2000 SOAK_SEED=7
	@$(RUN) -m tests.soak --jobs $(SOAK_JOBS) $(if $(SOAK_SEED),--seed $(SOAK_SEED))
	@$(RUN) -m tests.soak.named --runs $(SOAK_RUNS) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

e2e: setup ## Build the image and prove it: docker, sam build, sam local (needs a container engine)
	$(RUN) -m pytest tests/e2e -m "not comfyui" $(PYTEST_ARGS)

e2e-comfyui: setup ## The same for the image with ComfyUI itself, from a checkout in comfyui/ (minutes, gigabytes; TORCH=cuda: torch from PyPI)
	@test -f comfyui/main.py || { echo "Put a ComfyUI checkout into comfyui/ first: see comfyui/README.md."; exit 2; }
	$(RUN) -m pytest tests/e2e -m comfyui $(PYTEST_ARGS)

sam-demo: setup ## The same events through `sam build` and `sam local invoke` (needs a container engine)
	@$(RUN) -m demo.sam $(SAM_DEMO_ARGS)

deploy: setup ## The stack on AWS: make deploy STACK=… TARGET=worker OWNER=… SET="Parameter=value …" (needs a container engine)
	@$(RUN) -m tools.deploy --stack $(STACK) $(if $(TARGET),--target $(TARGET)) $(if $(OWNER),--owner $(OWNER)) $(DEPLOY_ARGS) -- $(SET)

declarations: setup ## Tell the API what nodes an image has, before a worker has run: after make image, make declarations STACK=…
	@$(RUN) -m tools.declarations --stack $(STACK)

undeploy: setup ## Delete the stack; says what stays, and what that costs: make undeploy UNDEPLOY_ARGS=--tell
	@$(RUN) -m tools.undeploy --stack $(STACK) $(UNDEPLOY_ARGS)

adopt: setup ## Begin a new stack with the buckets and the table that a deleted one has left
	@$(RUN) -m tools.adopt --stack $(STACK)

# A budget has no region of its own; us-east-1 is one of those that have the resource type.
budget: setup ## Somebody is told when a month costs more: make budget SET="MonthlyBudget=200 BudgetEmail=…"
	$(VENV)/bin/sam deploy --template-file budget.yaml --stack-name $(STACK)-budget --region us-east-1 \
	  --no-fail-on-empty-changeset --parameter-overrides Stack=$(STACK) $(SET)

contract: setup ## The contract tests against a real ComfyUI: make contract COMFYUI_DIR=… COMFYUI_PYTHON=…
	@test -n "$(COMFYUI_DIR)" || { echo "Set COMFYUI_DIR to a ComfyUI checkout (and COMFYUI_PYTHON to its Python)."; exit 2; }
	$(RUN) -m pytest tests/contract $(PYTEST_ARGS)

bench: setup ## What the connector costs, as ratios to the floor of the same run (a few minutes; a quiet machine)
	POWERTOOLS_LOG_LEVEL=ERROR $(RUN) -m benchmarks.bench $(BENCH_ARGS)

bench-batch: setup ## Manifests of 100 to 100,000 lines: rate, memory, calls, dollars (twenty minutes)
	@$(RUN) -m benchmarks.batches $(BENCH_ARGS)

bench-api: setup ## A small job's way through the API: each hop, and how soon a client hears of its end (a quiet machine)
	@POWERTOOLS_LOG_LEVEL=ERROR $(RUN) -m benchmarks.api_way $(BENCH_ARGS)

bench-console: setup ## The console in Chromium: first paint, 1,000 jobs scrolled, what it costs the local stack (four minutes)
	@POWERTOOLS_LOG_LEVEL=ERROR $(RUN) -m benchmarks.console $(BENCH_ARGS)

bench-ping: setup ## Pings, and another owner's jobs, while somebody sends files that are made to harm (four minutes; a quiet machine)
	@POWERTOOLS_LOG_LEVEL=ERROR $(RUN) -m benchmarks.ping_flood $(BENCH_ARGS)

bench-workers: setup ## One queue, and one, two, four workers: does work spread?
	@$(RUN) -m benchmarks.workers $(BENCH_ARGS)

# CDK has its own environment: it needs other versions of the workers' libraries.
CDK_VERSION := 2.1148.1
INFRA := infra/.venv

$(INFRA)/.installed: requirements/infra.txt tools/setup.py
	@PIP_NO_COMPILE=1 $(PYTHON) tools/setup.py $(INFRA) requirements/infra.txt --only-requirements
	@touch $@

infra: $(INFRA)/.installed ## The GPU stacks: synthesize them, and check them with cfn-lint, cdk-nag, checkov and our tests
	$(INFRA)/bin/mypy --strict infra/*.py tests/infra/*.py
	$(INFRA)/bin/python -m pytest tests/infra $(PYTEST_ARGS)

cdk: $(INFRA)/.installed $(VENV)/.installed ## CDK with the GPU stacks: make cdk CDK_ARGS="deploy comfy-serverless-sagemaker" (docs/deploy-gpu.md)
	@cd infra && PATH="$(CURDIR)/$(INFRA)/bin:$$PATH" npx --yes aws-cdk@$(CDK_VERSION) $(CDK_ARGS)
	@$(if $(filter deploy,$(firstword $(CDK_ARGS))),$(RUN) -m tools.declarations --stack $(STACK) --if-there)

image: ## Build ComfyUI's image from comfyui/comfy-build.lock, and fetch what it declares (out/image): make image TORCH=cuda
	docker build --target worker -t $(TAG) --build-arg TORCH=$(TORCH) \
	  --build-arg COMFYUI_ARGS=$(if $(filter cuda,$(TORCH)),,--cpu) $(IMAGE_ARGS) .
	@$(PYTHON) tools/image_facts.py $(TAG) $(IMAGE_OUT)

image-size: ## What is largest in an image: libraries, packs, the rest; and whether Lambda takes it: make image-size TAG=…
	@$(PYTHON) tools/image_size.py $(TAG)

gpu-image: ## Build the image as the GPU stacks do, and say whether Lambda accepts it (needs a container engine)
	@$(MAKE) --no-print-directory image TORCH=cuda TAG=comfy-serverless:gpu IMAGE_ARGS='$(IMAGE_ARGS) --build-arg \
	  TORCH_INDEX_URL="$(shell $(PYTHON) -c 'import json; print(json.load(open("infra/cdk.json"))["context"]["torch_index_url"])')"'
	@$(MAKE) --no-print-directory image-size TAG=comfy-serverless:gpu

# What an image holds, and what is known of it: make scan IMAGE=comfy-serverless:gpu
IMAGE ?= comfy-serverless:cpu
SBOM := out/sbom-$(subst /,-,$(subst :,-,$(IMAGE))).json

sbom: ## Write what is in an image as a bill of materials (CycloneDX): make sbom IMAGE=comfy-serverless:gpu
	@$(PYTHON) tools/sbom.py $(IMAGE) $(SBOM)

scan: ## Look for known vulnerabilities, with trivy or grype (after make sbom), else with pip-audit (needs the network)
	@$(PYTHON) tools/scan.py $(SBOM)

lint: setup ## ruff, mypy --strict, and the rooms: what may import what (import-linter)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

docs: setup ## Generate the tables of settings and errors, and build the pages strictly (out/site/index.html)
	@$(RUN) -m tools.docs_pages
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "The pages are in out/site/index.html."

format: setup ## Let ruff fix and format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: ## Resolve pyproject.toml anew into requirements/*.txt (needs uv)
	@command -v uv >/dev/null || { echo "uv is not installed: pip install uv"; exit 2; }
	@# ministack and aws-sam-cli pin different versions of botocore; both work with any of the same minor version.
	@printf 'botocore[crt]>=1.43.108,<1.44\n' | uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-emit-index-url --upgrade --override /dev/stdin \
	  pyproject.toml --extra aws --extra env --extra lite --extra lambda --extra remote --extra dev -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade \
	  pyproject.toml --extra aws --extra lite --extra lambda -c requirements/dev.txt -o requirements/lambda.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade \
	  pyproject.toml --extra infra -o requirements/infra.txt
	@# The API's image has no libraries of the connector or of an engine.
	@$(PYTHON) -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["api"]))' \
	  | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade \
	  -c requirements/dev.txt - -o requirements/api.txt
	@# That of /mcp has the library of the protocol beside them.
	@$(PYTHON) -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print("\n".join(extras["api"] + extras["mcp"]))' \
	  | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade \
	  -c requirements/dev.txt - -o requirements/mcp.txt
	@$(MAKE) --no-print-directory lock-torch
	@# The last, because not everybody reaches PyTorch's own index.
	uv pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes --no-header \
	  --no-emit-index-url --no-deps --default-index https://download.pytorch.org/whl/cpu \
	  requirements/torch.in -o requirements/torch-cpu.txt

lock-torch:
	@command -v uv >/dev/null || { echo "uv is not installed: pip install uv"; exit 2; }
	@# The libraries that ComfyUI shares with torch have one version: that of comfyui/comfy-build.lock.
	@PYTHONPATH=lambda $(PYTHON) comfyui/from_lock.py libraries comfyui/comfy-build.lock requirements out/lists
	sed 's/ --hash=[^ ]*//g' out/lists/core.txt | uv pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_36 \
	  --generate-hashes --no-header --no-emit-index-url -c - requirements/torch.in -o requirements/torch-cuda.txt

comfyui-upgrade: setup ## Another ComfyUI, and what it needs: make comfyui-upgrade REF=v0.33.0 (= baseComfyVersion, and env lock)
	@test -n "$(REF)" || { echo "Set REF to a tag, a branch or a commit of ComfyUI: make comfyui-upgrade REF=v0.33.0"; exit 2; }
	@$(RUN) -m tools.comfyui_upgrade "$(REF)" $(UPGRADE_ARGS)

clean: ## Remove everything that was made here
	rm -rf $(VENV) $(INFRA) $(TYPESCRIPT) out .aws-sam build *.egg-info lambda/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
