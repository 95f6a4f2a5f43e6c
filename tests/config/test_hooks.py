"""`[hooks.<name>]` in parley.toml: what is read, and what is wrong with it."""

import pytest

from config.settings.channels import read_config_file
from tests.support.hook_endpoint import OTHER_SECRET, SECRET

CHANNELS = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
"""
WRITTEN = """
[hooks.crm]
url = "https://crm.example.org/parley?tenant=3"
secret_env = "CRM_SECRET"
"""


@pytest.fixture
def read(tmp_path):
    def read(text, *, allow_private=False, **environ):
        path = tmp_path / "parley.toml"
        path.write_text(CHANNELS + text)
        problems = []
        found = read_config_file(
            path, {"CRM_SECRET": SECRET, **environ}, problems, allow_private_hooks=allow_private
        )
        return found.hooks, [problem.removeprefix(f"{path}: ") for problem in problems]

    return read


def test_a_hook_is_read(read):
    more = 'channels = ["clinic"]\nsurveys = ["old"]\nevents = ["session.ended"]\nbatch = 500\nbegin = "beginning"\nnumbers = true\n'
    hooks, problems = read(WRITTEN + more)
    assert problems == []
    hook = hooks["crm"]
    assert hook.url == "https://crm.example.org/parley?tenant=3"
    assert (hook.batch, hook.begin, hook.numbers) == (500, "beginning", True)
    assert hook.wanted.channels == {"clinic"}
    assert hook.wanted.surveys == {"old"}  # one that no channel offers any more
    assert hook.wanted.events == {"session.ended"}
    assert SECRET not in repr(hooks)


def test_both_secrets_are_read_while_one_is_changed_for_the_other(read):
    hooks, problems = read(WRITTEN, CRM_SECRET=f"{OTHER_SECRET} {SECRET}")
    assert problems == []
    assert len(hooks["crm"].secrets) == 2


@pytest.mark.parametrize(
    "line, told",
    [
        ('url = "ftp://crm.example.org"', ".url: expected https://, a host"),
        ('url = "https://"', ".url: expected https://, a host"),
        ('url = "http://crm.example.org/"', "expected https://, a host"),
        ('url = "https://localhost/"', "expected a host that is public"),
        (
            'url = "https://10.1.2.3/"',
            "expected a host that is public; PARLEY_HOOKS_ALLOW_PRIVATE=1 allows it",
        ),
        ('url = "https://ada:secret@crm.example.org/"', ".url: expected no user and password in it"),
        ('url = "https://crm.example.org/ x"', ".url: expected https://, a host"),
        ('channels = ["clinik"]', ".channels: clinik is unknown: did you mean clinic"),
        ('events = ["session.end"]', ".events: session.end is unknown: did you mean session.ended"),
        ("batch = 0", ".batch is 0: "),
        ("batch = 501", ".batch is 501: "),
        ('begin = "yesterday"', ".begin is 'yesterday': "),
        ("timeout_s = 1000", ".timeout_s is 1000: "),
        ('event = ["x"]', ".event is unknown"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_was_expected(read, line, told):
    name = line.partition(" ")[0]
    kept = "\n".join(each for each in WRITTEN.splitlines() if not each.startswith(f"{name} "))
    _, problems = read(f"{kept}\n{line}\n")
    assert len(problems) == 1
    assert problems[0].startswith("hooks.crm")
    assert told in problems[0]
    assert "secret@" not in problems[0]


@pytest.mark.parametrize(
    "secret, told",
    [
        ("", "the variable CRM_SECRET is not set: expected whsec_"),
        (" ", "the variable CRM_SECRET is not set: expected whsec_"),
        ("hunter2", "it does not begin with whsec_"),
        ("whsec_c2hvcnQ=", "it holds 5 bytes"),
        ("whsec_not base64!", "it holds"),
    ],
)
def test_a_secret_that_signs_nothing_is_not_shown(read, secret, told):
    _, problems = read(WRITTEN, CRM_SECRET=secret)
    assert told in "\n".join(problems)
    assert "hunter2" not in "\n".join(problems)


def test_the_secret_itself_in_place_of_its_variable_is_not_shown(read):
    _, problems = read(WRITTEN.replace("CRM_SECRET", SECRET))
    assert problems == ["hooks.crm.secret_env: expected the name of a variable, in capitals, not the secret"]


def test_private_addresses_are_called_where_that_is_allowed(read):
    for url in ("http://localhost:8080/hook", "http://10.0.0.1/", "http://crm/", "https://[::1]:8443/"):
        hooks, problems = read(
            WRITTEN.replace("https://crm.example.org/parley?tenant=3", url), allow_private=True
        )
        assert problems == []
        assert hooks["crm"].url == url


def test_names_and_tables(read):
    assert "expected a name of 1 to 32" in read(WRITTEN.replace("crm]", '"C R M"]'))[1][0]
    assert read("hooks = 3\n[x]")[1] != []
    assert "hooks.crm.url is missing" in "\n".join(read("[hooks.crm]\n")[1])
