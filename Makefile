# `make` alone prints the verbs. Everything runs in $(VENV), which `make setup` builds once.
VENV   ?= .venv
PYTHON ?= python3
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
DEMO   := --input input/demo --work work/demo
MANY   := --input input/demo_multilabel --work work/demo_multilabel
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-multilabel screenshots bench test fuzz lint format clean lock

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 17

setup: $(STAMP)  ## make .venv with everything in it (uv inside the venv makes it a minute)

$(STAMP):
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(PY) -c constraints.txt -e '.[dev,kaggle]'
	@rm -f $(VENV)/.installed-* && touch $@

demo: setup  ## the main job on a synthetic competition: two experiments x 5 folds, blend, submission, scores
	$(PY) -m input.demo input/demo
	@# side by side with a thread each: networks this small gain nothing from a second thread
	@OMP_NUM_THREADS=1 $(PY) train_fold.py --fold 0..4 --config configs/demo_resnetish.yaml $(DEMO) & first=$$!; \
	OMP_NUM_THREADS=1 $(PY) train_fold.py --fold 0..4 --config configs/demo_vggish.yaml $(DEMO); second=$$?; \
	wait $$first && exit $$second
	$(PY) ensemble.py $(DEMO)
	$(PY) submit.py $(DEMO) --truth input/demo/test_labels.csv

demo-multilabel: setup  ## the same for several labels a clip, in FSDKaggle2019's layout
	$(PY) -m input.demo input/demo_multilabel --multi-label
	@OMP_NUM_THREADS=1 $(PY) train_fold.py --fold 0..4 --config configs/demo_multilabel.yaml $(MANY) & first=$$!; \
	OMP_NUM_THREADS=1 $(PY) train_fold.py --fold 0..4 --config configs/demo_multilabel.yaml $(MANY) \
		name=multilabel_vggish model.name=vggish train.lr=2e-3; second=$$?; \
	wait $$first && exit $$second
	$(PY) ensemble.py $(MANY)
	$(PY) submit.py $(MANY) --truth input/demo_multilabel/test_labels.csv

screenshots: demo  ## the pictures of the pages in docs/, of the demo in Debian's chromium
	$(PY) report.py $(DEMO)
	$(PY) find_label_errors.py $(DEMO) --open --verified
	$(PY) -m pages.screenshots work/demo docs

bench: setup  ## measure against torchaudio, librosa and plain loaders (BENCH=--quick: a short run, --points 5: one point)
	$(PY) -m benchmarks.run $(BENCH)

test: setup  ## pass the tests, a process per core (one process: .venv/bin/python -m pytest)
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0

fuzz: setup  ## search longer for input that breaks the readers (FUZZ_EXAMPLES=2000 per test)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-2000} $(PY) -m pytest tests/test_fuzz_*.py

lint: setup  ## ruff, mypy and the walls between the folders
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

format: setup  ## let ruff put the code in order
	$(VENV)/bin/ruff check --fix --quiet . ; $(VENV)/bin/ruff format .

lock: setup  ## resolve constraints.in into constraints.txt
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate \
		-c constraints.in pyproject.toml -o constraints.txt

clean:  ## remove what was generated here: the demos and caches (.venv, runs and downloaded data stay)
	rm -rf work/demo work/demo_multilabel work/notebook input/demo input/demo_multilabel input/demo_notebook input/.demo*.lock
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
