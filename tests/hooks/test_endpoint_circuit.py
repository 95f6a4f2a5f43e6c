"""How long an endpoint is left alone that fails, whatever becomes of the clock."""

import pytest

from config.store.endpoint_health import EndpointHealth, decode_circuit, encode_circuit
from workers.hooks import circuit
from workers.hooks.circuit import MAX_RETRY_AFTER_MS, EndpointCircuit
from workers.store.channel_state import CIRCUIT_FAILURES, CIRCUIT_OPEN_MAX_MS, CIRCUIT_OPEN_MIN_MS

AT = 1_800_000_000_000
HOUR = 3_600_000
SPAN_MS = 10_000


@pytest.fixture(autouse=True)
def _span(monkeypatch):
    monkeypatch.setattr(circuit, "CIRCUIT_FAILURES_SPAN_MS", SPAN_MS)
    monkeypatch.setattr(circuit, "CIRCUIT_OPEN_MIN_MS", CIRCUIT_OPEN_MIN_MS)
    monkeypatch.setattr(circuit, "CIRCUIT_OPEN_MAX_MS", CIRCUIT_OPEN_MAX_MS)


def fail(endpoint, at, times=CIRCUIT_FAILURES, over_ms=SPAN_MS):
    """Whether one of these failures, from `at` on, opened it."""
    return True in [endpoint.note_failure(at + n * over_ms // (times - 1), 0, "503") for n in range(times)]


def test_it_opens_for_longer_and_longer_and_not_for_ever():
    endpoint = EndpointCircuit(EndpointHealth())
    assert fail(endpoint, AT)
    now, rests = AT + SPAN_MS, []
    for _ in range(12):
        rests.append(endpoint.wait_ms(now))
        now += rests[-1]
        assert endpoint.wait_ms(now) == 0
        assert not endpoint.note_failure(now, 0, "503"), "it was open"
    assert rests[:2] == [CIRCUIT_OPEN_MIN_MS, 2 * CIRCUIT_OPEN_MIN_MS]
    assert max(rests) == rests[-1] == CIRCUIT_OPEN_MAX_MS
    assert endpoint.note_success()
    assert endpoint.wait_ms(now) == 0


def test_after_a_clock_was_set_back_it_is_called_at_once():
    endpoint = EndpointCircuit(EndpointHealth())
    assert fail(endpoint, AT + HOUR)
    stored = EndpointCircuit(decode_circuit(encode_circuit(endpoint.state)))
    for each in (endpoint, stored):
        assert each.wait_ms(AT) == 0


def test_a_clock_that_is_set_back_keeps_it_from_opening_for_no_longer_than_ever():
    endpoint = EndpointCircuit(EndpointHealth())
    endpoint.note_failure(AT + HOUR, 0, "503")
    assert fail(endpoint, AT)


def test_what_an_endpoint_asks_for_is_given_up_to_an_hour_and_a_later_failure_takes_none_of_it():
    endpoint = EndpointCircuit(EndpointHealth())
    endpoint.note_failure(AT, 0, "429", retry_after_ms=30_000)
    assert endpoint.wait_ms(AT) == 30_000
    endpoint.note_failure(AT + 10_000, 0, "503")  # of a request that was under way
    assert endpoint.wait_ms(AT + 10_000) == 20_000
    endpoint.note_failure(AT + 30_000, 0, "429", retry_after_ms=100 * HOUR)
    assert endpoint.wait_ms(AT + 30_000) == MAX_RETRY_AFTER_MS
