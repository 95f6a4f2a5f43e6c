"""A person's page: who is found by what, who sees which number, what is told of each look; and their erasure."""

import json
import string

import pytest

from config.store import keyspace
from config.telemetry.logs import hash_sender
from engine.model.events import Invitation, derive_session_id, encode_event
from tests.console.lanes_of_test import address_of, finished, open_town
from tests.console.visitor import sign_in, text_of
from tests.support.waiting import HANG_S, until
from tests.workers.dead_letters import fell
from workers.console import log_name_search
from workers.console.kept_readings import KeptReadings
from workers.console.log_name_search import LogNameSearch, SearchEndedError
from workers.console.person_address import PersonAddresses

pytestmark = [pytest.mark.processes, pytest.mark.console]

ANNA, BORIS = "+33612345601", "+33612345602"
NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} ${7*7}",
    "\u202egnitirw\u202c שלום مرحبا",
    "👩‍👩‍👧 🇫🇷",
    "w" * 500,
]


@pytest.fixture
def town(console, valkey):
    return open_town(console, valkey)


def talk(town, person, *texts):
    for text in texts:
        town.accept(person, text)
        town.drain()


def audited(console):
    told = console.command("audit", "--json")
    return [json.loads(line) for line in told.stdout.splitlines()]


def answered(visitor, wanted):
    """What is said in the end of whom this names."""

    def ask():
        told = visitor.post("/people", wanted=wanted)
        return [told] if told.status_code != 202 else None

    (told,) = until(ask, HANG_S, "everybody is looked through")
    return told


def test_a_person_is_found_by_number_session_reference_and_the_hash_of_a_dead_letter(
    console, town, operator, failing
):
    fell(town, failing, ANNA)
    session = town.records(ANNA)[0].session
    page = address_of(operator, ANNA)
    assert address_of(operator, "0033 6 12 34 56 01") == page
    assert address_of(operator, session) == page
    name = hash_sender(town.world.open_log_key(), ANNA)
    for written in (name, f"sender={name}"):
        assert answered(operator, written).headers["Location"] == page
    reference = derive_session_id("clinic", "visit 7")
    town.deposit(BORIS, encode_event(Invitation(reference, "clinic", "clinic", reference="visit 7")))
    town.client.set(keyspace.session_key(3, reference), f"1 {BORIS}")
    assert address_of(operator, "visit 7") == address_of(operator, BORIS)


def test_whoever_has_anything_is_found_by_the_hash_of_logs(town, operator):
    """In Redis, though no letter is theirs; while others are looked through, that is said, and a page that is open goes on by itself."""
    for start in range(0, 100_000, 10_000):
        people = (f"+3361{n:07d}" for n in range(start, start + 10_000))
        town.client.mset({keyspace.lane_key(1, each): b"" for each in people})
    name = hash_sender(town.world.open_log_key(), "+33610099999")
    first = operator.post("/people", wanted=name)
    if first.status_code == 202:
        assert "Still looking for" in text_of(first)
    told = answered(operator, name)

    def renewed():
        """What a page that is open is answered, which asks again while they are looked for."""
        answer = operator.session.post(
            operator.base + "/people",
            {"wanted": name},
            headers={"Sec-Fetch-Site": "same-origin", "HX-Request": "true"},
            timeout=HANG_S,
        )
        assert answer.status_code == 200
        return answer.headers.get("HX-Redirect")

    assert until(renewed, HANG_S, "a page that is open is led on") == told.headers["Location"]


def test_a_search_ends_with_the_process_and_in_bounded_time(town, monkeypatch):
    talk(town, ANNA, "START")
    readings = KeptReadings()
    with pytest.raises(SearchEndedError, match="`parley lane` with this name looks at all of them"):
        LogNameSearch(town.world, readings, lambda: True).find("0a1b2c3d4e")
    with monkeypatch.context() as patch:
        patch.setattr(log_name_search, "LONGEST_SEARCH_S", -1.0)
        with pytest.raises(SearchEndedError):
            LogNameSearch(town.world, readings, lambda: False).find("0a1b2c3d4e")
    assert LogNameSearch(town.world, readings, lambda: False).find("0a1b2c3d4e").number is None
    readings.close()


@pytest.mark.parametrize(
    "wanted, sentence",
    [
        ("", "Write a phone number"),
        ("nobody's", "No session has this id or reference"),
        ("0a1b2c3d4e", "Nobody whom logs name 0a1b2c3d4e has anything here"),
        ("<script>alert(1)</script>", "No session has this id or reference"),
    ],
)
def test_whom_nobody_knows_is_said(operator, wanted, sentence):
    told = answered(operator, wanted)
    assert told.status_code == 404
    assert sentence in text_of(told)
    assert "<script>alert" not in told.text


