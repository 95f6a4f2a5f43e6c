"""A few seconds of what `make soak` does for ten minutes: kills, stops, a Redis and a provider that fail, operators who
replay dead letters. Then the ledger must be right, and nothing may have leaked."""

import pytest

from tests.soak.soak import soak

SECONDS = 12
EVERY_S = 0.6
"""How often somebody comes to each of the four channels."""

SEED = 5
COPIES = {"web": 2, "ratelimit": 2, "conversation": 2, "delivery": 2, "clock": 2, "archive": 2, "hooks": 2}


@pytest.mark.stories
def test_people_get_what_they_should_while_everything_fails(tmp_path):
    report = soak(SECONDS, SEED, copies=COPIES, every_s=EVERY_S, logs=tmp_path)
    assert report.wrongs == []
    assert report.sms > 100
    assert report.told > report.sms
    assert sum(report.deeds.values()) > SECONDS / 2
