"""People are invited by a table that somebody uploads: told what would come of it first, and invited by one click, nobody twice."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace

import falcon
import msgspec
import pytest

from config.host import Host
from config.invitations.invitation_client import InvitationApiError
from config.invitations.invitation_sums import InvitationSums
from config.invitations.line_result import FieldError, LineResult
from config.invitations.people_table import PeopleFileError
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from tests.console.lanes_of_test import finished, open_town
from tests.console.visitor import sign_in, text_of
from tests.support.clinic import number
from tests.support.waiting import HANG_S, until
from workers.console.api_client import ApiClient
from workers.console.inviting import upload_work
from workers.console.inviting.budget_view import CampaignBudget
from workers.console.inviting.campaign_budget import CampaignBudgets
from workers.console.inviting.upload_order import UploadOrder
from workers.console.inviting.upload_store import UploadStore
from workers.console.inviting.upload_work import UploadWork, read_table
from workers.console.jobs.job_runner import JobFailedError, JobHand, JobRunner
from workers.console.jobs.job_store import JobOrder, JobStore
from workers.console.pages import invite_page
from workers.console.pages.invite_page import begin_job
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.store.optouts import open_opt_out_list

pytestmark = [pytest.mark.processes, pytest.mark.console]

FORM = {"survey": "clinic clinic", "campaign": "winter"}
NASTY_NAME = '../"><script>alert(1)</script>.csv'


@pytest.fixture
def ada(inviting):
    return sign_in(inviting, "ada", "operator")


@pytest.fixture
def town(inviting, valkey, monkeypatch):
    """Parley as the console has it, in this process."""
    for name, value in inviting.environment.items():
        monkeypatch.setenv(name, value)
    return open_town(inviting, valkey).world


@pytest.fixture
def api(town):
    return ApiClient(town.settings)


@pytest.fixture
def work(town, api):
    return UploadWork(town, UploadStore(town.lanes), api)


def table(*rows, head="phone,agentid"):
    return "\n".join([head, *rows, ""]).encode()


def people(many, first=0):
    return [f"{number(person)},{person}" for person in range(first, first + many)]


def held(valkey):
    client = valkey.client()
    return sum(client.zcard(keyspace.held_ids_key(k, "clinic")) for k in range(DEFAULT_SHARDS))


def checked(visitor, content, name="people.csv", **form):
    """The address of a table's page, and the page once it is checked."""
    told = visitor.upload("/invite", name, content, **(FORM | form))
    assert told.status_code == 303, text_of(told)
    return told.headers["Location"], checked_page(visitor, told.headers["Location"])


def checked_page(visitor, address):
    def page():
        found = visitor.get(address)
        assert found.status_code == 200
        return [found] if "is being checked" not in found.text else None

    (found,) = until(page, HANG_S, "the table is checked")
    return found


def test_what_would_come_of_it_is_said_and_one_click_invites_those(inviting, valkey, ada):
    open_opt_out_list(valkey.client(), DEFAULT_SHARDS, "").add_opt_outs([(number(50), "clinic")], "a list")
    rows = [*people(3), "06,none", f"{number(50)},gone", people(1)[0], *["x,y"] * 25]
    address, page = checked(ada, table(*rows), name=NASTY_NAME)
    shown = text_of(page)
    assert "Would be invited 3" in shown
    assert "Had been before 1" in shown
    assert "Refused 27" in shown
    assert "1 they have opted out 6" in shown
    assert re.search(r"26 identifier: expected a mobile number in full, .* 5, 8, 9, .* and 6 more", shown)
    assert re.search(r"Segments, at most \d+ 3 for the first SMS", shown)
    assert "Variables agentid" in shown
    assert "<script>alert" not in page.text
    assert "&#34;&gt;&lt;script&gt;" not in page.text, "the last part of the name alone"
    assert "script&gt;.csv" in page.text
    assert [person for person in range(3) if number(person)[1:] in page.text] == []
    assert held(valkey) == 0
    done = finished(ada, ada.post(address, deed="invite"))
    assert "Done." in done
    assert held(valkey) == 3
    assert "3 invited, 0 had been before, 0 refused." in text_of(ada.get(address))
    again = ada.post(address, deed="invite")
    assert (again.status_code, again.headers["Location"].startswith("/jobs/")) == (303, True)
    _, page = checked(ada, table(*rows))
    assert "Would be invited 0" in text_of(page)
    assert "Had been before 4" in text_of(page)
    assert held(valkey) == 3
    until(lambda: "winter" in ada.get("/campaigns").text, HANG_S, "it is listed")
    acts = [json.loads(line) for line in inviting.command("audit", "--json").stdout.splitlines()]
    told = [(act["action"], act["subject"]) for act in acts if act["actor"] == "console ada"]
    assert told.count(("invite people", "clinic")) == 1
    assert told.count(("check people to invite", "clinic")) == 2


