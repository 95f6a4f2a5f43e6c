"""`parley chat` in the terminal: what is typed, what is shown, and why."""

import re
from typing import get_args

import pytest
from click.testing import CliRunner

from engine.commands.chat import chat
from engine.commands.sms_lines import describe_cost
from engine.model.events import RefusalReason, SessionEnding
from engine.model.segments import count_segments
from engine.proofs.transcripts import PersonInvited
from engine.simulator.explanations import ENDING_REASONS, REFUSAL_REASONS, explain_moment
from tests.engine.chat import ROOT, SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of

CLINIC = str(ROOT / "config" / "surveys" / "clinic.yaml")
CONVERSATION = str(ROOT / "config" / "surveys" / "conversation.yaml")
TUTORIAL = str(ROOT / "config" / "surveys" / "tutorial.json")
GOLDEN = ROOT / "tests" / "goldens" / "clinic-fever.txt"

SURVEY = """
survey: ages
start: {en: AGE, "no": ALDER}
languages: [en, "no"]
idle: 10m
expires: 1h
again: restart
variables: [agentId]
steps:
  - {id: hello, say: {en: Hello., "no": Hei.}}
  - id: age
    ask: {en: "How old are you?", "no": "Hvor gammel er du?"}
    answer: {type: number, min: 0, max: 150}
    attempts: 2
    give_up: sorry
    remind: {after: 5m, text: {en: "Well?", "no": "Nå?"}}
    next:
      - {when: {at_most: 17}, go: young}
      - {when: {variable: agentId, equals: 7}, go: agent}
      - {when: {above: 130}, go: age, times: 1}
      - {go: end}
  - {id: young, say: {en: "Too young, {age}.", "no": "For ung."}, next: end}
  - {id: agent, say: {en: "Agent {agentId}.", "no": "Agent {agentId}."}, next: end}
  - {id: sorry, say: {en: Sorry., "no": Beklager.}, next: end}
"""


def say(script, *options, files=(CLINIC,)):
    return CliRunner().invoke(chat, [*files, *options], input=script)


def shown(script, *options, files=(CLINIC,)):
    """What is shown after the greeting."""
    result = say(script, *options, files=files)
    assert result.exit_code == 0, result.output
    return result.output.split("Ctrl-D leaves.\n")[1]


@pytest.fixture
def ages(tmp_path):
    path = tmp_path / "ages.yaml"
    path.write_text(SURVEY)
    return (str(path),)


def test_each_sms_is_shown_with_what_it_costs_and_what_is_waited_for():
    assert shown("START\nAnn\n", "--price", "0.05") == (
        "> START\n"
        "< What is your name?  [1 segment GSM-7, 18/160]\n"
        "  waits for text, up to 40 characters; so far 1 SMS in, 1 out, 1 segment, 0.05\n"
        "> Ann\n"
        "< What is your temperature, Ann? (Fahrenheit, e.g. 98.6)  [1 segment GSM-7, 54/160]\n"
        "  waits for number 80–115; so far 2 SMS in, 2 out, 2 segments, 0.10\n"
    )


def test_a_session_that_is_over_says_how_and_what_it_came_to(ages):
    output = shown("hello\nAGE\n16\n", "--price", "0.1", files=ages)
    assert output.endswith(
        "* completed\n"
        "  the session is over, as its last step was reached: 2 SMS in, 3 out, 3 segments, 0.3\n"
        "  so far 3 SMS in, 4 out, 4 segments, 0.4\n"
    )


@pytest.mark.parametrize(
    "text, costs",
    [
        ("", "1 segment GSM-7, 0/160"),
        ("a" * 160, "1 segment GSM-7, 160/160"),
        ("a" * 161, "2 segments GSM-7, 161/306"),
        ("ç" * 70, "1 segment UCS-2, 70/70"),
        ("ç" * 71, "2 segments UCS-2, 71/134"),
    ],
)
def test_what_a_text_costs(text, costs):
    assert describe_cost(count_segments(text)) == costs


def test_the_greeting_names_every_survey_and_how_it_begins(ages):
    output = say("", files=(CLINIC, *ages)).output
    assert "clinic: Online clinic check-up (" in output
    assert "Text START or what matches /check ?up/ to begin." in output
    assert "Text AGE (en) or ALDER (no) to begin." in output


