"""`parley schema`: the survey file's JSON Schema, for editors."""

import click

from engine.commands.json_output import print_json_document
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
    print_json_document(of_surveys.survey_schema())
