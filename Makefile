# The commands of this project; `make help` lists them. Only Python 3.11 and pip are assumed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Most of what is installed is never imported, and Python compiles what is: that halves the time.
PIP := $(BIN)/pip install -qq --no-compile --disable-pip-version-check
READY := $(VENV)/.ready
AUDIT := $(VENV)-audit/bin/pip-audit

.DEFAULT_GOAL := help
.PHONY: help setup test lint unit integration slow soak demo bench lock audit clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## Make .venv with everything pinned (CPU; docs/install.md says how for GPUs)

# TorchRec's metadata asks for the CUDA build of fbgemm: it goes in without its dependencies, which
# pyproject.toml names instead, and pip must not warn of it. torch goes first, so that nothing else chooses its
# build.
$(READY): pyproject.toml requirements/constraints.txt requirements/torch-cpu.txt
	@echo "setting up $(VENV) (some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef LOCKED
	@echo "  what requirements/lock.txt names, compared with its checksums"
	@$(PIP) --no-deps --require-hashes -r requirements/lock.txt && $(PIP) --no-deps -e .
else
	@echo "  torch" && $(PIP) -c requirements/constraints.txt torch==2.13.0
	@echo "  torchrec, fbgemm" && $(PIP) --no-deps -r requirements/torch-cpu.txt
	@echo "  ray, mlflow and the rest" && $(PIP) --no-warn-conflicts -c requirements/constraints.txt -e '.[dev]'
endif
	@touch $@

# Integration tests wait much: for processes that start, and for each other. Lint and unit tests, at the lowest priority,
# take what they leave of two cores.
test: $(READY)  ## Run all that CI runs
	@$(MAKE) --no-print-directory -j2 --output-sync=target NICE="nice -n 19" integration lint unit

lint: $(READY)  ## Style, types, layers
	$(NICE) $(BIN)/ruff check .
	$(NICE) $(BIN)/ruff format --check .
	$(NICE) $(BIN)/basedpyright --level error
	$(NICE) $(BIN)/lint-imports --no-cache

# Hypothesis' own profile `ci` draws the same examples in each run: a find at random is for `make soak` and for pytest.
unit: $(READY)  ## Unit tests: no Ray
	OMP_NUM_THREADS=1 $(NICE) $(BIN)/python -m pytest tests/unit -m "not slow" -n auto --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder --hypothesis-profile=ci

integration: $(READY)  ## Integration tests: a local Ray, MLflow on SQLite
	$(BIN)/python -m pytest tests/integration -m "not slow"

slow: $(READY)  ## Tests of many minutes, which CI leaves out
	$(BIN)/python -m pytest tests -m slow

# Random faults, kills under Ray, and minutes of each parser: make soak FAULTS=200 KILLS=60 MINUTES=60
soak: $(READY)  ## Random faults, and fuzzing where atheris is installed (hours)
	$(BIN)/python -W ignore -m tests.faults.soak --faults $(or $(FAULTS),200) --seed $(or $(SEED),0)
	$(BIN)/python -W ignore -m tests.faults.ray_soak --faults $(or $(KILLS),60) --seed $(or $(SEED),0)
	for target in csv version log schema mapping configuration records samples export delta request; do \
		$(BIN)/python -m tests.faults.fuzz $$target --minutes $(or $(MINUTES),10) --seed $(or $(SEED),0) || exit 1; \
	done

demo: $(READY)  ## A small world, its source series, base and CTNet, and what CTNet brings (minutes)
	@$(BIN)/python -m jobs.demo

bench: $(READY)  ## Measure speed, fixed cost a day and memory (many minutes)
	$(BIN)/python -m benchmarks.job

# Minutes of pip's CPU time: it chooses anew, within the constraints.
lock: $(READY)  ## Write requirements/lock.txt and licences.csv: files with checksums, and what is not permissive
	$(PIP) --dry-run --ignore-installed --report $(VENV)/locked.json -c requirements/constraints.txt torch==2.13.0 '.[dev]'
	$(PIP) --dry-run --ignore-installed --no-deps --report $(VENV)/locked-torchrec.json -r requirements/torch-cpu.txt
	$(BIN)/python requirements/lock.py $(VENV)/locked.json $(VENV)/locked-torchrec.json

audit:  ## Known vulnerabilities of what is locked, by pip-audit (asks a service in the network)
	@test -x $(AUDIT) || { $(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/pip install -qq pip-audit; }
	@$(AUDIT) --progress-spinner off --strict --disable-pip --require-hashes -r requirements/lock.txt \
		|| { echo "error: it found something, or could not ask: see above" >&2; exit 1; }

clean:  ## Remove what setup and demo made
	rm -rf $(VENV) $(VENV)-audit demo *.egg-info .pytest_cache .ruff_cache .hypothesis
