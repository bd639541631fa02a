# The project's commands. `make` alone lists them.
#
# Everything runs in .venv, which is made when first needed and again when pyproject.toml or requirements.lock changes.
# On Linux x86-64 pip takes requirements.lock as constraints: the versions that were tested. Elsewhere, with LOCKED=0, and where a Python has
# no such versions, pip chooses within the bounds of pyproject.toml. A torch that you put into .venv yourself (the CPU-only build of the locked
# version, say) is kept.

PYTHON  ?= python3
PROFILE ?= embedded
ARGS    ?=

VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
HALF    := $(VENV)/.installing
LOCKED  ?= $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),1,0)
LOCK    := $(if $(filter 1,$(LOCKED)),-c requirements.lock)
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -e ./kernels -e '.[all]'
CHAPTERS = $(wildcard book/*.ipynb)

# One thread is the quickest where two processes share two cores. The suite passes with others too: make test THREADS=2.
THREADS    ?= 1
threads := OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS) OPENBLAS_NUM_THREADS=$(THREADS) PYTHONHASHSEED=0
pytest     := $(threads) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
nbval      := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 300 -p no:cacheprovider
SUITE      := tests kernels/tests $(CHAPTERS)

.DEFAULT_GOAL := help
.PHONY: help reproduce book test test-all browser pdf lint style notebooks bench refresh clean

help:  ## this list
	@echo 'make <target> [PROFILE=embedded|quick|cifar10|...] [ARGS="..."] [PYTHON=python3.12]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

reproduce:  ## regenerate every figure and table (ARGS go to `alexnet reproduce`), then build the book
	@echo 'Every figure and table of profile $(PROFILE), then the book.$(if $(filter embedded,$(PROFILE)), Less than half an hour on two cores, after the first installation.)'
	@$(MAKE) --no-print-directory $(READY)
	$(BIN)/alexnet reproduce --profile $(PROFILE) $(ARGS)
	@$(MAKE) --no-print-directory book
	@echo 'Your figures and executed notebooks: runs/$(PROFILE)/'
	@echo 'Next: open the book; or `make reproduce PROFILE=cifar10` with CIFAR-10 in a folder that ALEXNET_DATA names;'
	@echo '      or `$(BIN)/alexnet --help` for training and evaluating yourself.'

book: $(READY)  ## build the book into _build/html, executing what changed; warnings are errors
	$(BIN)/python scripts/build_book.py

test:  ## style, types, unit tests, and every notebook against its stored outputs
	@echo 'Style, types, unit tests, and every notebook against its stored outputs: some ten minutes on two cores, after the first installation.'
	@$(MAKE) --no-print-directory style
	$(pytest) $(nbval) $(SUITE)

test-all: style book  ## test, what is slow or needs a GPU (skipped where there is none), and the built book in Chromium
	$(pytest) $(nbval) $(SUITE) -m 'slow or gpu or not slow'

browser: book  ## the built book in Chromium (skipped where there is none): links, keyboard, screen reader, weight, no other host
	$(pytest) tests/test_browser.py -m 'slow or not slow'

pdf: book  ## the whole book as one PDF in _build/html, printed by Chromium
	$(BIN)/python scripts/chromium.py pdf

lint: style  ## style and types only
	$(BIN)/mypy

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: $(READY)  ## the notebooks only, re-run against their stored outputs by nbval
	$(pytest) $(nbval) $(CHAPTERS)

bench: $(READY)  ## time the operators, then a training step and its parts, against their peers (benchmarks/README.md has more)
	cd kernels && ../$(BIN)/python -m kernel_benchmarks.operators
	$(BIN)/python -m benchmarks.step steps parts pack

refresh: $(READY)  ## run the notebooks anew and store their outputs in place (ARGS: chapters; all without)
	$(BIN)/python scripts/refresh_notebooks.py $(ARGS)

clean:  ## remove the built book and caches; .venv and your runs/ stay
	rm -rf _build build dist kernels/build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find alexnet benchmarks kernels scripts tests book -name __pycache__ -type d -prune -exec rm -rf {} +

# One recipe makes the environment. An install that was interrupted leaves $(HALF), and starts from nothing next time.
# A virtual environment knows where it was made: in a copy of the clone it would run the code of the first one, and from a clone that was moved
# none. $(READY) holds the place.
HERE   := $(realpath $(VENV))
ifneq ($(HERE),)
ifneq ($(shell cat '$(READY)' 2>/dev/null),$(HERE))
ELSEWHERE := elsewhere
endif
endif
.PHONY: elsewhere
elsewhere:
	@if [ -s $(READY) ]; then echo "$(VENV) was made in $$(cat $(READY)), and is $(HERE) now: making it anew."; rm -rf $(VENV); fi

$(READY): $(ELSEWHERE) pyproject.toml kernels/pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo 'No $(PYTHON) here: install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11, 3.12 or 3.13 is needed. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, apt install python$$v-venv" >&2; exit 1; }
	@if [ -e $(HALF) ]; then echo 'The last installation was interrupted: starting over.'; rm -rf $(VENV); fi
	@echo 'Installing into $(VENV)$(if $(LOCK), the versions of requirements.lock) (minutes the first time: torch is large)'
	@$(PYTHON) -m venv $(VENV) && touch $(HALF)
	$(INSTALL) $(LOCK)$(if $(LOCK), || { echo 'The locked versions do not fit this Python: installing what pyproject.toml allows.' >&2; $(INSTALL); })
	@rm -f $(HALF) && (cd $(VENV) && pwd -P) >$(READY)
