"""`parley schema`: the survey file's JSON Schema, for editors; that of events, for programs that receive them."""

import click

from engine.commands.json_output import print_json_document
from engine.hooks.event_schemas import event_schema
from engine.surveys import schema as of_surveys


@click.command()
@click.option("--events", is_flag=True, help="Of events, as endpoints receive them.")
def schema(*, events: bool) -> None:
    """Print the JSON Schema of survey files, for editors that complete and check as you type; or of events.

    \b
    Example:
      parley schema > config/survey.schema.json

    \b
    Then begin each survey of config/surveys with the line
      # yaml-language-server: $schema=../survey.schema.json

    The schema is no survey: it stands outside of their folder, whose *.json are.

    --events prints that of one event instead, which is a CloudEvent with its data.
    """
    print_json_document(event_schema() if events else of_surveys.survey_schema())
