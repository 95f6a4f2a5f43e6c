"""How does an endpoint of hooks do of late? Its circuit as it lies in Redis, at keyspace.hook_circuit_key, which
workers/hooks/circuit.py changes."""

import msgspec


class EndpointHealth(msgspec.Struct, frozen=True):
    """How an endpoint does: `failures` in a row since `since` (ms), the last of which is `why`. `level`: how often the circuit
    has opened in a row, 0 if it is closed; it is open until `until` (ms), for `rest_ms` when that was decided."""

    failures: int = 0
    since: int = 0
    level: int = 0
    until: int = 0
    why: str = ""
    rest_ms: int = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing but a probe is sent, once `until` has come."""
        return self.level > 0


def encode_circuit(state: EndpointHealth) -> bytes:
    """As it is stored; empty for one of which there is nothing to say."""
    return b"" if state == EndpointHealth() else msgspec.json.encode(state)


def decode_circuit(stored: bytes) -> EndpointHealth:
    """One that a later release wrote in a way that this one cannot read is taken for closed."""
    try:
        return msgspec.json.decode(stored, type=EndpointHealth) if stored else EndpointHealth()
    except msgspec.MsgspecError:
        return EndpointHealth()
