"""parley.toml says who is texted how, from where, and when; each mistake in it is a line of its own."""

from hashlib import sha256
from zoneinfo import ZoneInfo

import pytest

from config.settings.channels import ChannelLimits, read_config_file
from engine.model.policy import ChannelPolicy
from engine.model.quiet_hours import QuietHours

GOOD = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
"""
OTHER = """
[channels.other]
number = "+33700000002"
surveys = ["clinic"]
"""
HASH = sha256(b"a key").hexdigest()


@pytest.fixture
def read(tmp_path):
    """A function: TOML and environment -> channels, keys, and problems without the file's name."""

    def read_toml(toml, **environ):
        path = tmp_path / "parley.toml"
        path.write_text(toml)
        problems = []
        channels, keys = read_config_file(path, environ, problems, allow_private_hooks=False)[:2]
        return channels, keys, [problem.removeprefix(f"{path}: ") for problem in problems]

    return read_toml


def problems_of(found):
    return "\n".join(found[2])


def test_a_channel_is_its_number_and_defaults(read):
    channels, _, problems = read(GOOD)
    clinic = channels["clinic"]
    assert problems == []
    assert (clinic.provider, clinic.token, clinic.timezone.key) == ("simulator", "simulator", "UTC")
    assert (clinic.originators, clinic.quiet, clinic.contacts) == ((), None, {})
    assert clinic.limits == ChannelLimits()


def test_what_no_channel_has_is_the_providers_to_understand(read):
    toml = GOOD + 'provider = "webhook"\nsend_url = "https://x"\nsecret_env = "WORD"\n'
    channels, _, problems = read(toml, WORD="open sesame")
    assert problems == []
    assert channels["clinic"].options == {"send_url": "https://x"}
    assert channels["clinic"].secrets == {"secret": "open sesame"}
    assert "sesame" not in repr(channels)
    assert channels["clinic"].token == "", "only the simulator's token is known to everyone"