def test_once_all_are_invited_nothing_of_them_is_kept_and_what_is_forgotten_is_gone(valkey, ada):
    address, _ = checked(ada, table(*people(3)))
    rows = keyspace.console_upload_rows_key(address.rpartition("/")[2])
    assert 0 < valkey.client().pttl(rows) <= 2 * 3_600_000
    finished(ada, ada.post(address, deed="invite"))
    assert not valkey.client().exists(rows)
    address, _ = checked(ada, table(*people(3, first=10)))
    assert ada.post(address, deed="forget").status_code == 303
    assert not valkey.client().exists(keyspace.console_upload_rows_key(address.rpartition("/")[2]))
    refused = ada.post(address, deed="invite")
    assert (refused.status_code, "not there any more" in text_of(refused)) == (409, True)
    assert held(valkey) == 3


def test_two_who_click_at_once_invite_once(valkey, ada, inviting):
    other = sign_in(inviting, "olga", "operator")
    address, _ = checked(ada, table(*people(40)))
    with ThreadPoolExecutor(2) as pool:
        answers = [*pool.map(lambda visitor: visitor.post(address, deed="invite"), [ada, other] * 2)]
    assert {each.status_code for each in answers} == {303}
    jobs = {each.headers["Location"] for each in answers if each.headers["Location"].startswith("/jobs/")}
    assert len(jobs) == 1
    (job,) = jobs
    until(lambda: ada.get(f"{job}/live").status_code == 286, HANG_S, "it is over")
    assert held(valkey) == 40


def test_another_process_goes_on_after_a_kill(inviting, valkey, ada):
    address, _ = checked(ada, table(*people(3)))
    (process,) = inviting.of("console")
    process.kill9()
    process.wait_dead()
    other = inviting.spawn("console")
    until(lambda: b"running" in other.log.read_bytes(), HANG_S, "it runs")
    finished(ada, ada.post(address, deed="invite"))
    assert held(valkey) == 3


def test_what_was_cut_off_goes_on_and_nobody_is_invited_twice(town, api, work, valkey, ada, monkeypatch):
    """`web` goes away after a thousand, whose answer is lost; what is sent then is the rest and those again."""
    address, _ = checked(ada, table(*people(2_200)))
    upload = address.rpartition("/")[2]
    hand = new_hand(town)

    class Failing:
        sent = 0

        def __init__(self, sender):
            self.sender = sender

        def invite(self, rows):
            Failing.sent += 1
            self.sender.invite(rows)
            if Failing.sent == 2:
                raise InvitationApiError("it is away")
            return self.sender.invite(rows)

    sender = api.invitations
    with monkeypatch.context() as patch:
        patch.setattr(api, "invitations", lambda *of: Failing(sender(*of)))
        with pytest.raises(JobFailedError, match="it is away"):
            work.invite(work.store.find(upload))(hand)
    assert held(valkey) == 2_000
    assert work.store.find(upload).has_rows
    finished(ada, ada.post(address, deed="invite"))
    assert held(valkey) == 2_200
    assert "200 invited, 2,000 had been before, 0 refused." in text_of(ada.get(address))


def test_a_survey_that_has_changed_since_the_check_is_checked_again_first(inviting, valkey, ada):
    address, _ = checked(ada, table(*people(3)))
    store, upload = UploadStore(valkey.client()), address.rpartition("/")[2]
    check = store.find(upload).check
    store.save_check(
        upload, msgspec.structs.replace(check, version="another"), store.read_good(upload).stored
    )
    refused = ada.post(address, deed="invite")
    assert (refused.status_code, "The survey has changed since" in text_of(refused)) == (409, True)
    assert held(valkey) == 0
    ada.post(address, deed="check")
    checked_page(ada, address)
    finished(ada, ada.post(address, deed="invite"))
    assert held(valkey) == 3


class WithoutRedis:
    """An API whose Redis does not answer for the last of the rows."""

    def __init__(self, sender):
        self.sender = sender

    def invite(self, rows):
        unknown = LineResult(line=len(rows), status=503, errors=[FieldError("", "does not answer")])
        return [*self.sender.invite(rows[:-1]), unknown]

    def foresee(self, rows):
        unknown = LineResult(line=len(rows), status=503, errors=[FieldError("", "does not answer")])
        return [*self.sender.foresee(rows[:-1]), unknown]


