"""A person has one name in everything that is read from an archive, and no number can be got from it."""

import threading

from sqlalchemy import insert, select

from config.archive import archive_schema, tables
from config.archive.database import ArchiveDatabase
from config.archive.pseudonyms import Pseudonyms, read_pseudonym_key, read_pseudonyms
from config.archive.surveys_kept import read_surveys, survey_names
from tests.support.archive_writer import ArchiveWriter

ANN, BOB = "+33612345678", "+33612345679"


def test_a_pseudonym_is_128_bits_of_a_keyed_hash():
    names = Pseudonyms(b"k" * 32)
    assert len(names.of(ANN)) == 32
    assert int(names.of(ANN), 16) < 2**128
    assert names.of(ANN) == Pseudonyms(b"k" * 32).of(ANN)
    assert len({names.of(ANN), names.of(BOB), Pseudonyms(b"l" * 32).of(ANN)}) == 3


def test_the_key_is_made_once_and_stays(archive_database, archive_url):
    with archive_database.reading() as connection:
        assert read_pseudonym_key(connection) == b""
    name = read_pseudonyms(archive_database).of(ANN)
    again = ArchiveDatabase(archive_url)
    assert read_pseudonyms(again).of(ANN) == name
    again.close()


def test_an_archive_has_a_key_of_its_own(archive_database, tmp_path):
    other = ArchiveDatabase(f"sqlite:///{tmp_path / 'other.db'}")
    archive_schema.migrate(other)
    assert read_pseudonyms(other).of(ANN) != read_pseudonyms(archive_database).of(ANN)
    other.close()


def test_those_who_need_it_first_at_once_get_the_same(archive_url, archive_database):
    """Each has looked and found none before one of them makes it."""
    together = threading.Barrier(4)
    names, databases = [], [ArchiveDatabase(archive_url) for _ in range(4)]

    def need(each):
        with each.reading() as connection:
            assert read_pseudonym_key(connection) == b""
        together.wait(30)
        names.append(read_pseudonyms(each).of(ANN))

    threads = [threading.Thread(target=need, args=(each,)) for each in databases]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    for each in databases:
        each.close()
    assert len(names) == 4
    assert len(set(names)) == 1
    with archive_database.reading() as connection:
        assert len(connection.execute(select(tables.deployment)).all()) == 1


# Versions of surveys, which stand beside


def test_versions_are_read_oldest_first_and_one_that_cannot_be_is_left_out_with_a_warning(
    archive_url, capsys
):
    writer = ArchiveWriter(archive_url)
    text = "survey: clinic\nsteps: [{{id: a, ask: '{}', answer: {{type: text}}}}]\n"
    versions = [writer.add_survey(text.format(question)) for question in ("z?", "a?", "m?")]
    with writer.database.writing() as connection:
        broken = {"version": "broken", "name": "clinic", "file": "clinic.yaml", "source": b"nonsense"}
        connection.execute(insert(tables.surveys), broken)
    with writer.database.reading() as connection:
        assert [each.version for each in read_surveys(connection, "clinic")] == versions
        assert read_surveys(connection, "other") == []
    assert "an archived survey cannot be read by this release" in "".join(capsys.readouterr())
    writer.database.close()


def test_a_survey_is_known_by_a_version_or_by_a_session(archive_url):
    writer = ArchiveWriter(archive_url)
    with writer.database.reading() as connection:
        assert survey_names(connection) == []
    writer.add_survey("survey: quiz\nsteps: [{id: a, say: x}]\n")
    writer.add_session(survey="clinic")
    writer.add_session(survey="appointment")
    with writer.database.reading() as connection:
        assert survey_names(connection) == ["appointment", "clinic", "quiz"]
    writer.database.close()
