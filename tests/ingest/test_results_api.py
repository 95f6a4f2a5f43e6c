"""Whoever polls the API for results gets every one, once; and is told what is wrong with what they ask for."""

from base64 import urlsafe_b64encode
from itertools import count, pairwise

import msgspec
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.archive import session_pages
from config.archive.result_filters import ResultFilters
from config.archive.session_pages import BEFORE_ALL, read_session_page
from config.store import keyspace
from config.telemetry.logs import hash_sender
from engine.surveys.survey_reader import read_survey
from ingest.api.page_cursor import InvalidCursorError, read_cursor, write_cursor
from tests.support.archive_writer import PERSON, VERSION, ArchiveWriter, finished_session, refused_invitation
from tests.support.example_counts import examples
from tests.support.inviting import Api, key_table
from tests.support.waiting import until

AT = 1_700_000_000_000
CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
[channels.ward]
number = "+33700000003"
surveys = ["clinic"]
"""


@pytest.fixture
def archive(tmp_path):
    with ArchiveWriter(f"sqlite:///{tmp_path / 'archive.db'}", 16) as made:
        yield made


@pytest.fixture
def api(web, tmp_path, archive):
    (tmp_path / "parley.toml").write_text(CONFIG + key_table(channels=("clinic", "ward")))
    return Api(web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), PARLEY_ARCHIVE_URL=archive.url))


def session_id(number):
    return f"{number:016x}"


def fill(archive, many, at=AT, **more):
    """`many` sessions, one a second, on all shards; the archive is complete after the last."""
    for number in range(many):
        began = at + number * 1_000
        archive.add(number % 16, began + 2, PERSON, *finished_session(session_id(number), began, **more))
    archive.read_all_until(at + many * 1_000)


def get(api, path, **query):
    return api.get(f"/v1/surveys/{path}", query)


# The shape of a result


def test_a_result_is_the_session_as_the_archive_has_it(api, archive):
    archive.add(
        3, AT + 2, PERSON, *finished_session(session_id(1), AT, reference="visit-4711", campaign="spring")
    )
    archive.read_all_until(AT + 3)
    reply = get(api, "clinic/results")
    (result,) = reply.json()["results"]
    assert result == {
        "cursor": reply.json()["next"],
        "id": session_id(1),
        "state": "completed",
        "channel": "clinic",
        "identifier": PERSON,
        "pseudonym": archive.pseudonyms.of(PERSON),
        "survey": "clinic",
        "version": VERSION,
        "language": "en",
        "originator": "",
        "clientReference": "visit-4711",
        "campaign": "spring",
        "invited": True,
        "openedAt": "2023-11-14T22:13:20Z",
        "endedAt": "2023-11-14T22:13:21.500000Z",
        "answers": {
            "temperature": {
                "raw": "98.6", "value": 98.6, "type": "number", "at": "2023-11-14T22:13:21.500000Z", "seconds": 1.5,
                "misreads": 0,
            }
        },
        "variables": {"agentId": "7"},
        "misreads": 0,
        "received": 1,
        "sent": 1,
        "segments": 1,
        "costMicros": 50_000,
        "currency": "EUR",
    }  # fmt: skip
    assert (reply.json()["more"], reply.json()["completeUntil"]) == (False, "2023-11-14T22:13:20.003000Z")


def test_a_number_beyond_all_is_told_as_a_session_tells_it(api, archive):
    """JSON has no infinity."""
    archive.add(0, AT, PERSON, *finished_session(session_id(1), AT, temperature=float("inf")))
    archive.read_all_until(AT + 1)
    (result,) = get(api, "clinic/results").json()["results"]
    assert result["answers"]["temperature"]["value"] == "inf"


def test_results_are_of_what_is_over_and_sessions_of_what_has_opened(api, archive):
    opened, *_ = finished_session(session_id(1), AT)
    archive.add(0, AT, PERSON, opened)
    archive.add(1, AT + 2, PERSON, *finished_session(session_id(2), AT + 2))
    archive.add(2, AT + 3, PERSON, refused_invitation(session_id(3), AT + 3))
    archive.read_all_until(AT + 10)
    results, sessions = (get(api, f"clinic/{what}").json()["results"] for what in ("results", "sessions"))
    assert [(each["id"], each["state"]) for each in results] == [
        (session_id(2), "completed"),
        (session_id(3), "refused"),
    ]
    assert [(each["id"], each["state"]) for each in sessions] == [
        (session_id(1), "open"),
        (session_id(2), "completed"),
    ]
    refused = results[1]
    assert (refused["reason"], refused["clientReference"], refused["campaign"]) == (
        "opted_out",
        "r",
        "spring",
    )
    assert "openedAt" not in refused


def test_a_starts_session_is_found_by_its_number(api, archive):
    archive.add(0, AT, PERSON, finished_session(session_id(1), AT)[0])
    archive.add(1, AT, "+33612345679", finished_session(session_id(2), AT)[0])
    archive.read_all_until(AT + 1)
    for written in (PERSON, PERSON.replace("+", "00")):
        reply = get(api, "clinic/sessions", number=written, state="open")
        assert [each["id"] for each in reply.json()["results"]] == [session_id(1)]
    assert get(api, "clinic/sessions", number="me").status_code == 400


# Pages


def walk(api, path, **query):
    """Every session, page by page, and the sizes of the pages."""
    found, sizes, cursor = [], [], None
    while True:
        page = get(api, path, **query, **({"after": cursor} if cursor else {})).json()
        found += page["results"]
        sizes.append(len(page["results"]))
        cursor = page["next"]
        if not page["more"]:
            return found, sizes


@pytest.mark.parametrize("path", ["clinic/results", "clinic/sessions"])
def test_pages_follow_each_other(api, archive, path):
    fill(archive, 25)
    found, sizes = walk(api, path, limit=10)
    assert ([each["id"] for each in found], sizes) == ([session_id(n) for n in range(25)], [10, 10, 5])
    (again,) = get(api, path, after=found[-2]["cursor"]).json()["results"]
    assert again["id"] == session_id(24), "a result's own cursor is one too"


def test_lines_have_what_a_document_has_and_the_link_leads_on(api, archive):
    fill(archive, 12)
    reply = api.get("/v1/surveys/clinic/results", {"limit": 8, "channel": "clinic"}, "application/x-ndjson")
    assert reply.headers["Content-Type"] == "application/x-ndjson"
    lines = reply.text.splitlines()
    document = get(api, "clinic/results", limit=8).json()
    assert (
        f"[{','.join(lines)}]".encode()
        == requests.compat.json.dumps(document["results"], separators=(",", ":"), ensure_ascii=False).encode()
    )
    assert reply.headers["Parley-Next"] == document["next"]
    following = api.get(reply.links["next"]["url"], accept="application/x-ndjson")
    assert (len(following.text.splitlines()), "next" in following.links) == (4, False)
    nothing = get(api, "clinic/results", after=following.headers["Parley-Next"])
    assert (nothing.json()["results"], nothing.json()["next"]) == ([], following.headers["Parley-Next"])


def test_where_a_filter_lets_little_through_a_page_ends_all_the_same(api, archive, monkeypatch):
    monkeypatch.setattr(session_pages, "MAX_EXAMINED", 10)
    fill(archive, 35)
    archive.add(15, AT + 35_002, PERSON, *finished_session(session_id(35), AT + 35_000, temperature=104))
    archive.read_all_until(AT + 36_000)
    found, sizes = walk(api, "clinic/results", where="temperature > 100")
    assert ([each["id"] for each in found], sizes) == ([session_id(35)], [0, 0, 0, 1])


def test_sessions_that_one_entry_ends_are_not_lost_between_two_pages(api, archive):
    records = [record for number in range(7) for record in finished_session(session_id(number), AT)]
    archive.add(0, AT + 5, PERSON, *records)
    archive.read_all_until(AT + 6)
    found, sizes = walk(api, "clinic/results", limit=3)
    assert ([each["id"] for each in found], sizes) == ([session_id(n) for n in range(7)], [3, 3, 1])


@pytest.fixture(scope="module")
def sqlite_archive(tmp_path_factory):
    with ArchiveWriter(f"sqlite:///{tmp_path_factory.mktemp('results') / 'archive.db'}", SHARDS) as made:
        yield made


@pytest.fixture(scope="module")
def postgresql_archive(postgresql_server):
    name = postgresql_server.create_database()
    with ArchiveWriter(postgresql_server.url(name), SHARDS) as made:
        yield made
    postgresql_server.drop_database(name)


SHARDS = 4
shard_numbers = st.integers(0, SHARDS - 1)
entries = st.tuples(st.just("entry"), shard_numbers, st.integers(0, 9), st.integers(1, 2))
reads = st.tuples(st.just("read"), shard_numbers, st.integers(0, 5))
polls = st.tuples(st.just("poll"), st.integers(1, 4))
erasures = st.tuples(st.just("erase"), st.integers(0, 40))
histories = st.lists(st.one_of(entries, entries, polls, reads, erasures), min_size=8, max_size=25)


class PolledArchive:
    """Shards that are archived in any order, a reader who polls, and people who are erased."""

    def __init__(self, archive, run):
        self.archive = archive
        self.survey = f"survey{run}"
        self._numbers = count(run * 1_000)
        self.base = AT + run * 1_000_000
        self._last = dict.fromkeys(range(SHARDS), (self.base, 0))
        self._until = dict.fromkeys(range(SHARDS), self.base)
        self.there = {}
        self.got = []
        self.cursor = write_cursor("ended", BEFORE_ALL)
        archive.read_all_until(self.base)

    def entry(self, shard, later_ms, ending):
        """An entry that ends some sessions, after all that the shard had, and not before it was read last."""
        last_ms, last_seq = self._last[shard]
        ms = max(last_ms, self._until[shard]) + later_ms
        seq = last_seq + 1 if ms == last_ms else 0
        self._last[shard] = ms, seq
        ids = [session_id(next(self._numbers)) for _ in range(ending)]
        records = [each for one in ids for each in finished_session(one, ms, survey=self.survey)]
        self.archive.add(shard, ms, PERSON, *records, seq=seq)
        self._until[shard] = max(self._until[shard], ms)
        self.there |= dict.fromkeys(ids, (ms, shard, seq))

    def read(self, shard, later_ms):
        self._until[shard] += later_ms
        self.archive.read_until(shard, self._until[shard])

    def poll(self, limit):
        with self.archive.database.reading() as connection:
            filters, after = ResultFilters(survey=self.survey), read_cursor("ended", self.cursor)
            page = read_session_page(connection, filters, "ended", after, limit)
        self.got += [each.row.session for each in page.sessions]
        self.cursor = write_cursor("ended", page.last)
        return page.has_more

    def erase(self, number):
        unseen = sorted(self.there.keys() - set(self.got))
        known = [*self.got, *unseen]
        if known:
            session = known[number % len(known)]
            self.archive.erase(session)
            if session in unseen:
                del self.there[session]


def check_that_a_reader_gets_all_once(archive, runs):
    @settings(max_examples=examples(30), deadline=None, database=None, derandomize=True)
    @example(history=[("entry", 0, 3, 1), ("poll", 3), ("entry", 1, 1, 1)])
    @given(history=histories)
    def check(history):
        polled = PolledArchive(archive, next(runs))
        for what, *how in history:
            getattr(polled, what)(*how)
        archive.read_all_until(polled.base + 900_000)
        while polled.poll(3):
            pass
        assert len(polled.got) == len(set(polled.got))
        assert set(polled.got) >= polled.there.keys()
        places = [(*polled.there[each], each) for each in polled.got if each in polled.there]
        assert all(one < other for one, other in pairwise(places))

    check()


def test_whoever_polls_gets_every_result_once_whatever_is_archived_and_erased_meanwhile(sqlite_archive):
    check_that_a_reader_gets_all_once(sqlite_archive, iter(range(1, 10_000)))


@pytest.mark.processes
def test_so_it_is_on_postgresql(postgresql_archive):
    check_that_a_reader_gets_all_once(postgresql_archive, iter(range(1, 10_000)))


# What is asked for


@pytest.mark.parametrize(
    "query, found",
    [
        ({"channel": "ward"}, [2]),
        ({"channel": ["ward", "clinic"]}, [0, 1, 2]),
        ({"state": "expired"}, [1]),
        ({"state": ["expired", "completed"]}, [0, 1, 2]),
        ({"language": "no"}, [1]),
        ({"campaign": "spring"}, [2]),
        ({"variable": "agentId:8"}, [1]),
        ({"variable": "AGENTID=8"}, [1]),
        ({"where": "temperature >= 100"}, [2]),
        ({"where": ["temperature > 90", "temperature<100"], "variable": "agentId:7"}, [0]),
        ({"since": "2023-11-14T22:13:21Z"}, [1, 2]),
        ({"since": "2023-11-14T23:13:21 01:00", "until": "2023-11-14T22:13:22+00:00"}, [1]),
        ({"until": "2023-11-14"}, [0, 1, 2]),
        ({"since": "2023-11-15"}, []),
    ],
)
def test_filters_let_through_what_they_say(api, archive, query, found):
    told = [
        {},
        {"how": "expired", "language": "no", "variables": {"agentId": "8"}},
        {"channel": "ward", "campaign": "spring", "temperature": 104},
    ]
    for number, more in enumerate(told):
        began = AT + number * 1_000
        archive.add(number, began, PERSON, *finished_session(session_id(number), began, **more))
    archive.read_all_until(AT + 10_000)
    reply = get(api, "clinic/results", **query)
    assert [each["id"] for each in reply.json()["results"]] == [session_id(number) for number in found]


SESSIONS_CURSOR = write_cursor("opened", BEFORE_ALL)


@pytest.mark.parametrize(
    "query, told",
    [
        ({"chanel": "clinic"}, "no such parameter, chanel: did you mean channel?"),
        ({"channel": "clinik"}, "channel: there is no clinik: did you mean clinic?"),
        ({"state": "open"}, "state: there is no open: expected completed or "),
        ({"state": "complete"}, "did you mean completed?"),
        ({"limit": "1001"}, "limit: expected a whole number from 1 to 1000"),
        ({"limit": "0"}, "limit: expected a whole number"),
        ({"limit": ["1", "2"]}, "limit: expected it once"),
        ({"after": "x"}, "after: it is no cursor of ours: expected `next` of an earlier answer"),
        ({"after": SESSIONS_CURSOR}, "after: it is of the other listing"),
        ({"since": "yesterday"}, "since: 'yesterday' is no moment: expected one"),
        ({"where": "temperature"}, "where: 'temperature' is no condition: expected"),
        ({"where": "temprature > 9"}, "the survey clinic asks nothing called 'temprature'"),
        ({"variable": "agentId"}, "is no variable: expected its key and its value"),
        ({"variable": "agentIdd:7"}, "did you mean agentId?"),
        ({"number": PERSON}, "no such parameter, number"),
        ({"language": ""}, "language: expected 1 to 1000 characters"),
        ({"campaign": "a\0"}, "campaign: expected 1 to 1000 characters, none of them NUL"),
        ({"campaign": list(map(str, range(51)))}, "campaign: expected it 50 times at the most"),
        ({"limit": "x", "state": "x"}, "; limit: "),
    ],
)
def test_a_wrong_parameter_is_told_with_what_was_expected(api, archive, query, told):
    fill(archive, 1)
    reply = get(api, "clinic/results", **query)
    assert (reply.status_code, reply.headers["Content-Type"]) == (400, "application/problem+json")
    assert told in reply.json()["detail"]


@pytest.mark.parametrize("path", ["results", "sessions", "funnel", "codebook"])
def test_an_unknown_survey_is_told_with_those_that_there_are(api, archive, path):
    fill(archive, 1)
    reply = get(api, f"clinik/{path}")
    assert (reply.status_code, reply.json()["title"]) == (404, "no such survey")
    assert reply.json()["detail"].endswith("did you mean clinic?")
    for name in ("%00", "a%2Fb", "é"):
        assert get(api, f"{name}/{path}").status_code == 404


def test_a_survey_of_the_past_is_read_as_long_as_it_is_kept(api, archive):
    fill(archive, 2, survey="flu-2022")
    survey, _ = read_survey("flu-2022.yaml", SURVEY.replace(b"clinic", b"flu-2022"))
    archive.keep_survey(msgspec.structs.replace(survey, version=VERSION))
    assert len(get(api, "flu-2022/results").json()["results"]) == 2
    assert get(api, "flu-2022/funnel").status_code == 200
    assert "flu-2022" in get(api, "flu-2022/codebook").text
    surveys = {each["name"]: each for each in api.get("/v1/surveys").json()["surveys"]}
    past = surveys["flu-2022"]
    assert (past["title"], past["languages"], past["channels"]) == ("Flu", ["en"], [])
    assert past["sessions"] == {"completed": 2}
    assert [(each["version"], each["current"]) for each in past["versions"]] == [(VERSION, False)]
    (current,) = surveys["clinic"]["versions"]
    assert (surveys["clinic"]["channels"], surveys["clinic"]["sessions"], current["current"]) == (
        ["clinic", "ward"],
        {},
        True,
    )


SURVEY = b"""
survey: clinic
title: Flu
start: [START]
steps:
  - {id: temperature, ask: "Your temperature?", answer: {type: number}, next: end}
