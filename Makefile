# Nothing but Python 3 and make is needed: every target makes its own environment in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := .demo/handbook.crisp
export HF_HUB_OFFLINE := 1
# Tests run in so many processes, each on one core.
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist loadfile
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo install test test-all test-lowest test-newest test-matrix lint clean

demo: $(STAMP)
	@$(BIN)/crisp-rag index examples/corpus --index $(DEMO)
	@$(BIN)/crisp-rag ask "How many days of annual leave do I get?" --index $(DEMO)
	@$(BIN)/crisp-rag ask "What do I get for working on call over the weekend?" --index $(DEMO)
	@$(BIN)/crisp-rag ask "Which football club won the championship in 1998?" --index $(DEMO) || test $$? -eq 3  # 3: no answer in the documents

install: $(STAMP)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

test-all: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m "slow or not slow"

# The adapters and the acceptance tests with the lowest and the newest supported versions of both frameworks,
# each in an environment of its own.
ADAPTER_TESTS := tests/retrievers tests/acceptance tests/test_docs.py

test-matrix: test-lowest test-newest

test-lowest test-newest: test-%: .matrix/%/.installed
	@echo "With $$(.matrix/$*/bin/pip freeze | grep -E '^(langchain|llama-index)-core==' | paste -sd ' ')"
	@OMP_NUM_THREADS=1 .matrix/$*/bin/python $(PYTEST) $(ADAPTER_TESTS)

.PRECIOUS: .matrix/%/.installed
.matrix/%/.installed: pyproject.toml constraints-%.txt
	@$(PYTHON) -m venv .matrix/$*
	@echo "Installing into .matrix/$* (the first time takes a minute or two) ..."
	@.matrix/$*/bin/pip install --quiet --constraint constraints-$*.txt --editable ".[dev]"
	@touch $@

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check crisp_rag tests && $(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time takes a minute or two) ..."
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .matrix .demo build *.egg-info