def test_of_whom_redis_did_not_answer_the_row_stays_and_goes_later(town, api, work, valkey, ada, monkeypatch):
    address, _ = checked(ada, table(*people(3)))
    upload = address.rpartition("/")[2]
    sender = api.invitations
    with monkeypatch.context() as patch:
        patch.setattr(api, "invitations", lambda *of: WithoutRedis(sender(*of)))
        for begin in (work.invite, work.check):
            with pytest.raises(JobFailedError, match="Redis did not answer for 1 of them: go on here"):
                begin(work.store.find(upload))(new_hand(town))
    assert (held(valkey), work.store.find(upload).has_rows) == (2, True)
    finished(ada, ada.post(address, deed="invite"))
    assert held(valkey) == 3


def test_who_is_left_of_a_table_is_invited_within_the_budget_alone(work, ada, valkey):
    _, page = checked(ada, table(*people(3)))
    (segments,) = re.findall(r"Segments, at most (\d+)", text_of(page))
    first, _ = checked(ada, table(*people(3)), budget=segments)
    work.store.save_sent(first.rpartition("/")[2], InvitationSums())
    second, _ = checked(ada, table(*people(3, first=10)))
    finished(ada, ada.post(second, deed="invite"))
    told = finished(ada, ada.post(first, deed="invite"))
    assert "more than its budget" in told
    assert "counts twice: check it again" in told
    assert held(valkey) == 3


def test_the_budget_that_was_written_last_is_kept_when_sending_begins(town, work, ada, valkey):
    budgets = CampaignBudgets(valkey.client())
    first, _ = checked(ada, table(*people(1)), budget="1000")
    second, _ = checked(ada, table(*people(1, first=5)), budget="500")
    exceeding, _ = checked(ada, table(*people(1, first=7)), budget="900")
    assert budgets.find("winter") == CampaignBudget()
    finished(ada, ada.post(first, deed="invite"))
    as_before, _ = checked(ada, table(*people(1, first=9)))
    assert budgets.find("winter").budget == "1000"
    finished(ada, ada.post(second, deed="invite"))
    finished(ada, ada.post(as_before, deed="invite"))
    assert budgets.find("winter").budget == "500", "not that of when it was checked"
    store, upload = work.store, exceeding.rpartition("/")[2]
    found = store.find(upload)
    little = msgspec.structs.replace(found, order=msgspec.structs.replace(found.order, budget="1"))
    with pytest.raises(JobFailedError, match="more than its budget"):
        work.invite(little)(new_hand(town))
    assert budgets.find("winter").budget == "500", "nothing was sent by that of 1"


def test_who_is_erased_meanwhile_is_not_invited_and_the_others_are(inviting, ada, valkey):
    address, page = checked(ada, table(*people(3)))
    assert "Would be invited 3" in text_of(page)
    alone, _ = checked(ada, table(*people(1, first=1), head="phone,other"))
    told = inviting.command("erase", number(1), "--yes", "--json")
    assert json.loads(told.stdout)["uploaded_rows"] == 2
    for upload in (address, alone):
        assert "Done." in finished(ada, ada.post(upload, deed="invite"))
    assert held(valkey) == 2
    k = keyspace.shard_of(number(1), DEFAULT_SHARDS)
    assert number(1).encode() not in b"".join(valkey.client().hvals(keyspace.held_invitations_key(k)))


def test_a_table_is_checked_again_without_who_was_erased(inviting, work, town, ada):
    address, _ = checked(ada, table(*people(3)))
    alone, _ = checked(ada, table(*people(1, first=1), head="phone,other"))
    inviting.command("erase", number(1), "--yes")
    for place, would in ((address, 2), (alone, 0)):
        work.check(work.store.find(place.rpartition("/")[2]))(new_hand(town))
        assert f"Would be invited {would}" in text_of(ada.get(place))


def test_a_moment_of_a_persons_own_is_told(ada):
    rows = [f"{number(1)},2099-01-01T09:00:00+00:00", f"{number(2)},"]
    _, page = checked(ada, table(*rows, head="phone,sendAt"), time="09:00")
    assert "Fields sendAt" in text_of(page)
    _, page = checked(ada, table(f"{number(1)},winter", head="phone,campaign"))
    assert "Fields none but numbers" in text_of(page), "what the form says too is nobody's own"


