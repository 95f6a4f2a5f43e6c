"""Of what Sentinels say, the newest holds; what is older than what is known holds if most of them say it."""

import pytest

from config.connections.primary_watch import NamedPrimary, most_believed

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


def said(*words):
    return [NamedPrimary(epoch, address) for epoch, address in words]


@pytest.mark.parametrize("words, known, believed", [
    ([], None, None),
    ([], (1, OLD), (1, OLD)),
    ([(0, OLD)], None, (0, OLD)),
    ([(1, OLD), (2, NEW), (1, OLD)], (1, OLD), (2, NEW)),  # the first that hears of it
    ([(1, OLD), (2, NEW), (2, NEW)], None, (2, NEW)),
    ([(1, OLD)], (2, NEW), (2, NEW)),  # the others cannot be reached
    ([(1, OLD), (1, OLD)], (2, NEW), (1, OLD)),  # they were set up anew
    ([(1, OLD), (0, OLD), (0, NEW)], (2, NEW), (1, OLD)),
    ([(1, OLD), (1, NEW)], (2, NEW), (2, NEW)),
])  # fmt: skip
def test_whom_to_follow(words, known, believed):
    found = most_believed(said(*words), said(known)[0] if known else None, sentinels=3)
    assert found == (said(believed)[0] if believed else None)
