"""When may an endpoint be called? By injected times."""

from config.store.endpoint_health import EndpointHealth, decode_circuit, encode_circuit
from workers.hooks import circuit
from workers.hooks.circuit import MAX_RETRY_AFTER_MS, EndpointCircuit

NOW = 1_700_000_000_000


def failing(times, each_ms=400):
    found = EndpointCircuit(EndpointHealth())
    opened = [found.note_failure(NOW + n * each_ms, 100, "500") for n in range(times)]
    return found, opened


def patient(monkeypatch):
    monkeypatch.setattr(circuit, "CIRCUIT_FAILURES_SPAN_MS", 1_000)
    monkeypatch.setattr(circuit, "CIRCUIT_OPEN_MIN_MS", 1_000)
    monkeypatch.setattr(circuit, "CIRCUIT_OPEN_MAX_MS", 60_000)


def test_failures_in_a_row_over_a_while_open_it(monkeypatch):
    patient(monkeypatch)
    found, opened = failing(5)
    assert opened == [False] * 4 + [True]
    assert found.wait_ms(NOW + 1_600) == 1_000
    found, opened = failing(20, each_ms=10)  # a hiccup under many requests
    assert opened == [False] * 20
    assert not found.is_open


def test_each_probe_that_fails_leaves_it_open_for_twice_as_long(monkeypatch):
    patient(monkeypatch)
    found, _ = failing(5)
    now, waits = NOW + 2_000, []
    for _ in range(8):
        now += found.wait_ms(now)
        found.note_failure(now, 10, "500")
        waits.append(found.wait_ms(now))
    assert waits == [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert found.note_success()
    assert found.wait_ms(now) == 0
    assert found.state == EndpointHealth()


def test_an_endpoint_is_left_alone_for_as_long_as_it_asks_and_no_longer_than_an_hour(monkeypatch):
    patient(monkeypatch)
    found = EndpointCircuit(EndpointHealth())
    found.note_failure(NOW, 10, "429", retry_after_ms=30_000)
    assert found.wait_ms(NOW) == 30_000
    found.note_failure(NOW + 1_000, 10, "500")  # of another request, which was under way
    assert found.wait_ms(NOW + 1_000) == 29_000
    found.note_failure(NOW + 2_000, 10, "429", retry_after_ms=10**9)
    assert found.wait_ms(NOW + 2_000) == MAX_RETRY_AFTER_MS


def test_a_clock_that_was_set_back_leaves_nobody_alone_for_long():
    found, _ = failing(5)
    assert found.wait_ms(NOW - 24 * 3_600_000) == 0


def test_it_is_stored_and_read_again():
    found, _ = failing(5)
    assert decode_circuit(encode_circuit(found.state)) == found.state
    assert encode_circuit(EndpointHealth()) == b""
    assert decode_circuit(b"") == decode_circuit(b"of another release") == EndpointHealth()
