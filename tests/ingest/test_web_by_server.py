"""While one server of a cluster is away, the API answers each request and each line by what it needs; `/readyz` says which it is."""

import pytest
import requests

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from engine.model.events import derive_session_id
from tests.ingest.test_web import post, sms
from tests.support.inviting import Api, key_table
from tests.support.waiting import until

pytestmark = pytest.mark.processes

SHARDS = DEFAULT_SHARDS
CHANNEL = "clinic"


@pytest.fixture
def base(web, cluster):
    return web(PARLEY_REDIS_URL=cluster.url, PARLEY_BROKER_URL=cluster.url)


def shard(name):
    return keyspace.shard_of(name, SHARDS)


def needs(cluster, number, reference):
    """The servers that an invitation needs: of the person, and of the reference."""
    names = (number, derive_session_id(CHANNEL, reference))
    return {cluster.primary_of(keyspace.lane_alarms_key(shard(name))) for name in names}


def invitation(number, reference):
    return {"identifier": number, "channel": CHANNEL, "clientReference": reference, "content": "Hello,"}


def test_a_wakeup_is_rung_on_whichever_server_has_its_queue(base, cluster):
    for number, text in enumerate(("start", "98.6")):
        assert post(base, sms(text, f"+3361234567{number}")).status_code == 200
    for queue in ("starts", "replies"):
        key = keyspace.wakeup_queue_key(queue)
        until(lambda key=key: cluster.client().zcard(key) == 1, 5, "it is rung")


def statuses(api, lines):
    return [each["status"] for each in api.invite_all([invitation(*line) for line in lines])]


def test_each_invitation_is_answered_by_what_it_needs(base, cluster):
    api = Api(base, "simulator")
    lines = [(f"+336{n:08}", f"r{n}") for n in range(90)]
    away = cluster.primaries[0]
    wanted = [503 if away in needs(cluster, *line) else 202 for line in lines]
    assert {202, 503} == set(wanted)
    some = [wanted.index(202), wanted.index(503)]
    assert statuses(api, [("+33699999999", "the first")]) == [202]
    away.sigstop()
    assert statuses(api, lines) == wanted
    assert [api.invite(**invitation(*lines[at])).status_code for at in some] == [200, 503]
    away.sigcont()
    until(lambda: 503 not in statuses(api, lines), 20, "what was refused is accepted when it is sent again")


def test_a_session_is_found_and_its_key_may_be_used_though_a_server_is_away(base, cluster, web, tmp_path):
    """Unless it is the one on which that session is, or the audit, without which nothing is shown."""
    api = Api(base, "simulator")
    lines = [(f"+336{n:08}", f"r{n}") for n in range(40)]
    assert set(statuses(api, lines)) == {202}
    audit = cluster.primary_of(keyspace.AUDIT_KEY)
    away = next(node for node in cluster.primaries if node is not audit)
    found = {
        status: next(line for line in lines if (away in needs(cluster, *line)) == (status == 503))
        for status in (200, 503)
    }
    (tmp_path / "parley.toml").write_text(CHANNEL_TABLE + key_table(per_minute=100))
    limited = Api(
        web(
            PARLEY_REDIS_URL=cluster.url,
            PARLEY_BROKER_URL=cluster.url,
            PARLEY_CONFIG=str(tmp_path / "parley.toml"),
        )
    )
    assert limited.find(clientReference=found[200][1]).status_code == 200
    keeper = cluster.primary_of(keyspace.request_bucket_key("tests"))
    away.sigstop()
    for status, (_, reference) in found.items():
        assert api.find(clientReference=reference).status_code == status
    away.sigcont()
    until(lambda: api.find(clientReference=found[503][1]).status_code == 200, 20, "all are found again")
    line = next(line for line in lines if keeper not in needs(cluster, *line))
    keeper.sigstop()
    assert limited.invite(**invitation(*line)).status_code == 200
    assert Api(limited.base, "another").invite(**invitation(*line)).status_code == 401


CHANNEL_TABLE = """
[channels.clinic]
provider = "simulator"
number = "+33700000001"
surveys = ["clinic"]
"""


def ready(base):
    reply = requests.get(f"{base}/readyz", timeout=60)
    return reply.status_code, reply.json()


def slots_of(cluster, *nodes):
    for node in nodes:
        slots = sorted(slot for slot, owner in cluster.owners().items() if owner is node)
        yield f"slots {slots[0]}-{slots[-1]} have no server"


def test_one_server_that_is_there_is_enough_to_be_ready_and_none_is_not(base, cluster):
    assert ready(base) == (200, {"ready": True, "redis": True, "broker": True, "surveys": True})
    first, *others = cluster.primaries
    first_slots, other_slots = list(slots_of(cluster, first)), list(slots_of(cluster, *others))
    others[0].sigstop()
    until(lambda: not ready(base)[1]["redis"], 10, "it is seen")
    status, told = ready(base)
    assert (status, told["ready"], told["redis"], told["away"]) == (200, True, False, other_slots[:1])
    first.sigstop()
    others[1].sigstop()
    until(lambda: ready(base)[0] == 503, 10, "nobody is there")
    assert sorted(ready(base)[1]["away"]) == sorted([*first_slots, *other_slots])


def test_replicas_that_are_not_there_are_told(web, cluster):
    base = web(PARLEY_REDIS_URL=cluster.url, PARLEY_BROKER_URL=cluster.url, PARLEY_REPLICAS="1")
    expected = [
        each.replace("have no server", "have too few replicas")
        for each in slots_of(cluster, *cluster.primaries)
    ]
    until(lambda: ready(base)[1].get("away") == sorted(expected), 10, "it is told")
    status, told = ready(base)
    assert (status, told["redis"], told["broker"]) == (503, False, True)
    assert post(base, sms("1")).status_code == 503
