"""A deployment of real processes on a real Valkey, with a fake Octopush that keeps the ledger."""

import pytest

from tests.faults.play import Play
from tests.support.machines import Machines, NoMachinesError
from tests.support.processes import Deployment


@pytest.fixture
def deployment(own_valkey, octopush):
    """All Procfile lines are yet to be started: `deployment.start()`, or some of them by `spawn`."""
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush) as deployment:
        yield deployment


@pytest.fixture
def play(deployment, octopush):
    return Play(deployment, octopush)


@pytest.fixture
def machines():
    try:
        machines = Machines()
    except NoMachinesError as e:
        pytest.skip(f"NO MACHINE IS CUT OFF, and what is promised of lost machines goes untested: {e}")
    with machines:
        yield machines
