# make demo   sets everything up and shows the whole path on synthetic cells
# make test   sets everything up and runs every gate
# make docs   builds the documentation into site/
# make package   builds the wheel and the source archive into dist/, and tests them
# make pictures   draws the pictures of the README, the documentation and the examples, some minutes
# make browser   fetches what pages of `wbcclf export --page` run on; needs npm
# make families   runs what takes long on large networks: scikit-learn's checks and more
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
RUN = $(BIN)/python -m

.PHONY: install demo test lint docs package pictures browser unit proof families clean

install: $(INSTALLED)

# The stamp is written last, so an install that was interrupted is done again.
$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --requirement requirements.txt
	$(RUN) pip install --quiet --no-deps --editable .
	touch $@

demo: $(INSTALLED)
	$(BIN)/wbcclf demo

test: lint docs package unit proof

lint: $(INSTALLED)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy wbcclf
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(RUN) mkdocs build --quiet --strict

# The wheel is built from the source archive, so both are complete.
package: $(INSTALLED)
	rm -rf dist
	$(RUN) build --no-isolation
	$(RUN) twine check --strict dist/*
	$(RUN) pytest -m package --quiet

pictures: $(INSTALLED)
	$(BIN)/python docs/pictures/draw.py
	$(BIN)/python docs/pictures/examples.py
	$(BIN)/python docs/pictures/tutorial.py

browser: $(INSTALLED)
	$(BIN)/python vendor_browser.py

# Small networks on small images: two workers with one thread each beat one with two.
unit: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) pytest -m "not proof and not families and not package" --numprocesses 2 --cov --quiet

# One training on real images, with all cores; passive waiting, since others may use them too.
proof: $(INSTALLED)
	OMP_WAIT_POLICY=PASSIVE $(RUN) pytest -m proof --quiet

# All of scikit-learn's checks on one network of every family, and other tests that take long on
# large networks; not a part of `make test`.
families: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) pytest -m families --numprocesses 2 --quiet

clean:
	rm -rf $(VENV) site demo dist
