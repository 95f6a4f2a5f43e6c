"""`parley schema`: the survey file's JSON Schema, for editors."""

import json

import click

from engine.surveys import schema as of_surveys


@click.command()
def schema() -> None:
    """Print the JSON Schema of survey files, for editors that complete and check as you type.

    \b
    Example:
      parley schema > survey.schema.json

    \b
    Then begin a survey with the line
      # yaml-language-server: $schema=survey.schema.json
    """
    click.echo(json.dumps(of_surveys.survey_schema(), indent=2, ensure_ascii=False))
