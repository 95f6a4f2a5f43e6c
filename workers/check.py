"""`parley check`: is what would run free of mistakes?"""

import os

import click

from config.settings import exit_with_mistakes, load
from engine import read_surveys


@click.command()
def check() -> None:
    """Check the configuration and the surveys; start nothing.

    Prints every mistake with its place, and exits with status 2 if there is one.

    \b
    Example:
      PARLEY_SURVEYS=new-surveys/ parley check
    """
    with exit_with_mistakes():
        settings, surveys = load(os.environ, read_surveys)
    for channel in settings.channels.values():
        click.echo(f"channel {channel.name}: {channel.number} by {channel.provider}, {channel.timezone.key}")
        for name in channel.surveys:
            if survey := surveys.current(name):
                click.echo(
                    f"  survey {name} ({survey.file}, version {survey.version}): at most {survey.most_sms} SMS a session"
                )
