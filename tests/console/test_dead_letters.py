"""Dead letters in the console: found, judged, replayed and dropped, by one or two at once; and how far that is."""

import signal
from urllib.parse import parse_qs

import pytest

from config.store import keyspace, redis_client, stored_values
from engine.model.events import InboundSms, encode_event
from tests.console.lanes_of_test import finished, open_town
from tests.console.visitor import sign_in, text_of
from tests.support.waiting import HANG_S, until
from tests.workers.dead_letters import fell, letters_of
from tests.workers.test_dead_commands import put
from workers.console.jobs.job_store import ALIVE_MS
from workers.console.pages.dead_letters_page import LETTERS_PER_PAGE
from workers.console.pages.letter_page import diff_of_said
from workers.dead_letters import letter_pages
from workers.dead_letters.filters import DeadLetterFilter, find_dead_letters
from workers.dead_letters.letter_pages import LetterPlace, find_letter_page
from workers.store import dead_letter_store

pytestmark = [pytest.mark.processes, pytest.mark.console]

NASTY = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def people(count):
    return [f"+3361234{n:04}" for n in range(count)]


@pytest.fixture
def town(console, valkey):
    return open_town(console, valkey)


@pytest.fixture
def letters(town, failing):
    """Dead letters of thirty people, each an answer that would go today."""
    fell(town, failing, *people(30))
    return letters_of(town)


def audit_of(town):
    return [
        entry
        for k in range(town.world.settings.shards)
        for entry in dead_letter_store.scan_audit(town.client, k)
    ]


def test_the_list_lets_through_what_filters_say_and_shows_numbers_to_who_may(town, operator, viewer, letters):
    put(town, "sms", reason="rejected", kind="sms", why=f"no route to {people(1)[0]}", sender=people(1)[0])
    page = operator.get("/dead-letters", reason="rejected").text
    assert "/dead-letters/sms" in page
    assert letters[0].id not in page
    assert people(1)[0] in page
    assert people(1)[0][1:] not in viewer.get("/dead-letters", reason="rejected").text
    assert "None like that." in text_of(operator.get("/dead-letters", channel="other"))
    assert operator.get("/dead-letters", older="soon").status_code == 400
    assert "30 engine_error" in text_of(operator.get("/dead-letters"))