def test_the_first_of_several_surveys_answers_for_the_channel(ages):
    assert "< No survey is open. Text START to begin." in shown("hello\n", files=(CLINIC, *ages))
    assert "< No survey is open. Text AGE to begin." in shown("hello\n", files=(*ages, CLINIC))
    assert "< How old are you?" in shown("age\n", files=(CLINIC, *ages))


def test_time_that_goes_by_shows_what_falls_due_and_when(ages):
    output = shown("AGE\n/wait 1h\n", files=ages)
    assert "\n+5m2s < Well?  [1 segment GSM-7, 5/160]\n" in output
    assert (
        "\n+15m2s * idle\n  the session is over, as there was silence for longer than `idle`: 1 SMS in, 3 out"
        in output
    )


def test_waiting_without_a_time_goes_to_what_is_due_next(ages):
    output = shown("AGE\n/wait\n/wait\n/wait\n", files=ages)
    assert "  5m2s go by\n+5m2s < Well?" in output
    assert "  10m1ms go by\n+10m * idle" in output
    assert output.endswith("  nothing is due, however long you wait: say how long, as in /wait 2h\n")


def test_the_state_says_what_was_answered_and_what_comes_if_nobody_writes():
    output = shown("START\nAnn\n９８，６\n/state\n")
    assert output.split("> /state\n")[1].splitlines()[1:] == [
        "  waits at 'fever' for yes or no",
        "    name = Ann",
        "    temperature = 98.6   (written '９８，６')",
        "  +5m < Still there? Do you have a fever?",
        "  +15m * idle",
    ]
    assert "  no session is open\n" in shown("/state\n")
    assert "  opted out\n" in shown("STOP\n/state\n")


def test_what_was_done_can_be_taken_back():
    output = shown("START\nAnn\nhot\n/back\n98.6\n/back\n/back\n/back\n/back\nSTART\n")
    assert "  taken back: > hot\n> 98.6\n< Do you have a fever?" in output
    assert output.count("taken back") == 4
    assert "nothing has happened yet" in output
    assert output.endswith("1 SMS in, 1 out, 1 segment\n")


def test_to_restart_is_to_be_another_person():
    output = shown("STOP\n/restart\nSTART\n")
    assert "  as if nothing had happened\n> START\n< What is your name?" in output


def test_an_invitation_begins_it_in_a_language_with_variables_and_content(ages):
    output = shown("30\n", "--language", "no", "--var", "agentId=7", "--content", "Hei du!", files=ages)
    assert output.startswith('! invited language=no $agentId=7 content="Hei du!"\n< Hei du! Hei.')
    assert "< Hvor gammel er du?" in output
    assert "< Agent 7." in output
    again = shown("/restart\n", "--var", "agentId=7", files=ages)
    assert again.count("! invited $agentId=7\n< Hello.") == 2
    assert "< Hei." in shown("/invite language=no\n", files=ages)


def test_somebody_whom_the_channel_knows_is_called_by_name_also_after_a_restart(tmp_path):
    known = ("--contact", "Leia Organa", "--number", "+15005550006")
    saved = tmp_path / "saved.txt"
    output = shown("Hi\n/state\n/restart\nHi\n", *known, "--save", str(saved), files=(CONVERSATION,))
    assert output.startswith(
        '! told number=+15005550006 contact="Leia Organa"\n'
        "> Hi\n"
        "< Leia Organa has messaged +15005550006 1 times  [1 segment GSM-7, 45/160]\n"
    )
    assert "  $messages = 1\n" in output
    assert output.count("Leia Organa has messaged +15005550006 1 times") == 2
    assert say("", "--script", str(saved), files=(CONVERSATION,)).exit_code == 0
    assert '! told number=+15005550006 contact="Leia Organa"\n> Hi\n' in saved.read_text()


def test_a_stranger_texts_a_number_all_the_same():
    assert "< Friend has messaged +33700000001 1 times" in shown("Hi\n", files=(CONVERSATION,))
    assert "Text anything to begin." in say("", files=(CONVERSATION,)).output
    assert "Nothing else waits for it, so it opened a session" in shown("Hi\n/why\n", files=(CONVERSATION,))


