"""Whole conversations go as their transcripts say, and a transcript is read as it was written."""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.commands.chat_screen import describe_state
from engine.model.durations import compact_duration, parse_duration
from engine.model.events import SmsDecided
from engine.proofs.transcripts import (
    ChannelDetails,
    DecisionNote,
    MmsIn,
    PersonInvited,
    PersonUnreachable,
    ProviderOptOut,
    Remark,
    SessionCancelled,
    SmsIn,
    SmsOut,
    TimePassed,
    Transcript,
    TranscriptError,
    TranscriptStart,
    format_entry,
    format_transcript,
    parse_transcript,
)
from engine.simulator.explanations import explain_moment
from engine.simulator.session_replay import ReplayedSame, replay_session, sessions_of
from engine.simulator.simulator import SIMULATED_SENDER, play_entries, playable_surveys
from tests.engine.chat import ROOT, SHIPPED, SIMULATED_CHANNEL, SimulatedPhone, play, policy_for, surveys_of
from tests.engine.random_surveys import surveys as random_surveys
from tests.support.example_counts import examples

GOLDENS = sorted((ROOT / "tests" / "goldens").glob("*.txt"))


@pytest.fixture(scope="module")
def surveys():
    return surveys_of(SHIPPED)


def test_every_survey_that_we_ship_has_a_golden():
    played = {golden.read_text(encoding="utf-8").split(":")[0].removeprefix("# ") for golden in GOLDENS}
    assert played == {name.split(".")[0] for name in SHIPPED}


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.stem)
def test_a_conversation_goes_as_written(golden: Path, surveys):
    transcript = golden.read_text(encoding="utf-8")
    assert play(transcript, surveys) == transcript


STRANGE = st.text(
    st.sampled_from('"\\ \t\n\r\x00\x1b\x1c\x85\xa0\u200d\u2028\u2029\ufeff\U000e0067{}ax<>+*!#@$='),
    max_size=12,
)
TEXTS = st.text(max_size=40) | STRANGE
MS = st.integers(0, 10**12)
ENTRIES = st.one_of(
    st.builds(SmsIn, TEXTS),
    st.builds(SmsOut, TEXTS),
    st.builds(TimePassed, MS),
    st.builds(DecisionNote, TEXTS),
    st.builds(
        PersonInvited,
        TEXTS,
        TEXTS,
        TEXTS,
        st.dictionaries(TEXTS, TEXTS, max_size=3),
        st.none() | st.integers(-(10**12), 10**12),
        TEXTS,
    ),
    st.builds(ProviderOptOut, TEXTS),
    st.builds(PersonUnreachable, TEXTS),
    st.builds(MmsIn, TEXTS),
    st.just(SessionCancelled()),
    st.builds(ChannelDetails, TEXTS, TEXTS),
    st.builds(Remark, TEXTS),
)
BEGINNINGS = st.builds(
    TranscriptStart,
    st.integers(-62_135_596_800_000, 253_402_300_799_999),
    st.sampled_from(["Europe/Paris", "UTC", "America/St_Johns"]),
)


@given(
    st.builds(
        Transcript,
        st.lists(TEXTS, max_size=3).map(tuple),
        TEXTS,
        st.lists(ENTRIES, max_size=8).map(tuple),
        st.none() | BEGINNINGS,
    )
)
def test_what_is_written_is_read_as_it_was(transcript):
    text = format_transcript(transcript)
    assert parse_transcript(text) == transcript
    assert parse_transcript(text.replace("\n", "\r\n")) == transcript  # as a Windows editor saves it
    assert format_transcript(parse_transcript(text)) == text
    text.encode()
    assert set(text) <= {"\n"} | {c for c in text if c.isprintable() or c > "\x9f"}


