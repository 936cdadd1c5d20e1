# Everything runs in .venv, which is built from requirements.lock on first use.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
UV := $(shell command -v uv 2>/dev/null)

.PHONY: help demo test soak check format bench samples docs lock clean

help:
	@echo "make demo     train a small model with a planted flaw and audit it (a minute)"
	@echo "make test     run all tests"
	@echo "make soak     kill, stop and starve audits for ten minutes, and print what came of it"
	@echo "make check    formatting, lint, types, import order"
	@echo "make format   format the code"
	@echo "make bench    time an audit against bare prediction: MODEL=m.keras IMAGES=val/"
	@echo "make samples  rebuild sample_reports/ and the picture in the README"
	@echo "make docs     paste the commands' help into docs/cli.md"
	@echo "make lock     resolve requirements.lock again (needs uv)"

demo: $(READY)
	$(BIN)/gradcam-audit demo --out demo-run

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

soak: $(READY)
	$(BIN)/python tests/soak.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

MODEL ?= demo-run/model.keras
IMAGES ?= demo-run/images
bench: $(READY)
	$(BIN)/python benchmarks/overnight.py $(MODEL) $(IMAGES)

samples: $(READY)
	$(BIN)/python sample_reports/build.py

docs: $(READY)
	$(BIN)/python docs/update_cli.py

lock:
	uv pip compile --universal --generate-hashes --no-header --no-annotate --quiet \
		--extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv demo-run .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gradcam-audit needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12"; \
		exit 1; }
	$(PYTHON) -m venv .venv
ifeq ($(UV),)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
else
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
endif
	@$(BIN)/python -c 'import cv2' || { \
		echo "OpenCV misses a system library. On Debian or Ubuntu: apt-get install libgl1 libglib2.0-0"; \
		exit 1; }
	@touch $(READY)