def test_a_table_that_is_too_much_to_hold_is_refused(monkeypatch):
    order = UploadOrder(survey="clinic", channel="clinic", campaign="winter")
    content = table(*people(10))
    assert read_table(content, order).order.rows == 10
    monkeypatch.setattr(upload_work, "MAX_BYTES", 1_000)
    with pytest.raises(PeopleFileError, match=r"line \d+: this is too much: divide it"):
        read_table(content, order)


def test_an_upload_of_which_nothing_more_comes_ends(monkeypatch):
    async def hang(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(invite_page, "read_upload", hang)
    monkeypatch.setattr(invite_page, "LONGEST_UPLOAD_S", 0.01)
    with pytest.raises(falcon.HTTPError, match="408"):
        asyncio.run(invite_page._read_in_time(None))


def test_who_begins_late_leaves_the_claim_to_whoever_came_after(town, work):
    """Also if that is the same person, by another click."""
    order = UploadOrder(survey="clinic", channel="clinic", campaign="winter", rows=1)
    work.store.add("table", order, read_table(table(*people(1)), order).chunks)
    claim = keyspace.console_upload_claim_key("table")
    jobs = JobStore(town.lanes)
    tokens = []

    def outlast(*_, **_named):
        tokens.append(town.lanes.getdel(claim))  # as time does
        assert work.store.claim("table", "of another click")

    console = SimpleNamespace(
        deployment=town, record=outlast, jobs=SimpleNamespace(start=lambda *_, **_named: "job", store=jobs)
    )
    for _ in range(2):
        assert begin_job(console, work, ConsoleUser("ada", ("operator",)), "table", "check") == "job"
        assert not work.store.claim("table", "of a third"), "it is the other click's"
        work.store.release("table", "of another click")
    assert work.store.claim("table", "of a third")
    assert len({*tokens}) == 2


def test_what_is_done_with_tables_is_not_shown_with_dead_letters(ada):
    checked(ada, table(*people(1)))
    assert "campaign winter" not in text_of(ada.get("/dead-letters"))


def test_jobs_that_wait_for_web_leave_room_for_others(valkey):
    runner, may_end = JobRunner(JobStore(valkey.client()), Host()), Event()

    def wait(_hand):
        may_end.wait(HANG_S)

    try:
        begun = [runner.start(kind, "", "ada", wait) for kind in ("check", "invite", "check", "invite")]
        assert [job is not None for job in begun] == [True, True, False, False]
        others = [runner.start(kind, "", "ada", wait) for kind in ("erase", "replay", "erase")]
        assert [job is not None for job in others] == [True, True, False]
    finally:
        may_end.set()
        runner.close()


def new_hand(world):
    order = JobOrder(id="a", kind="invite", subject="", by="", at=0)
    JobStore(world.lanes).add(order)
    return JobHand(JobStore(world.lanes), order, world.host)


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", "Choose a file"),
        (b"phone,name\n", "there is nobody in it"),
        (b"name\nAda\n", "no column with numbers: expected one called identifier"),
        ("phone,name\n+336,Zo\xe9\n".encode("latin-1"), "line 2: it is not UTF-8"),
        ("phone\n+336\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04\x14\x00", "it is a workbook"),
        (b"phone,name\n+336,a,b\n", "line 2 has more cells"),
        (
            b"phone,campaign\n+33612345678,other\n",
            "line 2 has a campaign of its own: expected that of the form",
        ),
        (
            b"phone,channel\n+33612345678,other\n",
            "line 2 has a channel of its own: expected that of the form",
        ),
        (b'phone,name\n+336,"a\n', "a quotation mark missing"),
        (b"phone," + b"<script>alert(1)</script>," * 2 + b"\n+336,a,b\n", "two columns are called"),
    ],
)
def test_what_is_no_table_of_people_is_told_why(ada, content, why):
    told = ada.upload("/invite", "people.csv", content, **FORM)
    assert told.status_code == 422
    assert why in text_of(told)
    assert "Nobody was invited." in text_of(told)
    assert "<script>alert" not in told.text
    assert 'value="winter"' in told.text, "what was written is there still"


