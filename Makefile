# Each target sets everything up in .venv on a machine that has Python and pip.
PYTHON ?= python3
AUM = .venv/bin/aum
SOURCES = pyproject.toml setup.py $(wildcard aumcli/core/kernels/*.c aumcli/core/kernels/*.h)
C_FILES = $(wildcard aumcli/core/kernels/*.c aumcli/core/kernels/*.h benchmarks/*.c)

.PHONY: demo test lint format docs digits clean

# docs/demo.svg shows what this prints: python docs/demo.py makes it again.
demo: .venv/installed
	$(AUM) prepare synth
	rm -rf runs/demo
	$(AUM) train --recipe synth --out runs/demo
	$(AUM) eval runs/demo
	$(AUM) predict $(foreach kind,bell drum rain siren whistle,data/synth/test/$(kind)-000.wav) --model runs/demo --top 3

test: .venv/tested
	.venv/bin/python -m pytest --numprocesses auto --dist loadfile $(PYTEST_ARGS)

lint: .venv/linted
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/clang-format --dry-run --Werror $(C_FILES)
	.venv/bin/mypy

format: .venv/linted
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	.venv/bin/clang-format -i $(C_FILES)

# The site is in site/ then: site/index.html.
docs: .venv/documented
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python $(SOURCES)
	.venv/bin/python -m pip install --quiet --editable .
	touch $@

.venv/tested: .venv/installed
	.venv/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

.venv/linted: .venv/installed
	.venv/bin/python -m pip install --quiet 'ruff==0.17.*' 'mypy==1.*' 'clang-format==23.*'
	touch $@

.venv/documented: .venv/installed
	.venv/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

# The packaged model, which needs espeak-ng; FSDD=archive.tar.gz takes a copy of the corpus instead of downloading it.
digits: .venv/installed
	$(AUM) prepare fsdd $(if $(FSDD),--source $(FSDD))
	$(AUM) prepare synth
	.venv/bin/python benchmarks/digits_corpus.py data/digits-corpus
	$(AUM) prepare folder data/digits-corpus --out data/digits --background data/synth/val
	$(AUM) train --recipe digits --data data/digits
	.venv/bin/python -c "import torch; from aumcli.checkpoints import *; network, config = read_model('runs/digits/best'); \
	    save_model('aumcli/models/digits', network.state_dict(), config, torch.float16)"

clean:
	rm -rf .venv build site *.egg-info aumcli/core/kernels/_cpu*.so