@pytest.mark.parametrize(
    "written, problem",
    [
        ('secret_env = "open sesame"', "channels.clinic.secret_env: expected the name of a variable, in capitals, not"),
        ("secret_env = 3", "channels.clinic.secret_env: expected the name of a variable"),
        ('secret_env = "WORD"', "channels.clinic.secret_env: the variable WORD is not set: expected the secret in it"),
        ('token_env = "WORD"', "channels.clinic.token_env: the variable WORD is not set: expected the token in it"),
        ('quiet_hours = "21-8"', "channels.clinic.quiet_hours is '21-8': expected two times of the day, such as"),
        ('quiet_hours = "08:00-08:00"', "expected two different times of the day"),
        ('quiet_hours = "21:00-24:00"', "expected two times of the day"),
        ('originators = ["INFO"]', "channels.clinic.originators is ['INFO']: expected numbers of 3 to 15 digits"),
        ('originators = ["033"]', "expected numbers of 3 to 15 digits"),
        ('originators = ["33700000001"]', "originators is '33700000001': channel clinic has it"),
        ('originators = ["1960", "+1960"]', "originators is '+1960': channel clinic has it"),
        ('number = "+33700000001\\n"', "channels.clinic.number is '+33700000001\\n': expected a number in full"),
        ("provider = 3", "channels.clinic.provider is 3: expected str"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(read, written, problem):
    good = GOOD if not written.startswith("number") else GOOD.replace('number = "+33700000001"', "")
    found = problems_of(read(good + written))
    assert problem in found
    assert "sesame" not in found


def test_numbers_and_originators_are_nobody_elses(read):
    assert read(GOOD + 'originators = ["19601234567890", "36111"]\n' + OTHER)[2] == []
    taken = GOOD + 'originators = ["33700000002"]\n' + OTHER + 'originators = ["+33700000001", "36111"]\n'
    assert problems_of(read(taken)).count("expected a number of its own") == 2


@pytest.mark.parametrize(
    "written, minutes", [("21:00-08:00", (1260, 480)), ("00:00-06:30", (0, 390)), ("", None)]
)
def test_quiet_hours_are_minutes_of_the_day(read, written, minutes):
    assert read(GOOD + f'quiet_hours = "{written}"')[0]["clinic"].quiet == (
        QuietHours(*minutes) if minutes else None
    )


def test_the_engine_gets_all_of_a_channel_that_it_asks_for(read):
    toml = """
    [channels.clinic]
    number = "+33700000001"
    surveys = ["clinic"]
    timezone = "Europe/Paris"
    originators = ["36111"]
    quiet_hours = "21:00-08:00"
    limits = {sessions_per_sender_per_day = 1, start_burst = 2, start_per_minute = 4, pause_s = 0.5}
    """
    assert read(toml)[0]["clinic"].policy() == ChannelPolicy(
        surveys=("clinic",), timezone=ZoneInfo("Europe/Paris"), sessions_per_sender_per_day=1, start_burst=2,
        start_per_minute=4, pause_ms=500, number="+33700000001", originators=("36111",),
        quiet=QuietHours(1260, 480), contacts={},
    )  # fmt: skip


def test_keys_are_hashes_with_a_scope(read):
    toml = f'{GOOD}{OTHER}[keys.crm]\nsha256 = "{HASH}"\nchannels = ["clinic"]\nrequests_per_minute = 60\n'
    _, (key,), problems = read(toml)
    assert problems == []
    assert (key.name, key.sha256, key.channels, key.requests_per_minute) == (
        "crm",
        sha256(b"a key").digest(),
        {"clinic"},
        60,
    )


def test_a_key_may_everything_unless_its_table_says_less(read):
    toml = f'{GOOD}[keys.crm]\nsha256 = "{HASH}"\nchannels = ["clinic"]\n'
    _, (key,), _ = read(toml)
    assert (key.read_only, key.numbers, key.is_for_survey("anything")) == (False, True, True)
    _, (key,), problems = read(toml + 'read_only = true\nnumbers = false\nsurveys = ["clinic", "flu-2022"]\n')
    assert problems == [], "a survey that no channel offers any more may be read"
    assert (key.read_only, key.numbers) == (True, False)
    assert [key.is_for_survey(name) for name in ("clinic", "flu-2022", "quiz")] == [True, True, False]


@pytest.mark.parametrize(
    "table, problem",
    [
        (f'keys.crm = {{sha256 = "{HASH}", channels = ["clinic"], read_only = "yes"}}', "keys.crm.read_only is 'yes'"),
        (f'keys.crm = {{sha256 = "{HASH}", channels = ["clinic"], surveys = "clinic"}}', "keys.crm.surveys is"),
        ("keys = 3", "keys is 3: expected tables [keys.<name>]"),
        (f'keys.crm = {{sha256 = "{HASH}"}}', "keys.crm.channels is missing"),
        ('keys.crm = {sha256 = "secret", channels = ["clinic"]}', "keys.crm.sha256: expected 64 hex digits"),
        (f'keys.crm = {{sha256 = "{HASH}", channels = ["clinik"]}}', "keys.crm.channels: clinik is unknown: did you mean"),
        (f'keys.crm = {{sha256 = "{HASH}", channels = ["clinic"], rate = 3}}', "keys.crm.rate is unknown"),
        (f'keys.a = {{sha256 = "{HASH}", channels = ["clinic"]}}\nkeys.b = {{sha256 = "{HASH}", channels = ["clinic"]}}',
         "keys.b.sha256: keys.a has it"),
    ],
)  # fmt: skip
def test_a_keys_mistake_is_told(read, table, problem):
    found = problems_of(read(f"{table}\n{GOOD}"))
    assert problem in found
    assert "'secret'" not in found, "the key itself may stand where its hash belongs"


def test_where_nothing_is_real_the_key_is_simulator(read):
    _, (key,), _ = read(GOOD + OTHER)
    assert (key.sha256, key.channels) == (sha256(b"simulator").digest(), {"clinic", "other"})
    assert read(GOOD + OTHER + 'provider = "octopush"')[1] == (), "but not where one channel is real"


def test_contacts_lie_beside_the_file_and_their_problems_are_told_with_the_channel(read, tmp_path):
    (tmp_path / "people.csv").write_text("number,name\n+33612345678,Ada\n")
    channels, _, problems = read(GOOD + 'contacts = "people.csv"')
    assert problems == []
    assert channels["clinic"].contacts == {"+33612345678": "Ada"}
    assert "channels.clinic.contacts: " in problems_of(read(GOOD + 'contacts = "nowhere.csv"'))
