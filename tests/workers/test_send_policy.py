"""What is decided of an SMS without asking anybody."""

import pytest

from engine.model.events import OutboundSms
from workers.sending.send_policy import REPEATABLE_FOR_MS, first_tried_s
from workers.store.outboxes import OutboxLease

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
LONGEST_AGO_MS = NOW_MS - REPEATABLE_FOR_MS


@pytest.mark.parametrize(
    "first_attempt_ms, marked, expected_ms",
    [
        (NOW_MS - HOUR_MS, False, NOW_MS - HOUR_MS),
        (NOW_MS - HOUR_MS, True, LONGEST_AGO_MS),
        (0, False, LONGEST_AGO_MS),
        (NOW_MS + HOUR_MS, False, LONGEST_AGO_MS),
    ],
)
def test_a_provider_is_asked_for_what_it_has_since_the_first_try(first_attempt_ms, marked, expected_ms):
    """Of a first try that is in the future, as the server's clock was set back since, nobody knows when it was."""
    lease = OutboxLease("+33600000001", 1, NOW_MS, 1, first_attempt_ms, True, -1, b"")
    sms = OutboundSms("a1", "clinic", "+33600000001", "Hello.", uncertain=marked)
    assert first_tried_s(lease, sms, NOW_MS / 1_000) == expected_ms / 1_000
