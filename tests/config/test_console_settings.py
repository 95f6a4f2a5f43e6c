"""`[console]` in parley.toml: who signs in by what, and what is wrong with it."""

import pytest

from config.settings.channels import read_config_file
from config.settings.console_settings import place_console
from config.settings.oidc_settings import is_secure_url

CHANNELS = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
"""
OIDC = """
[console.users]
"ada@example.org" = ["operator", "privacy"]
[console.groups]
medics = ["viewer"]
[console.oidc]
issuer = "https://login.example.org/realms/parley"
client_id = "parley"
"""
SECRET = "a-secret-of-tests"


@pytest.fixture
def read(tmp_path):
    def read(text, **environ):
        path = tmp_path / "parley.toml"
        path.write_text(CHANNELS + text)
        problems = []
        found = read_config_file(path, environ, problems, allow_private_hooks=False)
        return found.console, [problem.removeprefix(f"{path}: ") for problem in problems]

    return read


def test_a_provider_is_read(read):
    console, problems = read(OIDC + 'client_secret_env = "OIDC_SECRET"\n', OIDC_SECRET=SECRET)
    assert problems == []
    assert console.users == {"ada@example.org": ("operator", "privacy")}
    assert console.groups == {"medics": ("viewer",)}
    assert console.oidc.discovery_url == (
        "https://login.example.org/realms/parley/.well-known/openid-configuration"
    )
    assert console.oidc.client_secret == SECRET
    assert SECRET not in repr(console)
    assert (console.oidc.user_claim, console.oidc.scopes) == ("email", ("openid", "email", "profile"))


def test_without_a_table_there_is_no_provider(read):
    assert read("")[0].oidc is None


@pytest.mark.parametrize(
    "line, told",
    [
        ('issuer = "http://login.example.org"', ".issuer is 'http://login.example.org': expected https://"),
        ('issuer = "https://login.example.org/?realm=1"', ".issuer is"),
        ('issuer = "https://ada:secret@login.example.org"', ".issuer is"),
        ('client_id = ""', ".client_id is '': expected what the provider calls this console"),
        ('scopes = ["email"]', ".scopes: expected 'openid' among them"),
        ('scopes = ["openid email"]', ".scopes is"),
        ('user_claim = ""', ".user_claim is ''"),
        (
            'client_secret_env = "OIDC_SECRET"',
            "the variable OIDC_SECRET is not set: expected the client's secret",
        ),
        ('client_secret_env = "a-secret-of-tests"', ".client_secret_env: expected the name of a variable"),
        ('client_secret = "a-secret-of-tests"', ".client_secret is unknown"),
        ("client_secret_env = 7", ".client_secret_env: expected str"),
    ],
)
def test_what_is_wrong_with_it_is_told_and_no_secret_is(read, line, told):
    field = line.partition(" ")[0]
    kept = "".join(each + "\n" for each in OIDC.splitlines() if not each.startswith(f"{field} "))
    _, (problem,) = read(f"{kept}{line}\n")
    assert problem.startswith(f"console.oidc.{field}")
    assert told in problem
    assert SECRET not in problem


def test_a_secret_of_two_lines_is_told_and_not_shown(read):
    _, (problem,) = read(OIDC + 'client_secret_env = "OIDC_SECRET"\n', OIDC_SECRET=f"{SECRET}\nmore")
    assert "expected printable ASCII, in one line" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "text, told",
    [
        (
            OIDC.partition("[console.oidc]")[0],
            ["console.users: expected `proxies`", "console.groups: expected [console.oidc]"],
        ),
        ("[console.oidc]" + OIDC.partition("[console.oidc]")[2], ["console.oidc: nobody may sign in by it"]),
        (
            "[console.oidc]",
            ["console.oidc: nobody", "console.oidc.issuer is missing", "console.oidc.client_id is missing"],
        ),
        ("[console]\noidc = 7", ["console.oidc is 7: expected object | null"]),
        (OIDC.replace('["viewer"]', "[]"), ["console.groups.medics: expected at least one of viewer"]),
        (OIDC.replace('["viewer"]', '["root"]'), ["console.groups is"]),
    ],
)
def test_what_does_not_fit_together_is_told(read, text, told):
    _, problems = read(text)
    assert [problem[: len(start)] for problem, start in zip(problems, told, strict=True)] == told


@pytest.mark.parametrize(
    "host, url, told",
    [
        ("0.0.0.0", "", "PARLEY_CONSOLE_HOST is '0.0.0.0', which others can reach"),
        (
            "127.0.0.1",
            "http://console.example.org",
            "expected https://, as [console.oidc] sends browsers back",
        ),
        ("0.0.0.0", "https://console.example.org", None),
        ("127.0.0.1", "", None),
        ("127.0.0.1", "http://localhost:8001", None),
    ],
)
def test_a_provider_is_a_way_to_sign_in_and_none_to_listen_in_the_clear(read, host, url, told):
    problems = []
    console = place_console(read(OIDC)[0], host, 8001, url, problems)
    assert (told or "") in "".join(problems)
    assert bool(problems) == bool(told)
    assert console.callback_url.endswith("/sign-in/oidc/callback")


@pytest.mark.parametrize(
    "url, is_secure",
    [
        ("https://login.example.org", True),
        ("http://127.0.0.1:8080/realm", True),
        ("http://[::1]:8080", True),
        ("http://localhost", True),
        ("http://login.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("https://", False),
        ("login.example.org", False),
        ("https://[login", False),
        ("https://login.example.org/ x", False),
        ("https://login.example.org#x", False),
        ("file:///etc/passwd", False),
    ],
)
def test_what_crosses_no_network_in_the_clear(url, is_secure):
    assert is_secure_url(url) == is_secure
