"""Every mistake in the settings is reported at once, in a line that names the place; no secret is ever shown."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from config.connections.redis_url import default_broker_url
from config.settings import settings
from config.settings.log_key import former_log_key, open_log_key
from config.settings.settings import ENVIRONMENT_VARIABLES, ConfigError, load_settings
from config.settings.startup_check import load_settings_and_surveys

GOOD = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
timezone = "Europe/Paris"
"""
TOKEN = "a-token-that-nobody-may-see"


SURVEY = """
survey: clinic
start: [START]
steps:
  - id: colour
    ask: Which colour?
    answer: {type: text}
    next: end
"""

load = load_settings_and_surveys


@pytest.fixture
def deployment(tmp_path):
    """A function: TOML and environment -> the arguments of `load`'s first parameter."""
    (tmp_path / "surveys").mkdir()
    (tmp_path / "surveys" / "clinic.yaml").write_text(SURVEY)

    def environ(toml=GOOD, **variables):
        (tmp_path / "parley.toml").write_text(toml)
        paths = {"PARLEY_CONFIG": str(tmp_path / "parley.toml"), "PARLEY_SURVEYS": str(tmp_path / "surveys")}
        return {**paths, **variables}

    return environ


def problems_of(environ):
    with pytest.raises(ConfigError) as raised:
        load(environ)
    return raised.value.problems


def test_what_ships_is_valid_and_shows_every_limit():
    environ = {"PARLEY_CONFIG": "config/parley.toml", "PARLEY_SURVEYS": "config/surveys/"}
    shipped, _ = load(environ)
    text = Path("config/parley.toml").read_text()
    assert list(shipped.channels) == ["clinic"]
    assert all(f"\n{name} = " in text for name in settings.ChannelLimits.__struct_fields__)
    assert shipped.channels["clinic"].limits == settings.ChannelLimits(), "the file shows the defaults"


def test_defaults(deployment):
    found, surveys = load(deployment())
    clinic = found.channels["clinic"]
    assert (clinic.provider, clinic.token, clinic.timezone.key) == ("simulator", "simulator", "Europe/Paris")
    assert (found.host, found.port, found.shards, found.redis_url) == ("127.0.0.1", 8000, 256, "")
    assert surveys.current_names() == ["clinic"]


def test_a_spool_is_a_folder_and_a_limit_or_there_is_none(deployment):
    assert (load(deployment())[0].spool, load(deployment(PARLEY_SPOOL=""))[0].spool) == (None, None)
    found, _ = load(deployment(PARLEY_SPOOL="/var/spool/parley"))
    assert (found.spool, found.spool_bytes) == (Path("/var/spool/parley"), 256 << 20)
    for wrong in ("0", "-1", "much", "1048577"):
        (problem,) = problems_of(deployment(PARLEY_SPOOL_MB=wrong))
        assert problem == f"PARLEY_SPOOL_MB is {wrong!r}: expected a whole number from 1 to 1048576"


def test_metrics_may_have_a_port_which_is_not_the_worlds(deployment):
    assert load(deployment())[0].metrics_port == 0
    assert load(deployment(PARLEY_METRICS_PORT="9108"))[0].metrics_port == 9108
    (problem,) = problems_of(deployment(PARLEY_METRICS_PORT="8000"))
    assert problem == "PARLEY_METRICS_PORT is 8000, as PARLEY_PORT: expected another, or 0"


def test_web_has_so_many_connections(deployment):
    assert load(deployment())[0].web_connections == 1_000
    assert load(deployment(PARLEY_WEB_CONNECTIONS="20"))[0].web_connections == 20
    (problem,) = problems_of(deployment(PARLEY_WEB_CONNECTIONS="0"))
    assert problem == "PARLEY_WEB_CONNECTIONS is '0': expected a whole number from 1 to 100000"


def test_nothing_is_simulated_where_anything_is_real(deployment):
    """What it takes to simulate, everybody may write to and read."""
    other = '[channels.other]\nnumber = "+33700000002"\nsurveys = ["clinic"]\n'
    assert load(deployment(GOOD + other))[0].only_simulated
    real = other + 'provider = "octopush"\ntoken_env = "TOKEN"\n'
    (problem,) = problems_of(
        deployment(GOOD + real, TOKEN="t", PARLEY_OCTOPUSH_LOGIN="l", PARLEY_OCTOPUSH_KEY="k")
    )
    assert "channels.clinic.provider is 'simulator' beside channels with a real one: expected" in problem