@pytest.mark.parametrize(
    "entry, line",
    [
        (SmsIn("START"), "> START"),
        (SmsIn(""), '> ""'),
        (SmsIn(" hi"), '> " hi"'),
        (SmsIn("hi "), '> "hi "'),
        (SmsIn('"quoted"'), r'> "\"quoted\""'),
        (SmsIn("a\\b"), r"> a\b"),
        (SmsIn("> # + * ! <"), "> > # + * ! <"),
        (SmsOut("Two\nlines"), "< Two\n  lines"),
        (SmsOut("Two\n\n paragraphs"), '< Two\n  ""\n  " paragraphs"'),
        (SmsOut("Ça va\u00a0?"), r'< "Ça va\u00a0?"'),
        (SmsIn("a\u2028b\rc\td\x1b"), r'> "a\u2028b\rc\td\u001b"'),
        (SmsIn("\U0001f3f4\U000e0067"), '> "\U0001f3f4' + r'\u{e0067}"'),
        (SmsIn("👍🏽 ☺️"), "> 👍🏽 ☺️"),
        (TimePassed(0), "+0s"),
        (TimePassed(31_000), "+31s"),
        (TimePassed(93_600_000), "+1d2h"),
        (TimePassed(1_001), "+1s1ms"),
        (DecisionNote("refused: cooldown"), "* refused: cooldown"),
        (PersonInvited(), "! invited"),
        (
            PersonInvited("s", "no", "Hei, du!", {"agentId": "7", "a b": "", "language": "x y"}, 7_200_000, "r=1"),
            '! invited survey=s language=no $agentId=7 $"a b"="" $language="x y" content="Hei, du!" reference=r=1 expires=2h',
        ),
        (PersonInvited(expires_in=-60_000), "! invited expires=-1m"),
        (ProviderOptOut(), "! stopped"),
        (ProviderOptOut("STOP now"), '! stopped text="STOP now"'),
        (SessionCancelled(), "! cancelled"),
        (MmsIn(), "! mms"),
        (MmsIn("image/png"), "! mms type=image/png"),
        (PersonUnreachable("unknown number"), '! unreachable why="unknown number"'),
        (ChannelDetails("+15005550006", "Rey"), "! told number=+15005550006 contact=Rey"),
        (ChannelDetails(contact="Leia Organa"), '! told contact="Leia Organa"'),
        (ChannelDetails(), "! told"),
        (Remark(), ""),
        (Remark("a remark"), "# a remark"),
    ],
)  # fmt: skip
def test_an_entry_is_written(entry, line):
    assert format_entry(entry) == line
    assert parse_transcript(f"# s\n{line}\n").entries == (entry,)


@pytest.mark.parametrize(
    "text, transcript",
    [
        ("", Transcript((), "", ())),
        ("> hi", Transcript((), "", (SmsIn("hi"),))),
        ("\ufeff# s: t\r\n> hi  \r\n", Transcript(("s",), "t", (SmsIn("hi"),))),
        ("# one, two: both", Transcript(("one", "two"), "both", ())),
        ('# "my: survey", b', Transcript(("my: survey", "b"), "", ())),
        ("# s\n>\n<", Transcript(("s",), "", (SmsIn(""), SmsOut("")))),
        ("# s\n+1d 2h 30m\n+90s", Transcript(("s",), "", (TimePassed(95_400_000), TimePassed(90_000)))),
        ('# s\n# "just" a remark', Transcript(("s",), "", (Remark('"just" a remark'),))),
        (
            "# s\n@ 2026-11-21T11:30+01:00 Europe/Paris",
            Transcript(("s",), "", (), TranscriptStart(1_795_257_000_000, "Europe/Paris")),
        ),
    ],
)
def test_a_transcript_may_be_written_by_hand(text, transcript):
    assert parse_transcript(text) == transcript


