"""What `parley capacity` says of Redis' memory is what a real server then uses, at two sizes, by the costs that ship."""

from statistics import median

import msgspec
import pytest

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from tests.bench.capacity_side import TURNS
from tests.bench.parley_side import Lanes, batches
from tests.support import clinic
from tests.support.processes import SURVEYS
from workers.capacity.capacity_plan import memory_by_content
from workers.capacity.turn_costs import read_costs
from workers.capacity.workload import DAY_MS, Workload
from workers.runtime.wakeup_broker import WAKEUP_BATCH

TOLERANCE = 0.15
COSTS = read_costs()
A_DAY = Workload(turns_per_second=1, open_conversations=0, keep_ms=DAY_MS)


SHARD_BYTES = 2_500
"""What a shard takes by itself, as soon as anything has happened in it: too little to count where there are thousands."""


@pytest.mark.parametrize("ended, opened", [(300, 100), (500, 1_500)])
def test_so_many_conversations_use_so_much_memory(pipeline, valkey, ended, opened):
    built = pipeline(survey=(SURVEYS / "clinic.yaml").read_bytes())
    lanes = Lanes(valkey)
    people = {clinic.number(place): clinic.feverish("Ada") for place in range(ended + opened)}
    text = 0
    for turn in range(TURNS):
        talking = list(people)[: ended if turn == TURNS - 1 else None]
        lanes.put(((number, people[number].says[turn]) for number in talking), start=turn == 0)
        for batch in batches(talking, WAKEUP_BATCH):
            built.turns.handle_wakeup(keyspace.STARTS_QUEUE if turn == 0 else keyspace.REPLIES_QUEUE, batch)
        for number, heard in lanes.send_all(talking).items():
            assert heard == [people[number].hears[turn]]
            text += len(heard[0]) + len(people[number].says[turn])
    turns = TURNS * ended + (TURNS - 1) * opened
    assert lifetime(valkey, "*:session:*") == pytest.approx(A_DAY.session_index_ms, rel=TOLERANCE)
    assert lifetime(valkey, "*:lane:*") == pytest.approx(A_DAY.repeat_ms, rel=TOLERANCE)
    full = used_memory(valkey)
    valkey.client().execute_command("FLUSHALL", "SYNC")
    used = full - used_memory(valkey) - DEFAULT_SHARDS * SHARD_BYTES
    assert foretold(turns, ended, opened, text) == pytest.approx(used, rel=TOLERANCE)


def foretold(turns, ended, opened, text):
    """Of a workload of which so many turns and conversations are in Redis, however long ago."""
    a_day = msgspec.structs.replace(
        A_DAY,
        turns_per_second=turns / 86_400,
        open_conversations=opened,
        turns_per_conversation=turns / (ended + opened),
        people=ended + opened,
        chars=text / turns / 2,
    )
    memory = dict(memory_by_content(a_day, COSTS))
    memory["session_indexes"] = (ended + opened) * COSTS.bytes.session_index  # a day's, not those of a month
    return sum(memory.values())


def lifetime(valkey, pattern):
    """For how long a key of this kind is kept (ms), the median of those that are not kept for ever."""
    client = valkey.client()
    kept = (client.pttl(name) for name in client.scan_iter(pattern, count=1_000))
    return median(ms for ms in kept if ms > 0)


def used_memory(valkey):
    """What is used for data: buffers of clients come and go."""
    infos = [server.client().info("memory") for server in valkey.primaries]
    return sum(each["used_memory"] - each["mem_clients_normal"] - each["mem_aof_buffer"] for each in infos)
