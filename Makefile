# The whole interface of this repository; `make` alone lists it.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
INSTALLED := .venv/.installed

# The rendering backend that `make setup` found to work. Deferred, because setup may run within the same call.
MUJOCO_GL ?= $(shell cat .venv/mujoco_gl 2>/dev/null)
export MUJOCO_GL

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) ## make .venv with the pinned requirements and this package, and check off-screen rendering

$(INSTALLED): requirements.lock pyproject.toml .python-version tools/setup.sh tools/check_rendering.py
	@tools/setup.sh
	@touch $@

.PHONY: demo
demo: setup ## the whole main job, small: pretrain, finetune, evaluate, export
	$(BIN)/python examples/demo.py

.PHONY: test
test: setup ## the quick tests
	$(BIN)/python -m pytest -m "not slow and not libero" -n 2 --dist loadfile

.PHONY: test-method
test-method: setup ## the tests of the method alone, in seconds
	$(BIN)/python -m pytest tests/method

.PHONY: test-slow
test-slow: setup ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not libero"

# An environment of its own: LIBERO's robosuite needs MuJoCo below 3.9, and the figures on Meta-World were measured with
# the version in requirements.lock.
LIBERO := .venv-libero
.PHONY: setup-libero
setup-libero: $(LIBERO)/.installed ## make .venv-libero with LIBERO, for its simulator's tests and examples

$(LIBERO)/.installed: requirements-libero.lock pyproject.toml | setup
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LIBERO)
	$(BIN)/uv pip install --quiet --python $(LIBERO)/bin/python --requirement requirements-libero.lock
	$(BIN)/uv pip install --quiet --python $(LIBERO)/bin/python --no-deps --no-build-isolation --editable .
	$(LIBERO)/bin/lawm-libero-setup
	@touch $@

.PHONY: test-libero
test-libero: setup-libero ## the tests that need LIBERO's simulator
	$(LIBERO)/bin/python -m pytest -m libero tests/envs/test_libero_simulator.py

# LeRobot's own requirements decide where they differ from the lock file's.
NEXT := .venv-next
NEXT_TESTS ?= tests/method tests/policies tests/hub
.PHONY: test-next
test-next: setup ## the tests against another LeRobot: make test-next LEROBOT=<a checkout of it>
	@test -f "$(LEROBOT)/pyproject.toml" || { echo "make test-next: no checkout of LeRobot in '$(LEROBOT)', set LEROBOT=<path>"; exit 1; }
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(NEXT)
	grep -v '^lerobot==' requirements.lock > $(NEXT)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(NEXT)/bin/python --requirement $(NEXT)/requirements.txt
	$(BIN)/uv pip install --quiet --python $(NEXT)/bin/python --no-sources \
		"$(LEROBOT)[training,diffusion,metaworld,smolvla,pi,peft,feetech,async,pyzmq-dep]"
	$(BIN)/uv pip install --quiet --python $(NEXT)/bin/python --no-deps --no-build-isolation --editable .
	$(NEXT)/bin/python -m pytest -m "not slow and not libero" -n 2 --dist loadfile $(NEXT_TESTS)

.PHONY: lint
lint: setup ## ruff, mypy and typos, as in CI
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/typos

# Goes on where an interrupted one stopped; `make bench BENCH=--fresh` starts over, `--quick` takes a look.
.PHONY: bench
bench: setup ## the speed figures, on two processor cores
	$(BIN)/python -m tools.speed --device=cpu --output=outputs/bench/cpu.json $(BENCH)

.PHONY: bench-gpu
bench-gpu: setup ## the speed figures, on an NVIDIA GPU
	$(BIN)/python -m tools.speed --device=cuda --output=outputs/bench/cuda.json $(BENCH)

.PHONY: lock
lock: setup ## pin the requirements anew, after a change of the dependencies in pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra metaworld --extra so101-sim --group dev --universal --python-version 3.12 \
		--no-emit-index-url --quiet --custom-compile-command "make lock" --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra libero --extra metaworld --group dev --universal --python-version 3.12 \
		--no-emit-index-url --quiet --custom-compile-command "make lock" --generate-hashes \
		--output-file requirements-libero.lock

.PHONY: clean
clean: ## remove caches and build output; .venv and training output stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find lawm_lerobot tests examples tools -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