"""


# What is not there


@pytest.mark.parametrize(
    "path",
    ["clinic/results", "clinic/sessions", "clinic/funnel", "clinic/codebook", "clinic/results?limit=1"],
)
def test_without_an_archive_the_answer_is_503_with_a_sentence(web, tmp_path, path):
    (tmp_path / "parley.toml").write_text(CONFIG + key_table())
    nowhere = f"sqlite:///{tmp_path / 'nowhere.db'}"
    api = Api(web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), PARLEY_ARCHIVE_URL=nowhere))
    reply = get(api, path)
    assert (reply.status_code, int(reply.headers["Retry-After"]) > 0) == (503, True)
    assert "archive" in reply.json()["title"]


def test_what_the_audit_does_not_take_is_not_shown(web, tmp_path, archive, proxy):
    """Redis is gone: the archive could be read, but nobody would know of it."""
    fill(archive, 1)
    (tmp_path / "parley.toml").write_text(CONFIG + key_table())
    api = Api(
        web(
            PARLEY_CONFIG=str(tmp_path / "parley.toml"),
            PARLEY_ARCHIVE_URL=archive.url,
            PARLEY_REDIS_URL=proxy.url,
        )
    )
    assert get(api, "clinic/results").status_code == 200
    proxy.refuse()
    for path in ("clinic/results", "clinic/sessions"):
        reply = get(api, path)
        assert (reply.status_code, PERSON in reply.text) == (503, False)
    proxy.admit()
    until(lambda: get(api, "clinic/results").status_code == 200, 5, "it is shown again")


# The audit


def audited(valkey):
    """(actor, action, subject, detail) of what was told."""
    return [
        (
            *(fields[name].decode() for name in (b"actor", b"action", b"subject")),
            msgspec.json.decode(fields[b"detail"]),
        )
        for _, fields in valkey.client().xrange(keyspace.AUDIT_KEY)
    ]


def test_the_audit_is_told_who_read_what_and_never_a_number(api, archive, valkey):
    fill(archive, 3)
    get(api, "clinic/results", where="temperature > 90", variable="agentId:7", limit=2)
    get(api, "clinic/sessions", number=PERSON)
    get(api, "clinic/sessions", number="+33600000000")
    get(api, "clinic/results", state="expired")
    get(api, "clinic/funnel")
    api.get("/v1/surveys")
    filters = {"channels": ["clinic", "ward"]}
    read, found, looked = audited(valkey)
    assert read == (
        "key tests", "read results", "clinic",
        {"filters": filters | {"variables": ["agentId"], "where": ["temperature >"]}, "count": 2},
    )  # fmt: skip
    (whom,) = found[3]["filters"]["senders"]
    assert (found[1], found[3]["count"]) == ("list sessions", 3)
    log_key = bytes.fromhex(valkey.client().get(keyspace.LOG_SECRET_KEY).decode())
    assert whom == hash_sender(log_key, PERSON), "as logs name them"
    assert looked[3]["count"] == 0, "to look for a number is told, though nobody has it"
    assert b"336" not in b"".join(
        fields[b"detail"] for _, fields in valkey.client().xrange(keyspace.AUDIT_KEY)
    )


# Cursors


@given(
    order=st.sampled_from(["opened", "ended"]),
    place=st.builds(
        session_pages.SessionPlace,
        st.integers(0, 2**53), st.integers(-1, 16_384), st.integers(0, 2**60),
        st.text("0123456789abcdef", max_size=16),
    ),
)  # fmt: skip
def test_a_cursor_is_read_as_it_was_written(order, place):
    assert read_cursor(order, write_cursor(order, place)) == place


@given(written=st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: urlsafe_b64encode(raw).decode()))
def test_what_is_no_cursor_is_told(written):
    with pytest.raises(InvalidCursorError):
        read_cursor("ended", written)


def test_one_session_is_told_of_too_before_it_is_shown(api, valkey):
    identity = api.invite(identifier=PERSON, channel="clinic", clientReference="r").json()["id"]
    assert audited(valkey) == []
    api.session(identity)
    api.find(clientReference="r", channel="clinic")
    api.session("0" * 16)
    api.cancel(identity)
    assert [each[1:3] for each in audited(valkey)] == [
        ("read session", identity),
        ("read session", identity),
        ("cancel session", identity),
    ]
