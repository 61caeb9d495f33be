# Two commands set everything up by themselves, in .venv with the versions of constraints.txt:
#   make demo    labels the example video        make test    runs the test suite, make test-fast a case of each quick test
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-all test-avx2 check check-kernels gpu format clean
demo: OUT ?= out/goat
demo: .venv/demo
	rm -rf $(OUT)
	$(BIN)/vcorr propagate examples/goat.mp4 examples/goat_mask.png --out $(OUT)

# A process a core, each of one thread: threads that share a core wait for one another. TESTS: some paths, or options of
# pytest. Hypothesis draws a tenth of its examples, and what takes over
# five seconds is left out; test-all, which CI runs, leaves nothing out. test-fast is for a look
# at once: one case of each test that is not slow.
WORKERS ?= auto
TESTS ?=
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
test: .venv/dev
	$(PYTEST) -m "not long" $(TESTS)

test-fast: .venv/dev
	$(PYTEST) -m "not slow and not long" --one-case --hypothesis-profile few $(TESTS)

test-all: .venv/dev .venv/node
	$(PYTEST) --hypothesis-profile all $(TESTS)

# The tests of training, recipes and operators as on a processor with AVX2 and no more, where torch and its libraries run
# other code, and no window is read by panels.
test-avx2: export ATEN_CPU_CAPABILITY := avx2
test-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
test-avx2: export MKL_ENABLE_INSTRUCTIONS := AVX2
test-avx2: .venv/dev
	$(BIN)/python -c 'from vcorr.kernels.cpu import products; assert not (products.GROUPED or products.ONEDNN)'
	$(PYTEST) tests/training tests/recipes tests/kernels

check: .venv/dev .venv/node
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if test -x $(TSC); then $(TSC) -p vcorr/ui/jsconfig.json; else echo "no npm: the page's scripts are not typed"; fi

# Every tile of the Triton kernels, compiled without a GPU for each that they are meant for, by both ends of the range of
# versions.
TRITON ?= 3.6.0 3.9.0
check-kernels: $(TRITON:%=.venv/triton-%)
	for version in $(TRITON); do \
		PYTHONPATH=.venv/triton-$$version $(BIN)/python -m tests.kernels.ahead || exit 1; done

# On a machine with a GPU, where PYTHON has torch, triton, numpy, pytest, hypothesis and einops and nothing is installed:
# the operators' tests at real sizes, then their measurements, as a log, tables and JSON in OUT. GPU_ARGS: gpu.py --help.
gpu: OUT ?= out/gpu
gpu: export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu:
	$(PYTHON) -m benchmarks.gpu $(OUT) $(GPU_ARGS)

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A stamp a set of extras, so that nothing is installed twice. dev holds all that demo needs, and triton (a download of
# 200 MB), so that every test run interprets the GPU kernels and compiles the main ones, without a GPU.
.venv/demo: pyproject.toml constraints.txt | $(BIN)/python
	test -e .venv/dev || $(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[check]'
	touch $@

# What types the page's scripts, and what finds faults of its accessibility. Where npm is absent, both are skipped.
TSC = .venv/node/node_modules/.bin/tsc
NODE_TOOLS = typescript@7.0.2 axe-core@4.14.1
.venv/node: | $(BIN)/python
	mkdir -p $@
	if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix $@ $(NODE_TOOLS); fi

.venv/triton-%: | .venv/dev
	$(BIN)/pip install --quiet --no-deps --target $@ triton==$*

$(BIN)/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
