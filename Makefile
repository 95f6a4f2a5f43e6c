# Every target sets up what it needs: a virtual environment in .venv with exactly the versions in requirements.lock.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := config engine ingest workers tests

# Where Python may write no bytecode, each of the test processes compiles all sources, and the tests with their assertions:
# twenty seconds of a core, each time.
export PYTHONDONTWRITEBYTECODE =

.PHONY: install run phone test quick check drawn databases stories topologies clusters format figures bench soak upgrade simulate mutants shifted busy lock clean

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Parley needs Python 3.11 or later; this is %d.%d: make PYTHON=python3.12 …" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: install
	@$(BIN)/parley run

phone: install
	@$(BIN)/parley phone

# Of what is drawn at random a fifth: it is run often, and CI runs `drawn`.
test: install
	$(BIN)/python -m pytest -m "not databases and not stories and not topologies and not clusters and not mutants" --hypothesis-profile=quick

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

# What takes minutes: a deployment of which everything fails, by the ledger of a soak, and by the alerts of a real Prometheus.
stories: install
	$(BIN)/python -m pytest -m stories

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

lock: install
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --quiet --upgrade --output-file requirements.lock

clean:
	rm -rf .venv var
