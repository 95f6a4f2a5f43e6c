"""Of what Sentinels say, the newest holds; what is older than what is known holds if most of them say it."""

from threading import Thread

import pytest

from config.connections.primary_watch import NamedPrimary, PrimaryWatch, most_believed, watch_of
from tests.support.waiting import until

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


class Pool:
    def leave_others(self, address):
        pass


def test_whoever_is_closed_as_garbage_is_collected_waits_for_no_lock():
    """That happens in the midst of anything, and in its thread; here of what looks at the Sentinels, and of what makes a watch."""
    garbage, pool = Pool(), Pool()

    class NoSentinels(list):
        def __iter__(self):
            watch_of("a service", lambda: watch).forget(garbage)
            return super().__iter__()

    watch = PrimaryWatch("parley", NoSentinels(), None, None)

    def make():
        watch_of("another service", lambda: watch).forget(garbage)
        return watch

    working = Thread(target=lambda: watch_of("the service", make).serve(pool), daemon=True)
    working.start()
    until(lambda: not working.is_alive(), 5, "it has been served")
    assert watch.pools() == [pool]
    watch.forget(pool)
    assert watch.pools() == []
