# Everything a reader or a contributor runs. Needs only make and Python 3.11 or newer.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# make takes the two halves of such a path for two files.
ifneq ($(words $(CURDIR)),1)
$(error the path "$(CURDIR)" has a space in it, which make cannot work with: move this folder to a path without spaces)
endif

PYTHON ?= python3
# Extra words for the installation of torch, such as "--index-url ADDRESS" of a build for your GPU or without one.
TORCH_ARGS ?=
# What `make lab` opens, from here.
FOLDER ?= book/chapters
VENV := .venv
BIN := $(abspath $(VENV))/bin
OLDEST := .venv-oldest
TORCH := $(shell grep '^torch==' requirements.lock)

CHAPTERS := $(sort $(basename $(notdir $(wildcard book/chapters/*.ipynb))))
EXECUTED := $(CHAPTERS:%=_build/executed/%.ipynb)
LIBRARY := $(shell find kaf -name '*.py')
NOTEBOOKS := $(wildcard book/chapters/*.ipynb book/appendix/*.ipynb)
PAGES := _config.yml _toc.yml $(wildcard book/*.md book/*/*.md book/*.bib book/*.png) $(NOTEBOOKS)
COSTS := step_cost growth inference preparation pair_time loader changes roofline

# Unpinned, the threads of two processes on two cores fight each other. Progress bars have no place in a page.
export OMP_NUM_THREADS ?= 2
export TQDM_DISABLE := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help env book run lab handout wheels pages look chapters badges claims figure cost test lint unit notebooks oldest clean distclean

help:  ## list these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

env: $(VENV)/kaf.done  ## create the environment in .venv

book: run pages  ## run the chapters on the built-in phantom, then render the book

run: $(EXECUTED)  ## run the chapters with papermill, into _build/executed

pages: _build/html/index.html  ## render the book into _build/html

# Who looks at a training in the notebook wants its progress bar. Cells find their files through kaf, in any folder.
lab: $(VENV)/kaf.done  ## open the chapters in JupyterLab, or those in FOLDER=handout
	unset TQDM_DISABLE; $(BIN)/jupyter lab $(FOLDER)

# Not over what is there: it may hold the answers of those who worked in it.
handout: $(VENV)/kaf.done  ## write the chapters without their solutions into handout/
	@test ! -e handout || { echo "handout/ is there already: move or remove it first" >&2; exit 1; }
	$(BIN)/jupyter nbconvert --log-level ERROR --to notebook --TagRemovePreprocessor.enabled=True \
	  --TagRemovePreprocessor.remove_cell_tags exercise-solution --output-dir handout book/chapters/*.ipynb

wheels: $(VENV)/kaf.done  ## collect what `make env` installs, for machines without a network
	$(BIN)/pip download --quiet --dest wheels $(TORCH) $(TORCH_ARGS)
	$(BIN)/pip download --quiet --dest wheels --find-links wheels --requirement requirements.lock

look: pages  ## look at the rendered pages in Chromium: links, contrast, formulas, widgets, explorers
	$(BIN)/python -m pytest -n 2 tests/book/test_pages.py

chapters: $(VENV)/kaf.done  ## run the committed chapters again, in place
	OMP_NUM_THREADS=1 $(BIN)/python -m book.run_chapters

badges: $(VENV)/kaf.done  ## write the address in _config.yml into badges and setup cells of the chapters
	$(BIN)/python -m book.dress

claims: $(VENV)/kaf.done  ## write the page of claims and evidence again, from the records
	$(BIN)/python book/claims.py

figure: $(VENV)/kaf.done  ## draw the figure of the README again
	KAF_HOME=$(abspath _build/figure) $(BIN)/python book/overview.py

cost: $(VENV)/kaf.done  ## measure again what everything costs (half an hour), and write the page of it
	for name in $(COSTS); do $(BIN)/python -m benchmarks.$$name --record; done
	for name in changes roofline whole_pretraining; do $(BIN)/python -m benchmarks.$$name --device cuda --record; done
	$(BIN)/python -m benchmarks.step_cost --group alternatives --size 224 --batch 2 --threads 1 --record
	OMP_NUM_THREADS=1 $(BIN)/python -m book.run_chapters cost 02_kaf_layer 09_alternatives

test: lint unit notebooks look  ## every check

lint: $(VENV)/kaf.done  ## style of the code; no picture in a notebook shows a patient
	$(BIN)/ruff check .
	$(BIN)/python book/check_pictures.py $(NOTEBOOKS)

unit: $(VENV)/kaf.done  ## tests of the library, the project files and the committed notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --ignore tests/book/test_pages.py tests

# Each of the two processes has runs of its own (tests/book/own_home.py): chapter 6 makes again what chapter 5 makes.
notebooks: $(VENV)/kaf.done  ## run the committed chapters again and compare what they show
	rm -rf _build/checked
	OMP_NUM_THREADS=1 KAF_HOME=$(abspath _build/checked) PYTHONPATH=$(abspath tests/offline) \
	  $(BIN)/python -m pytest -n 2 --dist loadscope -p tests.book.own_home \
	  --nbval --nbval-cell-timeout 600 --nbval-sanitize-with tests/book/sanitize.cfg $(NOTEBOOKS)

oldest: $(OLDEST)/lock.done  ## run the library's tests with the oldest versions it supports, in .venv-oldest
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest -n 2 --dist loadscope --ignore tests/book --ignore tests/workflow tests

clean:  ## remove what was built; the environment and handout/ stay
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

distclean: clean  ## remove the environments too
	rm -rf $(VENV) $(OLDEST)

# torch comes first: with it in place no other package asks for a build with several GB of CUDA libraries.
$(VENV)/lock.done: requirements.lock
$(OLDEST)/lock.done: requirements.oldest.lock
$(VENV)/lock.done $(OLDEST)/lock.done:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "kaf needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(@D)
	@echo "torch, the largest part"
	$(@D)/bin/pip install --quiet $$(grep '^torch==' $<) $(TORCH_ARGS)
	@echo "$$(grep -c == $<) packages, which takes minutes"
	$(@D)/bin/pip install --quiet --requirement $<
	@touch $@

$(VENV)/kaf.done: $(VENV)/lock.done pyproject.toml
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Chapter 6 starts from what chapter 5 has trained, in a folder of their own. Runs are found again by their
# configuration: after a change in the library chapter 5 begins with an empty folder.
_build/executed/05_pretrain.ipynb: FRESH := yes
_build/executed/06_fewshot.ipynb: _build/executed/05_pretrain.ipynb
_build/executed/06_fewshot.ipynb: FRESH :=
_build/executed/05_pretrain.ipynb _build/executed/06_fewshot.ipynb: PARAMETERS := -p dataset phantom -p scale smoke
_build/executed/05_pretrain.ipynb _build/executed/06_fewshot.ipynb: HOME_OF_RUNS := _build/runs
_build/executed/%.ipynb: book/chapters/%.ipynb $(LIBRARY) | $(VENV)/kaf.done
	@mkdir -p $(@D)
	$(if $(FRESH),rm -rf _build/runs)
	cd book && KAF_HOME=$(abspath $(or $(HOME_OF_RUNS),_build/stores)) $(BIN)/papermill chapters/$*.ipynb ../$@ $(PARAMETERS) \
	  --no-progress-bar --execution-timeout 1800

# --all: a page that is not read again would keep its warning to itself.
_build/html/index.html: $(PAGES) | $(VENV)/kaf.done
	$(BIN)/jupyter-book build . --all -n -W --keep-going
	@touch $@