def test_a_script_says_itself_who_is_known():
    result = say("", "--contact", "Rey", "--script", str(GOLDEN))
    assert result.exit_code == 2
    assert "a script says itself who is known, who is invited and when it begins" in result.output


def test_what_cannot_be_typed_can_be_texted():
    output = shown('START\n/sms ""\n/sms "two\\nlines"\n/state\n/stopped\n')
    assert re.search(r'> /sms ""\n< .* What is your name\?  \[', output)
    assert "    name = two lines   (written 'two\\nlines')\n" in output
    assert "* opted out" in output
    assert "    name = /wait\n" in shown("START\n/sms /wait\n/state\n")


@pytest.mark.parametrize(
    "command, sentence",
    [
        ("/dance", "there is no /dance: /help names what there is; to text it, /sms /dance"),
        ("/wait a bit", "found 'a bit', expected how long, as in /wait 2h, /wait 1d2h or /wait 90s"),
        ("/save", "expected a file, as in /save"),
        ('/sms "x', 'found "x, expected a quotation mark at its end'),
        ("/invite no", "found 'no', expected name=value"),
        ("/back", "nothing has happened yet"),
        ("/why", "Nothing has happened yet."),
    ],
)
def test_a_mistake_is_told_and_nothing_happens(command, sentence):
    output = shown(f"{command}\n\n")
    assert f"  {sentence}" in output
    assert "SMS in" not in output


def test_quitting_reads_no_further():
    assert "What is your name?" not in shown("/quit\nSTART\n")


def test_help_names_every_command():
    output = shown("/help\n")
    for command in (
        "/wait [2h]",
        "/why",
        "/state",
        "/back",
        "/restart",
        "/save FILE",
        "/sms",
        "/invite",
        "/quit",
    ):
        assert f"  {command}" in output


def test_nothing_is_coloured_that_is_no_terminal():
    assert "\x1b" not in say("START\n/why\n/state\n").output


def test_colours_are_for_terminals_and_nobody_who_minds_them():
    colour = {"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": None}
    no_colour = colour | {"NO_COLOR": "1"}
    green = "\x1b[32m"
    assert green in CliRunner().invoke(chat, [CLINIC], input="START\n", env=colour).output
    assert green not in CliRunner().invoke(chat, [CLINIC], input="START\n", env=no_colour).output


def test_what_is_not_utf_8_is_texted_somehow():
    result = CliRunner().invoke(chat, [CLINIC], input=b"START\nAnn\xff\n")
    assert result.exit_code == 0
    assert "> Ann\ufffd\n" in result.output


def test_silence_is_said_to_be_silence():
    assert "> hello\n  nothing is said; so far 3 SMS in, 1 out, 1 segment\n" in shown("STOP\nSTOP\nhello\n")


def test_what_comes_at_once_is_shown_as_it_is_saved():
    assert re.search(r"> STOP\n< .* unsubscribed .*\n\* opted out\n\* stopped", shown("START\nSTOP\n"))


def test_an_escape_sequence_does_not_reach_the_terminal(tmp_path):
    survey = tmp_path / "red.yaml"
    survey.write_text(r'{survey: red, steps: [{id: a, say: "\e[31mRed"}]}')
    output = shown("START\nAnn\x1b[31m\n", files=(str(survey),))
    assert "\x1b" not in output
    assert '< "\\u001b[31mRed"' in output
    assert '> "Ann\\u001b[31m"' in output


def test_what_was_saved_plays_the_same(tmp_path):
    saved = tmp_path / "saved.txt"
    typed = 'START\n/sms " Ann "\nhot\n/wait 1h\n/wait 25h\nSTART\n/stopped\n'
    assert (
        say(typed, "--save", str(saved), "--at", "2026-11-21T10:30Z", "--timezone", "Europe/Paris").exit_code
        == 0
    )
    text = saved.read_text()
    assert text.startswith("# clinic: Online clinic check-up\n@ 2026-11-21T10:30Z Europe/Paris\n\n> START\n")
    assert '\n> " Ann "\n' in text
    assert "\n+1h\n* idle\n+1d1h\n> START\n" in text
    again = tmp_path / "again.txt"
    played = say("", "--script", str(saved), "--save", str(again))
    assert (played.exit_code, again.read_text()) == (0, text)


