"""A Redis with the functions, and endpoints that are tried again soon."""

import pytest

from config.store import redis_client
from tests.support.hook_endpoint import hook_endpoint
from workers.hooks import circuit, endpoint_runner, hook_process


@pytest.fixture
def client(valkey):
    client = valkey.client()
    redis_client.load_functions(client)
    return client


@pytest.fixture
def own_client(own_valkey):
    """The same, of a server that is the test's alone."""
    client = own_valkey.client()
    redis_client.load_functions(client)
    return client


@pytest.fixture
def endpoint():
    with hook_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(endpoint_runner, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(endpoint_runner, "LONGEST_RETRY_S", 0.05)
    monkeypatch.setattr(endpoint_runner, "COMMIT_RETRY_S", 0.01)
    monkeypatch.setattr(hook_process, "SHARING_INTERVAL_S", 0.02)
    monkeypatch.setattr(circuit, "CIRCUIT_FAILURES_SPAN_MS", 50)
    monkeypatch.setattr(circuit, "CIRCUIT_OPEN_MIN_MS", 20)
    monkeypatch.setattr(circuit, "CIRCUIT_OPEN_MAX_MS", 100)