def test_all_mistakes_are_reported_at_once(deployment):
    bad = """
    chanels = 1
    [channels.clinic]
    provider = "octopussy"
    number = "0612"
    surveys = ["clinik"]
    timezone = "Europe/Pariss"
    with_reply = true
    [channels.clinic.limits]
    start_burst = "three"
    sms_per_day = -1
    sms_per_secnd = 2
    [channels.other]
    surveys = ["clinik"]
    number = "+33700000001"
    timezone = "Mars"
    [channels.third]
    number = "+33700000001"
    surveys = ["clinic"]
    """
    found = "\n".join(problems_of(deployment(bad, PARLEY_PORT="http", PARLEY_SHARDS="0", PARLEY_LOG="loud")))
    for part in (
        "chanels is unknown: did you mean channels?",
        "channels.clinic.provider is 'octopussy'",
        "channels.clinic.number is '0612': expected a number in full",
        "channels.clinic.with_reply is unknown: did you mean with_replies?",
        "channels.clinic.limits.start_burst is 'three': expected int",
        "channels.clinic.limits.sms_per_day is -1: expected int >= 0",
        "channels.clinic.limits.sms_per_secnd is unknown: did you mean sms_per_second?",
        "channels.clinic.timezone is 'Europe/Pariss'",
        "channels.other.surveys: clinik is unknown: did you mean clinic?",
        "channels.other.timezone is 'Mars'",
        "channels.third.number is '+33700000001': channel other has it",
        "PARLEY_PORT is 'http'",
        "PARLEY_SHARDS is '0'",
        "PARLEY_LOG is 'loud'",
    ):
        assert part in found


@pytest.mark.parametrize(
    "toml, part",
    [
        ("[channels.clinic", "not TOML"),
        ("", "no channels"),
        ("channels = 3", "no channels"),
        ("[channels]\nclinic = 3", "channels.clinic is 3: expected a table"),
        ('[channels."a b"]\nnumber = "+33700000001"\nsurveys = ["clinic"]', "expected a name of"),
        ('[channels.clinic]\nnumber = "+33700000001"', "channels.clinic.surveys is missing"),
        (GOOD + "limits = 3", "channels.clinic.limits is 3"),
    ],
)
def test_a_broken_file_is_a_sentence(deployment, toml, part):
    assert part in "\n".join(problems_of(deployment(toml)))


def test_octopush_needs_its_secrets(deployment):
    toml = GOOD + 'provider = "octopush"\n'
    found = "\n".join(problems_of(deployment(toml)))
    assert "PARLEY_OCTOPUSH_LOGIN is not set" in found
    assert "PARLEY_OCTOPUSH_KEY is not set" in found
    assert "token_env is missing" in found
    named = problems_of(
        deployment(toml + 'token_env = "CLINIC_TOKEN"', PARLEY_OCTOPUSH_LOGIN="l", PARLEY_OCTOPUSH_KEY="k")
    )
    assert "the variable CLINIC_TOKEN is not set" in named[0]


def test_no_secret_is_shown_even_in_the_wrong_place(deployment):
    toml = GOOD + f'provider = "octopush"\ntoken = "{TOKEN}"\ntoken_env = "{TOKEN}"\n'
    environ = deployment(toml, PARLEY_REDIS_URL=f"http://:{TOKEN}@h", PARLEY_OCTOPUSH_KEY=TOKEN)
    assert TOKEN not in "\n".join(problems_of(environ))


def test_a_repr_holds_no_secret(deployment):
    toml = GOOD + 'provider = "octopush"\ntoken_env = "CLINIC_TOKEN"\n'
    secrets = dict.fromkeys(("PARLEY_OCTOPUSH_LOGIN", "PARLEY_OCTOPUSH_KEY", "CLINIC_TOKEN"), TOKEN)
    found, _ = load(deployment(toml, PARLEY_REDIS_URL=f"redis://:{TOKEN}@h/0", **secrets))
    assert found.channels["clinic"].token == TOKEN
    assert TOKEN not in repr(found)


def test_surveys_problems_and_their_absence_are_told(deployment, tmp_path):
    environ = deployment()
    (tmp_path / "surveys" / "clinic.yaml").write_text("survey: clinic")
    broken = problems_of(environ)
    assert "clinic.yaml: field steps is missing" in broken
    assert all(problem.startswith("clinic.yaml: ") for problem in broken), "nor is it reported as missing"
    (tmp_path / "surveys" / "clinic.yaml").unlink()
    assert "no surveys" in problems_of(deployment())[0]
    assert "cannot be read" in problems_of({**deployment(), "PARLEY_SURVEYS": str(tmp_path / "nowhere")})[0]
    assert "cannot be read" in problems_of({**deployment(), "PARLEY_CONFIG": str(tmp_path / "nowhere")})[0]


def test_commands_get_the_settings_whatever_the_surveys_are(deployment, tmp_path):
    found = load_settings({**deployment(), "PARLEY_SURVEYS": str(tmp_path / "nowhere")})
    assert (found.surveys, found.offered_surveys) == (tmp_path / "nowhere", {"clinic"})
    with pytest.raises(ConfigError, match="PARLEY_PORT"):
        load_settings(deployment(PARLEY_PORT="none"))