def test_saving_while_it_goes_on(tmp_path):
    shown(f"START\n/save {tmp_path / 'a.txt'}\nAnn\n")
    assert (tmp_path / "a.txt").read_text().endswith("> START\n< What is your name?\n")
    assert "cannot be written" in shown(f"/save {tmp_path / 'none' / 'a.txt'}\n")


@pytest.mark.parametrize(
    "golden", sorted((ROOT / "tests" / "goldens").glob("*.txt")), ids=lambda path: path.stem
)
def test_a_golden_is_a_script(golden):
    files = [str(path) for path in sorted((ROOT / "config" / "surveys").iterdir()) if path.suffix != ".md"]
    result = say("", "--script", str(golden), files=files)
    assert result.exit_code == 0, result.output


def test_a_script_that_says_otherwise_is_told_where(tmp_path):
    script = tmp_path / "script.txt"
    script.write_text(GOLDEN.read_text().replace("> ９８，６", "> 90"))
    result = say("", "--script", str(script))
    assert result.exit_code == 1
    assert "says otherwise" in result.output
    assert (
        "\n-< Do you have a fever?\n+< Your health is good. Have a nice day!\n+* completed\n" in result.output
    )
    assert "\n-< Your health" not in result.output


def test_a_script_of_what_is_done_only_is_played_and_printed(tmp_path):
    script = tmp_path / "script.txt"
    script.write_text("> START\n+11m\n> Ann\n")
    result = say("", "--script", str(script), "--save", str(script))
    assert result.exit_code == 0
    assert script.read_text().startswith("# clinic\n> START\n< What is your name?\n+11m\n* idle\n> Ann\n< ")
    assert "> START\n< What is your name?  [1 segment GSM-7, 18/160]\n" in result.output
    assert "+11m\n+10m * idle" in result.output


@pytest.mark.parametrize(
    "script, problem",
    [
        ("hello\n", "line 1: found 'hello', expected"),
        (
            b"> START\n> Caf\xe9\n",
            "line 2, character 6 is not written in UTF-8: save the file as UTF-8",
        ),
        ("", "nothing happens in it"),
        ("# clinic: only a title\n", "nothing happens in it"),
        ("# other: survey\n", "the transcript is of the survey 'other': expected one of those given, clinic"),
        (b"\xff", "line 1, character 1 is not written in UTF-8"),
        (None, "No such file or directory"),
    ],
)
def test_a_script_that_cannot_be_played_ends_with_status_2(tmp_path, script, problem):
    path = tmp_path / "script.txt"
    if script is not None:
        path.write_bytes(script if isinstance(script, bytes) else script.encode())
    result = say("", "--script", str(path))
    assert result.exit_code == 2
    assert f"{path}: " in result.output
    assert problem in result.output


def test_where_nothing_can_be_saved_is_told_before_anything_is_typed(tmp_path):
    result = say("START\n", "--save", str(tmp_path / "none" / "x.txt"))
    assert result.exit_code == 2
    assert "there is no folder" in result.output
    assert "What is your name?" not in result.output


@pytest.mark.parametrize("language, complaint", [("fr", True), ("no", False), ("", False)])
def test_an_invitation_in_a_language_that_the_survey_lacks_is_told(language, complaint):
    told = "'clinic' has no texts in 'fr', and speaks en" in shown("", "--language", language)
    assert told == complaint


