"""A console before an archive that has sessions of a survey, whose file may be edited; and one all of whose channels are
simulated."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.model.events import Answer
from engine.surveys.survey_reader import read_survey
from tests.support.archive_writer import ArchiveWriter
from tests.support.processes import Deployment
from tests.support.waiting import free_port

ANN, BO, CLEO = "+33612345678", "+33622222222", "+33633333333"

CLINIC = """survey: clinic
title: "<script>alert('title')</script>"
start: [START]
cooldown: 0s
steps:
  - id: name
    ask: 'Your name? "><img src=x onerror=alert(1)> \u202egnip\u202c 🩺'
    answer: {type: text}
  - id: pain
    ask: How much pain, {name}?
    answer: {type: scale, from: 0, to: 10}
    remind: {after: 5m, times: 1, text: Still there?}
  - id: bye
    say: Get well soon.
"""
EVIL_NAME = "<script>alert('name')</script>"
WRITTEN_NUMBER = "call 06 12 34 56 78 or +33698765432"


@contextmanager
def surveyed_console(
    valkey: object, octopush: object, folder: Path, *, is_simulated: bool = False
) -> Iterator[Deployment]:
    """Of Parley only `console` runs; the survey's file is `survey_file`."""
    surveys = folder / "surveys"
    surveys.mkdir()
    (surveys / "clinic.yaml").write_text(CLINIC)
    archive = f"sqlite:///{folder / 'archive.db'}"
    environment = {"PARLEY_CONSOLE_PORT": f"{free_port()}", "PARLEY_ARCHIVE_URL": archive}
    with Deployment(
        valkey.url, valkey.broker_url, octopush, surveys=surveys, environment=environment
    ) as deployment:
        deployment.survey_file = surveys / "clinic.yaml"
        deployment.archive_url = archive
        if is_simulated:
            config = deployment.folder / "parley.toml"
            config.write_text(config.read_text().replace('provider = "octopush"', 'provider = "simulator"'))
        deployment.spawn("console")
        deployment.wait_running()
        yield deployment


def write_archive(deployment: Deployment) -> str:
    """Ann has completed the survey, Bo is at its last step, Cleo left there; answers the version."""
    survey, _ = read_survey("clinic.yaml", CLINIC.encode())
    with ArchiveWriter(deployment.archive_url) as archive:
        archive.keep_survey(survey)
        version = survey.version
        name, pain = Answer(EVIL_NAME, EVIL_NAME), Answer("7", 7.0)
        archive.add_session(
            [("name", name, "text"), ("pain", pain, "scale")], sender=ANN, version=version, how="completed"
        )
        bo = Answer(WRITTEN_NUMBER, WRITTEN_NUMBER)
        archive.add_session([("name", bo, "text")], sender=BO, version=version, how="")
        cleo = Answer("Cleo", "Cleo")
        archive.add_session([("name", cleo, "text")], sender=CLEO, version=version, how="idle")
    return version
