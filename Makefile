# Every target sets up what it needs: a virtual environment in .venv with exactly the versions in requirements-dev.lock.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := config engine ingest workers tests

# Where Python may write no bytecode, each of the test processes compiles all sources, and the tests with their assertions:
# twenty seconds of a core, each time.
export PYTHONDONTWRITEBYTECODE =

.PHONY: install run phone test quick check drawn databases console stories topologies clusters format figures bench pictures soak upgrade simulate mutants shifted busy lowest image lock clean

install: .venv/installed

.venv/installed: requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Parley needs Python 3.11 or later; this is %d.%d: make PYTHON=python3.12 …" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: install
	@$(BIN)/parley run

phone: install
	@$(BIN)/parley phone

# Of what is drawn at random a fifth: it is run often, and CI runs `drawn`.
test: install
	$(BIN)/python -m pytest -m "not databases and not console and not stories and not topologies and not clusters and not mutants" --hypothesis-profile=quick

# What is run at every change: all of `check` but the tests that start processes of their own, most of them to be killed.
quick: install
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not processes and not databases" --hypothesis-profile=quick

check: install
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

# The tests that draw at random, with all of what `test` tries a fifth of.
drawn: install
	$(BIN)/python -m pytest -m "drawn and not databases"

# The tests that need a PostgreSQL server: what `check` says of an archive on SQLite, said of one on PostgreSQL.
databases: install
	$(BIN)/python -m pytest -m databases

# The console before a real pipeline, by programs and with a real Chromium (`apt-get install chromium`).
console: install
	$(BIN)/python -m pytest -m console

# What takes minutes: a deployment of which everything fails, by the ledger of a soak, and by the alerts of a real Prometheus.
stories: install
	$(BIN)/python -m pytest -m "stories and not databases"

# Lost machines, and the kills, said of a service behind Sentinel and of a cluster; or other tests there: make topologies TESTS=tests/workers
topologies: TESTS = $(addprefix tests/faults/test_,deaths.py redis.py uncertain.py invitations.py stops.py workers.py poison.py)
topologies: install
	$(BIN)/python -m pytest -m topologies
	$(BIN)/python -m pytest --redis=sentinel $(TESTS)
	$(BIN)/python -m pytest --redis=cluster $(TESTS)

# A cluster whose servers are lost one after the other while people text, and the way there from one server. On two cores alone.
clusters: install
	$(BIN)/python -m pytest -m clusters -n 1

format: install
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# How easily does a stranger find his way? The names, folders and imports of the source in numbers.
figures: install
	@$(BIN)/python -m tests.figures

bench: install
	$(BIN)/python -m tests.bench

# The pictures that README.md shows, in tests/pictures/: a clinic works for some minutes before the console (`apt-get install chromium`).
MINUTES ?= 12
pictures: install
	$(BIN)/python -m tests.pictures --minutes $(MINUTES)

# Real processes are killed, Redis and the provider fail, and then the ledger must be right: make soak SECONDS=60
SECONDS ?= 600
soak: install
	$(BIN)/python -m tests.soak --seconds $(SECONDS)

# The soak, with half of each role's processes of the last release's commit, forward and back: make upgrade SECONDS=20
upgrade: SECONDS = 60
upgrade: install
	$(BIN)/python -m tests.upgrade --seconds $(SECONDS)

# The tests on another day: no test may depend on the day it runs. Every process but Prometheus sees a clock, and times of
# files, that are so many days ahead (tests/support/shifted_clock.c, for which it takes a C compiler). TESTS are all, or
# some of them: make shifted TESTS=tests/recorded SHIFT_DAYS=40
SHIFT_DAYS ?= 365
TESTS ?= tests
shifted: install
	@mkdir -p var/shifted
	$(CC) -O2 -Wall -Wextra -shared -fPIC -o var/shifted/clock.so tests/support/shifted_clock.c -ldl
	SHIFT_DAYS=$(SHIFT_DAYS) LD_PRELOAD=$(CURDIR)/var/shifted/clock.so PYTHONPYCACHEPREFIX=$(CURDIR)/var/shifted/pycache \
		$(BIN)/python -m pytest -p no:cacheprovider $(TESTS)