def test_one_server_serves_both_with_two_databases(deployment):
    found, _ = load(deployment(PARLEY_REDIS_URL="redis://:pw@host:6379/3"))
    assert found.broker_url == "redis://:pw@host:6379/4"
    assert default_broker_url("redis://host") == "redis://host/1"
    assert default_broker_url("unix:///run/redis") == "unix:///run/redis?db=1"
    assert default_broker_url("unix://me:pw@/run/redis?db=3") == "unix://me:pw@/run/redis?db=4"
    odd = deployment(PARLEY_REDIS_URL="redis://host/0?db=3")
    assert "PARLEY_BROKER_URL is not set" in problems_of(odd)[0]


@pytest.mark.parametrize(
    "url", ["https://sms.example.org", "https://sms.example.org/", "http://10.0.0.1:8000/parley//"]
)
def test_the_public_url_is_a_base_without_a_slash_at_its_end(deployment, url):
    assert load(deployment(PARLEY_PUBLIC_URL=url))[0].public_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["sms.example.org", "ftp://h", "https://", "https://h/?a", "https://h/#a", "https://u:p@h", "https://h:x", "https://h ", "https://é"],
)  # fmt: skip
def test_a_public_url_that_nothing_can_be_put_behind_is_a_mistake(deployment, url):
    (problem,) = problems_of(deployment(PARLEY_PUBLIC_URL=url))
    assert problem.startswith(f"PARLEY_PUBLIC_URL is {url!r}: expected http:// or https://")


def test_a_public_url_with_a_mistake_is_not_said_to_be_missing(deployment):
    toml = GOOD + 'provider = "twilio"\n'
    account = {"PARLEY_TWILIO_SID": "AC" + "5e" * 16, "PARLEY_TWILIO_TOKEN": "t" * 32}
    environ = deployment(toml, PARLEY_PUBLIC_URL="sms.example.org", **account)
    assert [problem.partition(" is ")[0] for problem in problems_of(environ)] == ["PARLEY_PUBLIC_URL"]


def test_only_the_environment_is_asked_for_accounts_and_only_of_providers_in_use(deployment):
    toml = GOOD + 'provider = "octopush"\ntoken_env = "CLINIC_TOKEN"\n'
    secrets = dict.fromkeys(("PARLEY_OCTOPUSH_LOGIN", "PARLEY_OCTOPUSH_KEY", "CLINIC_TOKEN"), TOKEN)
    found, _ = load(deployment(toml, PARLEY_TWILIO_TOKEN=TOKEN, PARLEY_SIMULATOR_URL="x", **secrets))
    assert found.accounts["octopush"] == {"login": TOKEN, "key": TOKEN}
    assert set(found.accounts) == {"octopush", "simulator"}
    assert found.accounts["simulator"]["url"] == "http://127.0.0.1:8000/simulator/v1/public"


def test_a_process_on_its_own_is_told_that_it_needs_redis(deployment):
    found, _ = load(deployment())
    with pytest.raises(ConfigError, match="parley run"):
        found.require_redis()


def test_people_are_named_by_a_key_that_is_made_once_whatever_the_secrets_are(deployment, valkey):
    toml = GOOD + 'token_env = "CLINIC_TOKEN"\n'
    made = [load(deployment(toml, CLINIC_TOKEN=token))[0] for token in "aab"]
    keys = {open_log_key(valkey.client(), settings) for settings in made}
    assert [len(key) for key in keys] == [32]
    former = [former_log_key(settings) for settings in made]
    assert former[0] == former[1] != former[2], "as earlier releases have it"
    valkey.client().flushdb()
    assert open_log_key(valkey.client(), made[0]) not in keys


def test_a_server_that_takes_no_writes_keeps_nobody_from_starting(deployment, valkey):
    """If it has the key, that is it."""
    settings, client = load(deployment(GOOD))[0], valkey.client()
    client.config_set("maxmemory", 1)
    try:
        assert open_log_key(client, settings) == former_log_key(settings)
        client.config_set("maxmemory", 0)
        made = open_log_key(client, settings)
        client.config_set("maxmemory", 1)
        assert open_log_key(client, settings) == made
    finally:
        client.config_set("maxmemory", 0)


def test_mistakes_end_a_process_with_status_2(capsys):
    with pytest.raises(SystemExit) as ended, settings.exit_on_config_error():
        raise ConfigError(["one", "two"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "one\ntwo\n"


@examples(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([v.name for v in ENVIRONMENT_VARIABLES]),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    )
)
def test_no_environment_raises_anything_but_mistakes(environ):
    with suppress(ConfigError):
        load(environ | {"PARLEY_SURVEYS": environ.get("PARLEY_SURVEYS") or "tests/config/nowhere"})