def test_a_number_is_shown_to_who_may_see_it_alone_and_stands_in_no_address(console, town, viewer, operator):
    talk(town, ANNA, "START", "Ada", f"call {ANNA} or {ANNA[1:]}")
    page = address_of(viewer, ANNA)
    assert ANNA[1:] not in page
    shown = viewer.get(page).text
    assert ANNA[1:] not in shown
    assert "+33…01" in shown
    assert viewer.get(f"{page}/live").text.count(ANNA[1:]) == 0
    assert ANNA in operator.get(page).text
    assert viewer.get(f"{page}/erase").status_code == 403
    assert viewer.post(f"{page}/erase", number=ANNA).status_code == 403
    clerk = sign_in(console, "olga", "operator")
    assert ANNA[1:] not in clerk.get(page).text
    assert clerk.post(f"{page}/erase", number=ANNA).status_code == 403


def test_the_page_says_what_the_commands_say(console, town, operator):
    talk(town, ANNA, "START", "Ada", "warm")
    page = text_of(operator.get(address_of(operator, ANNA)))
    told = json.loads(console.command("lane", ANNA, "--json").stdout)
    assert told["diagnosis"]["sentence"].partition(" in ")[0].partition("; ")[0] in page.replace("&#39;", "'")
    for said in ("START", "What is your name?", "Ada", "warm", "no answer to temperature"):
        assert said in page


def test_what_people_write_is_text_and_nothing_else(town, operator):
    talk(town, ANNA, "START", *NASTY)
    page = operator.get(address_of(operator, ANNA)).text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page


def test_a_look_is_told_once_and_its_renewals_are_not(console, town, operator):
    page = address_of(operator, ANNA)
    assert operator.get(page).status_code == 200
    for _ in range(3):
        assert operator.get(f"{page}/live").status_code == 200
    told = [act for act in audited(console) if act["actor"] == "console ada" and act["action"] == "read lane"]
    assert [act["subject"] for act in told] == [hash_sender(town.world.open_log_key(), ANNA)]


def test_who_asks_for_the_renewal_alone_is_told_of_too(console, town, operator, viewer):
    page = address_of(operator, ANNA)
    assert viewer.get(f"{page}/live").status_code == 200
    told = [act["action"] for act in audited(console) if act["actor"] == "console vera"]
    assert {"read lane", "read transcript"} <= set(told)


def test_a_number_has_one_address():
    addresses = PersonAddresses(b"a" * 32)
    page = addresses.address_of(ANNA)
    assert addresses.number_at(page) == ANNA
    alike = [
        page[:-1] + letter for letter in f"{string.ascii_letters}{string.digits}-_" if letter != page[-1]
    ]
    assert [each for each in (*alike, page + "=", page + ".", "." + page) if addresses.number_at(each)] == []


def test_an_address_that_was_made_up_leads_to_nobody(operator):
    page = address_of(operator, ANNA)
    for address in (page[:-1] + ("A" if page[-1] != "A" else "B"), "/people/x", "/people/+33612345601"):
        assert operator.get(address).status_code == 404
    assert operator.get(page, before="yesterday").status_code == 400


def test_what_was_said_is_paged_from_the_newest(town, operator, monkeypatch):
    talk(town, ANNA, "START", "Ada", *(f"word {n:03}" for n in range(60)))
    page = address_of(operator, ANNA)
    newest = operator.get(page).text
    assert "word 059" in newest
    assert "word 000" not in newest
    before = newest.partition("?before=")[2].partition('"')[0]
    older = operator.get(page, before=before).text
    assert "word 000" in older
    assert "word 059" not in older
    assert "hx-trigger" not in older, "what was does not change"


def test_a_person_is_erased_by_who_writes_their_number(console, town, operator):
    talk(town, ANNA, "START", "Ada")
    talk(town, BORIS, "START")
    page = address_of(operator, ANNA)
    refused = operator.post(f"{page}/erase", number=BORIS)
    assert refused.status_code == 400
    assert "Nothing was erased" in text_of(refused)
    assert town.records(ANNA)
    told = finished(operator, operator.post(f"{page}/erase", number="0033 612345601"))
    assert "what the lane knew" in told
    assert town.records(ANNA) == []
    assert town.records(BORIS)
    stored = b"".join(key + (town.client.dump(key) or b"") for key in town.client.scan_iter("{console}*"))
    assert ANNA[1:].encode() not in stored
    assert page.rpartition("/")[2].encode() not in stored, "nor the address, which the secret turns back"
    acts = [act for act in audited(console) if act["action"] == "erase"]
    assert [act["actor"] for act in acts] == ["console ada"]
    assert ANNA[1:] not in json.dumps(acts)
