"""A deployment whose processes are on several machines, or reach servers that are, and people who talk to it meanwhile."""

from contextlib import contextmanager
from threading import Thread

import requests

from tests.support.processes import procfile
from tests.support.waiting import HANG_S, until

WORKERS = ("ratelimit", "conversation", "delivery", "clock")

LONG_MS = 600_000
"""After so long servers that watch each other take one for gone whose loss is to stay unnoticed."""


def spawn_on(machine, deployment, *roles):
    """With a disk of its own."""
    var = str(deployment.folder / machine.address)
    place = {"machine": machine, "PARLEY_VAR": var, "PARLEY_HOST": machine.address}
    return [deployment.spawn(role, **place) for role in roles]


def start_here(deployment):
    return deployment.start(**(dict.fromkeys(procfile(), 0) | dict.fromkeys(("web", *WORKERS), 1)))


def post(deployment, body, host=None):
    url = deployment.webhook.replace(deployment.host, host or deployment.host)
    return requests.post(url, data=body, timeout=HANG_S).status_code


def heard(octopush, person):
    return [sms.text for sms in octopush.accepted(person)]


def hears(octopush, person, text):
    until(lambda: text in heard(octopush, person), 30, f"{person} hears {text!r}")


@contextmanager
def talking(play, people):
    how = {"deadline_s": 60, "every_s": 0.1, "think_s": 0.5}
    talk = Thread(target=play.hold, args=(people,), kwargs=how, daemon=True)
    talk.start()
    yield
    talk.join()


def report_lags(play, what):
    lags_s = sorted(lag for person in play.people for lag in person.lags_s)
    print(f"{what}: people waited {lags_s[-1]:.1f} s at most, {lags_s[len(lags_s) // 2]:.2f} s in the middle")
