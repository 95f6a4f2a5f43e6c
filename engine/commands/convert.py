"""`parley convert`: a questions.json as a survey that can be changed."""

from pathlib import Path

import click

from engine.commands.exit_status import exit_unusable
from engine.surveys.documents import FILE_LIMITS
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.questions_conversion import ConversionError, ConvertedSurvey, convert_questions

_STDOUT = Path("-")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write, or - for standard output. By default FILE's name with .yaml, beside it.",
)
def convert(file: Path, target: Path | None) -> None:
    """Write the questions.json in FILE as a YAML survey that behaves the same, with a word about each part.

    In it the keyword START, the 30 s of silence and everything else can be changed. Nothing is overwritten. Exits with
    status 2 if FILE cannot be read as a questions.json.

    \b
    Example:
      parley convert questions.json --out clinic.yaml
    """
    converted = _convert_file(file)
    into = target or file.with_name(f"{converted.name}.yaml")
    if into == _STDOUT:
        click.echo(converted.source, nl=False)
        return
    _write_new(into, converted.source)
    click.echo(f"Wrote {into}", err=True)
    if converted.name != file.stem:
        click.echo(
            f"'{file.stem}' is no name of a YAML survey: it is called {converted.name}, as channels must say",
            err=True,
        )


def _convert_file(file: Path) -> ConvertedSurvey:
    try:
        with file.open("rb") as opened:
            return convert_questions(file.name, opened.read(FILE_LIMITS.size + 1))
    except InvalidSurveyError as e:
        exit_unusable(*e.tell(file.name))
    except ConversionError as e:
        exit_unusable(str(e))
    except OSError as e:
        exit_unusable(f"cannot read {file}: {e.strerror}")


def _write_new(target: Path, text: str) -> None:
    """Write a file that is not there yet; end the command with a sentence if it is, or if the disk refuses."""
    try:
        with target.open("x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
    except FileExistsError as e:
        raise click.ClickException(f"{target} is there already: name another file with --out") from e
    except OSError as e:
        raise click.ClickException(f"cannot write {target}: {e.strerror}") from e