# The tests beside a load that takes every core: no test may depend on a machine that has nothing else to do.
busy: install
	@for _ in $$(seq $$(nproc)); do (while :; do :; done) & loops="$$loops $$!"; done; trap "kill $$loops" EXIT; \
		trap "exit 130" INT TERM; $(BIN)/python -m pytest -p no:cacheprovider $(TESTS)

# The whole protocol in virtual time: every single fault of one conversation, then faults at random for an hour, or
# make simulate SECONDS=60 FROM=1000000; SEEDS bounds it by what is searched instead of by how fast the machine is.
simulate: SECONDS = 3600
FROM ?= 0
SEEDS ?= 0
simulate: install
	$(BIN)/python -m tests.simulated --plays lone --exhaust 1 --jobs $$(nproc)
	$(BIN)/python -m tests.simulated --seconds $(SECONDS) --from $(FROM) --seeds $(SEEDS) --jobs $$(nproc)

# Which mistakes does the simulation find, how soon, and by which faults? Some of them: make mutants MUTANT="late_worker_sends …"
MUTANT ?=
mutants: install
	$(BIN)/python -m tests.simulated.exploring.mutation_report $(MUTANT)

# Tests with the lowest versions that pyproject.toml allows of what Parley imports, in an environment of their own: those in which
# each library does what it is there for.
LOWEST = $(addprefix tests/config/test_,archive_schema.py command_imports.py env_file.py extras.py library_internals.py logs.py \
		metrics.py redis_client.py) \
	$(addprefix tests/engine/test_,drawing.py quiet.py replies.py survey_files.py) \
	$(addprefix tests/ingest/test_,connections.py phone.py web.py) tests/hooks/test_endpoint_client.py \
	$(addprefix tests/providers/test_,carriers.py octopush.py) \
	$(addprefix tests/workers/test_,deliveries.py export_command.py installed_wheel.py turns.py)
lowest: var/lowest/installed
	var/lowest/venv/bin/python -m pytest -p no:cacheprovider -m "not databases and not drawn" --hypothesis-profile=quick $(LOWEST)

var/lowest/installed: requirements-lowest.lock pyproject.toml .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python var/lowest/venv
	$(BIN)/uv pip install --quiet --python var/lowest/venv/bin/python --require-hashes -r requirements-lowest.lock
	$(BIN)/uv pip install --quiet --python var/lowest/venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

# The image of config/deploy/Containerfile, by whatever builds images here: make image ENGINE=podman
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
ENGINE ?= $(firstword $(foreach each,docker podman buildah,$(shell command -v $(each))) docker)
IMAGE_OPTIONS ?=
image:
	$(ENGINE) build $(IMAGE_OPTIONS) --file config/deploy/Containerfile --tag parley:$(VERSION) .

# What is installed where: requirements-dev.lock has all that `make` needs, requirements.lock what a deployment needs, in the same
# versions, with the extras that its image has; requirements-lowest.lock the lowest versions that pyproject.toml allows of what
# Parley imports, and what runs the tests with those.
COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --quiet --upgrade
FLOORS = var/lowest/floors.txt
lock: install
	$(COMPILE) --extra dev --output-file requirements-dev.lock
	$(COMPILE) --extra console --extra postgres --extra xlsx --constraints requirements-dev.lock --output-file requirements.lock
	@mkdir -p var/lowest
	$(COMPILE) --extra all --resolution lowest-direct --output-file $(FLOORS)
	$(COMPILE) --extra dev --constraints $(FLOORS) --output-file requirements-lowest.lock

clean:
	rm -rf .venv var