def test_pages_have_every_letter_once_in_the_order_of_their_fall(town):
    for n in range(2 * LETTERS_PER_PAGE + 7):
        put(town, f"l{n:03}", age_ms=n // 9, sender=people(200)[n])
    wanted = [each.letter.id for each in find_dead_letters(town.world, DeadLetterFilter())]
    found, after = [], None
    while True:
        page = find_letter_page(town.world, DeadLetterFilter(), after, LETTERS_PER_PAGE)
        found += [each.letter.id for each in page.letters]
        if page.next_after is None:
            break
        after = LetterPlace.parse(str(page.next_after))
    assert sorted(found) == sorted(wanted)
    assert len(found) == 2 * LETTERS_PER_PAGE + 7
    assert [each[:1] for each in found] == ["l"] * len(found)


def test_a_page_looks_at_no_more_than_it_may_and_says_that_it_goes_on(town, operator, monkeypatch):
    monkeypatch.setattr(letter_pages, "MAX_LETTERS_LOOKED_AT", 10)
    for n in range(25):
        put(
            town,
            f"l{n:03}",
            age_ms=100 - n,
            reason="rejected" if n == 24 else "engine_error",
            sender=people(30)[n],
        )
    after, pages = None, []
    while True:
        page = find_letter_page(town.world, DeadLetterFilter(reason="rejected"), after, 5)
        pages.append([each.letter.id for each in page.letters])
        if page.next_after is None:
            break
        after = page.next_after
    assert pages == [[], [], ["l024"]]


def test_a_letter_is_judged_and_replayed_and_gone(town, operator, viewer, letters):
    path = f"/dead-letters/{letters[0].id}"
    page = operator.get(path)
    assert "It would be applied, and go." in text_of(page)
    assert "What is your temperature, Ada?" in page.text
    assert letters[0].sender in page.text
    assert letters[0].sender[1:] not in viewer.get(path).text
    assert viewer.post(f"{path}/replay").status_code == 403
    told = finished(operator, operator.post(f"{path}/replay"))
    assert "Done." in told
    assert "advanced" in told
    assert letters[0].id not in [each.id for each in letters_of(town)]
    gone = operator.get(path)
    assert gone.status_code == 404
    assert "advanced by console ada" in text_of(gone)
    assert letters[0].id in operator.get("/dead-letters/audit").text


def test_what_is_stale_stays_unless_it_is_wanted_and_the_difference_is_shown(town, operator, letters):
    sender = letters[0].sender
    for text in ("STOP", "START"):
        town.accept(sender, text)
        town.drain()
    path = f"/dead-letters/{letters[0].id}"
    page = operator.get(path)
    assert "as it is stale" in text_of(page)
    assert "another session is open there" in page.text
    assert "stale" in finished(operator, operator.post(f"{path}/replay"))
    assert operator.get(path).status_code == 200
    assert "advanced" in finished(operator, operator.post(f"{path}/replay", stale="1"))
    assert operator.get(path).status_code == 404


def test_a_diff_is_of_what_would_be_said_then_and_now():
    lines = diff_of_said(["Thanks.", "How old are you?"], ["Thanks.", "What is your name?"])
    assert [(line.mark, line.text) for line in lines] == [
        ("same", "Thanks."), ("then", "How old are you?"), ("now", "What is your name?"),
    ]  # fmt: skip


def test_a_group_is_previewed_replayed_and_counted(town, operator, letters):
    shown = operator.get("/dead-letters/replay", reason="engine_error").text
    until_ms = shown.partition('name="until" value="')[2].partition('"')[0]
    assert "30" in text_of(operator.get("/dead-letters/replay", reason="engine_error"))
    told = finished(operator, operator.post("/dead-letters/replay", do="preview", reason="engine_error"))
    assert "advanced" in told
    assert len(letters_of(town)) == 30, "nothing was done"
    put(town, "later", age_ms=-60_000, sender=people(40)[39])
    told = finished(operator, operator.post("/dead-letters/replay", reason="engine_error", until=until_ms))
    assert "30</data> of" in told
    assert [each.id for each in letters_of(town)] == ["later"], (
        "what fell after the page was shown is not touched"
    )


def test_two_who_replay_at_once_deal_with_each_letter_once(console, town, operator, letters, octopush):
    other = sign_in(console, "olga", "operator")
    console.spawn("delivery")
    console.wait_running()
    begun = [each.post("/dead-letters/replay") for each in (operator, other)]
    for visitor, told in zip((operator, other), begun, strict=True):
        assert "Done." in finished(visitor, told)
    assert letters_of(town) == []
    outcomes = [(entry.id, entry.outcome) for entry in audit_of(town) if entry.outcome == "advanced"]
    assert sorted(outcomes) == sorted((letter.id, "advanced") for letter in letters)
    asked = "What is your temperature, Ada? (Fahrenheit, e.g. 98.6)"
    until(lambda: [sms.text for sms in octopush.accepted()].count(asked) >= 30, HANG_S, "all are sent")
    assert sorted(sms.to for sms in octopush.accepted() if sms.text == asked) == sorted(people(30))


def test_a_replay_at_a_rate_is_stopped_and_the_rest_stays(town, operator, letters):
    told = operator.post("/dead-letters/replay", rate="2")
    job = told.headers["Location"]
    until(lambda: len(letters_of(town)) < 30, HANG_S, "it has begun")
    assert "It goes on." in operator.get(job).text, "after a reload too"
    assert operator.post(job).status_code == 303
    page = finished(operator, told)
    assert "Stopped." in page
    left = len(letters_of(town))
    assert 0 < left < 30
    assert f">{30 - left}<" in page, "what is counted was done"
    assert left == len(letters_of(town))


@pytest.mark.parametrize("rate", ["fast", "-1", "0", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(town, operator, letters, rate):
    assert operator.post("/dead-letters/replay", rate=rate).status_code == 400
    assert len(letters_of(town)) == 30


def test_of_a_console_that_was_killed_the_page_says_what_is_known(console, town, operator, letters):
    job = operator.post("/dead-letters/replay", rate="5").headers["Location"]
    until(lambda: len(letters_of(town)) < 30, HANG_S, "it has begun")
    (process,) = console.of("console")
    process.signal(signal.SIGKILL)
    process.wait_dead()
    process.log.write_bytes(b"")
    process.restart()
    console.wait_running()
    alive = keyspace.console_job_alive_key(job.rpartition("/")[2])
    assert 0 < town.client.pttl(alive) <= ALIVE_MS
    town.client.delete(alive)  # as it is once its time is over
    page = text_of(operator.get(job))
    assert "The process that did this is gone." in page
    assert "What was not dealt with is a dead letter still." in page
    left = letters_of(town)
    assert left
    assert "Done." in finished(operator, operator.post("/dead-letters/replay"))
    assert [each for each in audit_of(town) if each.outcome == "gone"] == []
    done = [entry.id for entry in audit_of(town) if entry.outcome == "advanced"]
    assert sorted(done) == sorted(letter.id for letter in letters)


def test_what_is_under_way_ends_with_the_process_that_is_told_to_end(console, town, operator, letters):
    job = operator.post("/dead-letters/replay", rate="1").headers["Location"]
    until(lambda: len(letters_of(town)) < 30, HANG_S, "it has begun")
    (process,) = console.of("console")
    process.terminate()
    assert process.wait_dead() == 0
    stored = town.client.hget(keyspace.console_job_key(job.rpartition("/")[2]), "progress")
    assert b"stopped" in stored


def test_many_are_dropped_by_who_writes_how_many(town, operator, viewer, letters):
    assert viewer.get("/dead-letters/drop").status_code == 403
    page = operator.get("/dead-letters/drop").text
    assert 'name="count" value="30"' in page
    for typed in ("", "29", "all"):
        assert operator.post("/dead-letters/drop", count="30", typed=typed).status_code == 400
    assert len(letters_of(town)) == 30
    told = finished(operator, operator.post("/dead-letters/drop", count="30", typed="30"))
    assert "dropped" in told
    assert letters_of(town) == []


def test_one_is_dropped_and_dropped_once(town, operator, letters):
    path = f"/dead-letters/{letters[0].id}/drop"
    assert "dropped" in finished(operator, operator.post(path))
    assert "dropped, by console ada" in finished(operator, operator.post(path))


def test_words_of_a_letter_are_text_and_nothing_else(town, operator, failing):
    sender = people(1)[0]
    failing.clear()
    failing.add(NASTY)
    for text in ("START", NASTY):
        town.accept(sender, text)
        town.drain()
    put(town, "worse", sender=sender, why=NASTY, code=NASTY, traceback=NASTY, channel=NASTY)
    (letter, _) = letters_of(town)
    for path in ("/dead-letters", f"/dead-letters/{letter.id}", "/dead-letters/worse"):
        page = operator.get(path, error=NASTY if path == "/dead-letters" else "").text
        assert "<img src=x" not in page, path
        assert "<script>alert" not in page, path
    assert "&lt;img src=x" in operator.get("/dead-letters/worse").text


def test_a_letter_that_nobody_can_read_is_shown(town, operator):
    town.client.hset(keyspace.dead_letters_key(0), "odd", b"\xff\x00")
    town.client.zadd(keyspace.dead_letter_index_key(0), {"odd": redis_client.server_time_ms(town.client)})
    assert "undecodable" in operator.get("/dead-letters").text
    assert operator.get("/dead-letters/odd").status_code == 200


def test_more_than_a_few_at_once_are_refused_until_one_is_over(town, operator, letters):
    begun = [operator.post("/dead-letters/replay", rate="0.01") for _ in range(5)]
    assert [told.status_code for told in begun] == [303] * 4 + [503]
    for told in begun[:4]:
        operator.post(told.headers["Location"])
        finished(operator, told)
    assert operator.post("/dead-letters/replay", do="preview").status_code == 303


def test_what_killed_its_workers_is_tried_in_a_process_of_its_own(town, operator):
    """As that process is forked off one with many threads."""
    sender = people(1)[0]
    accepted = stored_values.mail_entry(
        b"S",
        redis_client.server_time_ms(town.client),
        encode_event(InboundSms("7" * 16, "clinic", "START", start=True)),
    )
    put(town, "killer", sender=sender, reason="worker_died", what=accepted)
    assert "It would be applied, and go." in text_of(operator.get("/dead-letters/killer"))
    assert "advanced" in finished(operator, operator.post("/dead-letters/killer/replay"))
    assert town.said(sender) == ["What is your name?"]


def test_what_is_alike_is_one_group_that_is_replayed_alone(town, operator, viewer, letters):
    for n in range(3):
        put(
            town,
            f"r{n}",
            kind="sms",
            reason="rejected",
            code="198",
            why=f"no route to {people(40)[35 + n]}",
            sender=people(40)[35 + n],
        )
    page = operator.get("/dead-letters").text
    assert "cannot apply 3 characters" in page
    addresses = [each.partition('"')[0] for each in page.split('href="/dead-letters?')[1:]]
    (rejected,) = [each for each in addresses if "like=" in each and "rejected" in each]
    assert people(40)[35][1:] not in rejected
    assert people(40)[35][1:] not in viewer.get("/dead-letters").text
    group = operator.session.get(f"{operator.base}/dead-letters?{rejected.replace('&amp;', '&')}").text
    assert [n for n in range(3) if f"/dead-letters/r{n}" in group] == [0, 1, 2]
    assert letters[0].id not in group
    like = parse_qs(rejected.replace("&amp;", "&"))["like"][0]
    told = finished(operator, operator.post("/dead-letters/drop", like=like, count="3", typed="3"))
    assert "all like: rejected 198 no route to +#" in told
    assert len(letters_of(town)) == 30
    assert operator.get("/dead-letters", like="[1]").status_code == 400


def test_the_audit_leaves_nothing_out_between_what_it_shows(town, operator):
    """Of a shard with much more to tell than others, what is older than its last is not shown of others either."""
    for n in range(6):
        put(town, f"a{n}", sender=people(1)[0])
    put(town, "b0", sender=people(2)[1])
    k, other = (keyspace.shard_of(person, town.world.settings.shards) for person in people(2))
    assert dead_letter_store.discard(town.client, k, ["a0"], "ada", "dropped") == [True]
    assert dead_letter_store.discard(town.client, other, ["b0"], "ada", "dropped") == [True]
    for n in range(1, 6):
        dead_letter_store.discard(town.client, k, [f"a{n}"], "ada", "dropped")
    found = dead_letter_store.newest_audit_entries(town.client, [k, other], 3)
    assert [entry.id for entry in found if entry.id[0] == "a"][:3] == ["a5", "a4", "a3"]
    assert {entry.id for entry in dead_letter_store.newest_audit_entries(town.client, [k, other], 100)} == {
        "b0", *(f"a{n}" for n in range(6))
    }  # fmt: skip
    page = operator.get("/dead-letters/audit").text
    assert page.index("a5") < page.index("a0")