def test_a_file_with_problems_tells_them_and_ends_with_status_2(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("survey: broken\nsteps: []\ncolour: red\n")
    result = say("START\n", files=(str(broken),))
    assert result.exit_code == 2
    assert "colour" in result.output
    assert say("", files=(str(tmp_path / "none.yaml"),)).exit_code == 2


def test_what_lint_would_refuse_can_be_played_unless_it_talks_for_ever(tmp_path):
    survey = tmp_path / "round.yaml"
    survey.write_text("survey: round\nsteps: [{id: a, ask: A?, answer: {type: yes_no}, next: a}]\n")
    result = say("START\nyes\n", files=(str(survey),))
    assert f"  it may not run: `parley lint {survey}` says why\n" in result.output
    assert result.output.count("< A?") == 2
    survey.write_text("survey: round\nsteps: [{id: a, say: A., next: b}, {id: b, say: B., next: a}]\n")
    result = say("START\n", files=(str(survey),))
    assert (result.exit_code, "go round without asking anything" in result.output) == (2, True)


def test_two_files_of_one_survey_are_told(tmp_path):
    twice = tmp_path / "clinic.yaml"
    twice.write_bytes((ROOT / "config" / "surveys" / "clinic.yaml").read_bytes())
    result = say("", files=(CLINIC, str(twice)))
    assert result.exit_code == 2
    assert f"{twice}: the survey 'clinic' is in {CLINIC} already" in result.output


@pytest.mark.parametrize(
    "options",
    [
        ("--var", "agentId"),
        ("--var", "=7"),
        ("--price", "free"),
        ("--price", "-1"),
        ("--at", "noon"),
        ("--timezone", "Mars/Base"),
        ("--script", "x.txt", "--language", "no"),
    ],
)
def test_an_option_that_says_nothing_is_refused(options):
    assert say("", *options).exit_code == 2


# Why


@pytest.fixture
def phone():
    return SimulatedPhone(surveys_of({"ages.yaml": SURVEY}), policy_for("ages"))


def why(phone):
    moments = phone.moments
    return [
        line
        for each in moments
        for line in explain_moment(each, SIMULATED_CHANNEL, phone.surveys, phone.policy)
    ]


def test_why_has_a_sentence_for_whatever_the_engine_can_say():
    assert set(REFUSAL_REASONS) == set(get_args(RefusalReason))
    assert set(ENDING_REASONS) == set(get_args(SessionEnding))


def test_why_a_session_opened(phone):
    phone.text("ALDER")
    assert why(phone) == [
        "It is a keyword that opened a session of 'ages' in no, at its first step, 'hello'.",
        "  on to 'age', which follows",
        "'age' asks for number 0–150, and waits.",
    ]


def test_why_a_session_that_asks_nothing_is_over_at_once():
    survey = "{survey: s, start: HI, steps: [{id: a, say: Hi.}], texts: {completed: Bye.}}"
    phone = SimulatedPhone(surveys_of({"s.yaml": survey}), policy_for("s"))
    phone.text("HI")
    assert why(phone) == [
        "It is a keyword that opened a session of 's' in en, at its first step, 'a'.",
        "  on to the end, which follows",
        "The fixed text `completed` is said.",
        "The session ended: its last step was reached.",
    ]
    phone.text("STOP")
    phone.text("UNSTOP")
    assert why(phone) == [
        "It is a START: they are opted in again.",
        "The fixed text `opted_in` answers.",
    ]


def test_why_a_route_was_taken(phone):
    phone.text("AGE")
    phone.text("16")
    assert why(phone) == [
        "'age' was asked: number 0–150.",
        "It was read as 16.",
        "  on to 'young': at most 17",
        "  on to the end, which follows",
        "The session ended: its last step was reached.",
    ]


def test_why_other_routes_were_not(phone):
    phone.text("AGE")
    phone.text("140")
    _, _, *routes, _ = why(phone)
    assert routes == [
        "  not to 'young': not at most 17",
        "  not to 'agent': agentId is not 7",
        "  on to 'age': above 130 (time 1 of 1)",
    ]
    phone.text("140")
    assert "  not to 'age': it was taken once already" in why(phone)
    assert "  on to the end: otherwise" in why(phone)


def test_why_a_variable_counts(phone):
    phone.play_action(PersonInvited(variables={"agentId": "7"}))
    assert why(phone)[0] == "The invitation opened a session of 'ages' in en, at its first step, 'hello'."
    phone.text("30")
    assert "  on to 'agent': agentId is 7" in why(phone)


def test_why_a_reply_was_no_answer(phone):
    phone.text("AGE")
    phone.text("old")
    assert why(phone) == [
        "'age' was asked: number 0–150.",
        "It was not read: it is no number.",
        "That is invalid answer 1 of 2, so it is asked again.",
    ]
    phone.text("151")
    assert why(phone) == [
        "'age' was asked: number 0–150.",
        "It was not read: it is too high.",
        "That is invalid answer 2 of 2, so `give_up` leads to 'sorry'.",
        "  on to the end, which follows",
        "The session ended: its last step was reached.",
    ]


def test_why_a_reaction_changes_nothing(phone):
    phone.text("AGE")
    phone.text("Liked “How old are you?”")
    assert why(phone)[1:] == [
        "It was not read: it is a phone's reaction to an SMS, which answers nothing, and is passed over in silence."
    ]


def test_why_of_what_is_said_whatever_is_asked(phone):
    phone.text("AGE")
    phone.text("HELP")
    assert why(phone)[0] == "It is a HELP, whatever is being asked."
    phone.text("AGE")
    assert why(phone)[:2] == [
        "The open session ended: a START began it anew.",
        "It is a keyword that opened a session of 'ages' in en, at its first step, 'hello'.",
    ]
    phone.text("STOP")
    assert why(phone)[0].startswith("It is a STOP, whatever is being asked: they are opted out")
    phone.text("STOP")
    assert why(phone) == ["They have opted out again: nothing is said until they say START."]
    phone.provider_stop()
    assert why(phone) == ["They had opted out already: nothing changes, and nothing is said."]
    phone.text("AGE")
    assert why(phone)[0] == "It is a START: they are opted in again."


def test_why_of_what_others_do(phone):
    phone.text("AGE")
    phone.receipt("sent")
    assert why(phone) == ["The provider tells of an SMS: sent."]
    phone.receipt("sent")
    assert why(phone) == ["It tells nothing new of its SMS."]
    phone.part("3", 1, 2)
    assert why(phone) == ["It is a part of an SMS: the others are waited for."]
    phone.part("0", 2, 2)
    assert why(phone)[:3] == [
        "With it an SMS is whole, or as whole as it will be.",
        "'age' was asked: number 0–150.",
        "It was read as 30.",
    ]
    phone.cancel()
    assert why(phone)[0].startswith("Whoever invited wants no more of the session")
    phone.text("HELP", handled="help")
    assert why(phone) == ["The provider took it for a HELP and has answered it."]
    phone.text("AGE", after_ms=60_000)
    phone.receipt("failed", permanent=True, why="unknown")
    assert why(phone) == [
        "The provider tells of an SMS: failed, unknown.",
        f"The session ended: {ENDING_REASONS['unreachable']}.",
    ]
    phone.text("END", handled="stop")
    assert why(phone)[:2] == [
        "The provider took it for a STOP and has answered it.",
        "It is a STOP, whatever is being asked: they are opted out, and hear nothing until they say START.",
    ]
    phone.text("YES")
    assert why(phone) == [
        "It is as good as a START: they are opted in again.",
        "The fixed text `opted_in` answers.",
    ]


def test_the_session_ends_from_outside():
    output = shown("START\n/cancelled\nSTART\n/unreachable no such number\n")
    assert re.findall(r"^\* .*", output, re.MULTILINE) == ["* cancelled", "* unreachable: no such number"]


def test_why_outside_a_session(phone):
    phone.text("hello")
    assert why(phone) == [
        "No session is open, and it is no keyword.",
        "The fixed text `not_found` answers.",
    ]
    phone.text("hello")
    assert why(phone)[1].startswith("Nothing is said: ")
    phone.text("AGE")
    phone.text("16")
    phone.text("AGE")
    assert why(phone)[0] == f"It is a START, which opened nothing: {REFUSAL_REASONS['cooldown']}."


def test_why_an_alarm_rang(phone):
    phone.text("AGE")
    phone.wait(3_600_000)
    assert why(phone)[-2:] == [
        "Nobody wrote: 5m after the last SMS a reminder of 'age' was due.",
        f"Nobody wrote: 10m1ms after the last SMS the session ended: {ENDING_REASONS['idle']}.",
    ]


def test_why_is_in_the_terminal_too():
    output = shown("START\nAnn\n/why\n")
    assert re.search(
        r"> /why\n  'name' was asked: text, up to 40 characters\.\n  It was read as 'Ann'\.\n", output
    )