@pytest.mark.parametrize(
    "text, problem",
    [
        ("# ,", "line 1: expected the survey's name and a title, as in `# clinic: a fever is asked about`"),
        ("# s\nhello", "line 2: found 'hello', expected > < + * ! # at its beginning, or two blanks"),
        ("# s\n hello", "line 2: found ' hello', expected > <"),
        ("# s\n\n  hello", "line 3: there is no SMS above that it could continue: expected > <"),
        ("# s\n+1h\n  x", "line 3: there is no SMS above"),
        ("# s\n+soon", "line 2: found '+soon', expected how long it is, as in +31s"),
        ("# s\n+", "line 2: found '+', expected how long"),
        ("# s\n+2h1d", "line 2: found '+2h1d', expected how long"),
        ('# s\n> "hi', 'line 2: found "hi, expected a quotation mark at its end'),
        ('# s\n> "hi" he said', 'line 2: found "hi" he said, expected a quotation mark at its end'),
        ('# s\n> hi\n  "x', 'line 3: found "x, expected a quotation mark'),
        (r'# s|> "\x"'.replace("|", "\n"), r"line 2: \x means nothing: expected \n"),
        (r'# s|> "\u{110000}"'.replace("|", "\n"), r"line 2: \u{110000} is no character"),
        (r'# s|> "\ud83d\ude00"'.replace("|", "\n"), r"line 2: \ud83d is no character"),
        (r'# s|> "\u12"'.replace("|", "\n"), r"line 2: \u means nothing"),
        (
            "# s\n! called",
            "line 2: found 'called', expected `invited`, `mms`, `stopped`, `cancelled`, `unreachable` or `told`",
        ),
        ("# s\n! invited tongue=no", "line 2: 'invited' knows no tongue: expected survey, language"),
        ("# s\n! invited no", "line 2: found 'no', expected name=value"),
        ("# s\n! invited $a=1 $a=2", "line 2: $a is given twice"),
        ("# s\n! invited expires=soon", "line 2: found expires=soon, expected how long"),
        ("# s\n! stopped $text=1", "line 2: 'stopped' knows no $text: expected text"),
        ("# s\n@ today UTC", "line 2: found 'today UTC', expected a time and a zone"),
        ("# s\n@ 2026-11-21T10:30 UTC", "line 2: found '2026-11-21T10:30 UTC', expected a time and a zone"),
        (
            "# s\n@ 2026-11-21T10:30Z Mars/Base",
            "line 2: found '2026-11-21T10:30Z Mars/Base', expected a time",
        ),
        ("# s\n> hi\n@ 2026-11-21T10:30Z UTC", "line 3: expected the time at which it begins once, before"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_was_expected(text, problem):
    with pytest.raises(TranscriptError) as e:
        parse_transcript(text)
    assert str(e.value).startswith(problem)


@given(MS)
def test_a_length_of_time_is_read_as_it_was_written(ms):
    assert parse_duration(compact_duration(ms)) == ms


@given(st.text(max_size=30) | st.text(st.sampled_from('><+*!#@"\\ \nu{}0a=$dhms:,'), max_size=30))
def test_no_text_breaks_the_reader(text):
    try:
        transcript = parse_transcript(text)
    except TranscriptError:
        return
    assert parse_transcript(format_transcript(transcript)) == transcript


def test_a_transcript_of_a_survey_that_is_not_there_says_so(surveys):
    with pytest.raises(
        TranscriptError,
        match="of the survey 'nothing': expected one of those given, appointment, clinic, conv",
    ):
        play("# nothing: at all\n> START\n", surveys)


def test_a_conversation_may_begin_at_any_time_and_hold_whatever_can_happen(surveys):
    transcript = (
        "# clinic, tutorial: all that can happen\n"
        "@ 2026-11-21T10:30Z UTC\n"
        "\n"
        "! invited survey=clinic language=no content=Hei!\n"
        "< Hei! Hva heter du?\n"
        "! invited\n"
        "* refused: already_open\n"
        '> ""\n'
    )
    played = play(transcript, surveys)
    assert played.startswith(transcript)
    stopped = play(transcript + "! stopped\n", surveys)
    assert stopped.removeprefix(played) == "! stopped\n* opted out\n* stopped\n"


def test_what_is_played_is_what_a_phone_does(surveys):
    phone = SimulatedPhone(surveys, policy_for("clinic"))
    came = list(play_entries([Remark("x"), SmsIn("START"), SmsOut("ignored"), TimePassed(660_000)], phone))
    assert came == [
        [Remark("x")],
        [SmsIn("START"), SmsOut("What is your name?")],
        [TimePassed(660_000), DecisionNote("idle")],
    ]


DONE = st.one_of(
    st.builds(
        SmsIn,
        st.sampled_from(["START", "STOP", "HELP", "yes", "1", "2", "1 2", "2030-01-02", "x", ""]) | TEXTS,
    ),
    st.builds(TimePassed, st.sampled_from([0, 1_000, 60_000, 600_000, 3_600_000, 86_400_000])),
    st.builds(
        PersonInvited,
        content=TEXTS,
        variables=st.dictionaries(st.sampled_from(["k", "K", "x"]), TEXTS, max_size=2),
    ),
    st.builds(ProviderOptOut, TEXTS),
    st.builds(PersonUnreachable, TEXTS),
    st.just(MmsIn()),
    st.just(SessionCancelled()),
    st.builds(ChannelDetails, st.sampled_from(["", "+15005550006"]), st.sampled_from(["", "Rey"]) | TEXTS),
)


@settings(max_examples=examples(150), deadline=None)
@given(random_surveys(), st.lists(DONE, max_size=12))
def test_whatever_is_said_and_done_plays_again_is_replayed_and_can_be_explained(source, done):
    surveys, problems = playable_surveys({"s.json": source})
    assume(not problems)
    transcript = play(format_transcript(Transcript(("s",), "", (SmsIn("START"), *done))), surveys)
    assert play(transcript, surveys) == transcript

    phone = SimulatedPhone(surveys, policy_for("s"))
    for entry in [SmsIn("START"), *done]:
        phone.play_action(entry)
        for moment in phone.moments:
            why = " ".join(explain_moment(moment, SIMULATED_CHANNEL, surveys, phone.policy))
            said = [record for record in moment.records if isinstance(record, SmsDecided)]
            assert all(
                f"'{record.step}'" in why or f"`{record.step}`" in why
                for record in said
                if record.step != "completed"
            )
        assert list(describe_state(phone))
    for session in sessions_of(SIMULATED_SENDER, phone.records):
        assert replay_session(session, surveys, {SIMULATED_CHANNEL: phone.policy}) == ReplayedSame()


def test_a_twin_has_a_future_of_its_own(surveys):
    phone = SimulatedPhone(surveys, policy_for("clinic"))
    phone.text("START")
    twin = phone.clone()
    twin.wait(660_000)
    assert twin.channel_state.session is None
    assert phone.channel_state.session is not None
    assert phone.text("Ann") == ["What is your temperature, Ann? (Fahrenheit, e.g. 98.6)"]
    assert (len(phone.records), len(twin.records)) == (5, 4)
