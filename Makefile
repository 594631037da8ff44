# What people and CI run. Everything needs a Debian 12+ or Ubuntu 24.04 machine; setup, demo, test and bench need root.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup check test test-unit test-vm test-vagrant wheel demo bench fuzz clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml setup/packages.sh
	sh setup/packages.sh
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --require-hashes -r requirements.lock
	$(RUN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

check: setup
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports

test: setup
	sh setup/tests.sh
	$(RUN)/pytest

test-unit: setup
	$(RUN)/pytest tests/unit tests/property

# Three virtual machines, twice; about a quarter of an hour on two cores.
test-vm: setup
	sh setup/vm.sh
	$(RUN)/pytest -x tests/vm

# vagrant up with libvirt, of two emulated machines; about ten minutes.
test-vagrant: setup
	sh setup/vagrant.sh --libvirt
	$(RUN)/pytest -x -s tests/vagrant

wheel: setup
	sh setup/wheel.sh dist

demo: setup
	$(RUN)/python examples/demo.py

bench: setup
	sh setup/peers.sh
	$(RUN)/python -m bench

fuzz: setup
	FUZZ_RUNS=5000 $(RUN)/pytest tests/property/raft tests/property/storage tests/contract -k fuzz

lock:
	$(RUN)/pip-compile --quiet --upgrade --extra dev --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --strip-extras --allow-unsafe --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build dist *.egg-info