@pytest.mark.parametrize(
    "field, value, why",
    [
        ("survey", "other clinic", "Choose the survey"),
        ("campaign", "", "Give the campaign a name"),
        ("campaign", "a\nb", "Give the campaign a name"),
        ("campaign", "..", "Give the campaign another name than '..'"),
        ("campaign", ".", "Give the campaign another name than '.'"),
        ("country", "XX", "Country XX: expected a country's two letters"),
        ("day", "2026-12-01", "a day needs one"),
        ("time", "25:00", "Time: expected one such as 09:00"),
        ("price", "0,05", "Price of a segment: expected a number with a point"),
        ("budget", "-1", "Budget: expected a number with a point"),
    ],
)
def test_a_field_that_is_wrong_is_told(ada, field, value, why):
    told = ada.upload("/invite", "people.csv", table(*people(1)), **(FORM | {field: value}))
    assert (told.status_code, why in text_of(told)) == (422, True), text_of(told)


def test_what_is_too_large_is_told_once_all_of_it_is_sent(ada):
    told = ada.upload("/invite", "people.csv", table(*people(1)) + b" " * 21_000_000, **FORM)
    assert (told.status_code, "A table may have 20 MB" in text_of(told)) == (413, True)
    rows = b"+33612345678\n" * 100_001
    told = ada.upload("/invite", "people.csv", b"phone\n" + rows, **FORM)
    assert (told.status_code, "more than 100,000 people" in text_of(told)) == (422, True)
    no_form = ada.post("/invite", survey="clinic clinic")
    assert no_form.status_code == 415


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(ada, valkey, delimiter):
    """With a byte-order mark, numbers as they are written in a country, and a cell that a spreadsheet would run."""
    rows = [delimiter.join(each) for each in (["number", "ward"], ["06 12 34 56 78", "=HYPERLINK(1)"])]
    _, page = checked(ada, "\r\n".join(rows).encode("utf-8-sig"), country="fr", time="09:00")
    assert "Would be invited 1" in text_of(page)
    assert "Variables ward" in text_of(page)
    assert "when it is 09:00 where they are" in text_of(page)


def test_a_budget_is_kept_to_before_anybody_is_invited(ada, valkey):
    address, page = checked(ada, table(*people(3)), price="0.05", budget="0.50")
    (segments,) = re.findall(r"Segments, at most (\d+)", text_of(page))
    assert f"It might cost {int(segments) * 5 / 100:.2f}, which is more than its budget of 0.50." in text_of(
        page
    )
    assert "<button>Invite" not in page.text
    refused = ada.post(address, deed="invite")
    assert (refused.status_code, "more than its budget" in text_of(refused)) == (409, True)
    assert held(valkey) == 0
    enough = f"{int(segments) * 5 / 100:.2f}"
    address, page = checked(ada, table(*people(3)), price="0.05", budget=enough)
    assert f"It costs at most {enough} of its budget of {enough}." in text_of(page)
    finished(ada, ada.post(address, deed="invite"))
    assert held(valkey) == 3
    address, page = checked(ada, table(*people(1, first=9)))
    assert f"more than its budget of {enough}" in text_of(page), "with those who are invited already"
    until(lambda: "It costs at most" in text_of(ada.get("/campaigns/winter")), HANG_S, "it is counted")
    shown = text_of(ada.get("/campaigns/winter"))
    assert f"Of who is not done, at most {segments} segments ({enough} at 0.05 each)" in shown


def test_a_budget_that_others_have_used_up_since_the_check_is_kept_to(ada, valkey):
    _, page = checked(ada, table(*people(3)))
    (segments,) = re.findall(r"Segments, at most (\d+)", text_of(page))
    first, _ = checked(ada, table(*people(3)), budget=segments)
    second, _ = checked(ada, table(*people(3, first=10)), budget=segments)
    finished(ada, ada.post(first, deed="invite"))
    assert "more than its budget" in finished(ada, ada.post(second, deed="invite"))
    assert held(valkey) == 3


def test_it_takes_an_operator(inviting):
    viewer = sign_in(inviting, "vera", "viewer", "privacy")
    assert viewer.get("/invite").status_code == 403
    assert viewer.upload("/invite", "people.csv", table(*people(1)), **FORM).status_code == 403
    assert viewer.get("/invite/abc").status_code == 403
    assert "/invite" not in viewer.get("/campaigns").text
    assert sign_in(inviting, "ada", "operator").get("/invite/abc").status_code == 404


def test_a_web_that_does_not_take_the_key_is_said(inviting, valkey):
    (process,) = inviting.of("console")
    process.kill9()
    process.wait_dead()
    other = inviting.spawn("console", PARLEY_API_KEY="another")
    until(lambda: b"running" in other.log.read_bytes(), HANG_S, "it runs")
    _, page = checked(sign_in(inviting, "ada", "operator"), table(*people(1)))
    assert "It could not be checked: the key is not one of that deployment" in text_of(page)
