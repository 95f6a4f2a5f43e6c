"""What commands print for programs: JSON, an object a line, but for documents that people read too."""

import json

import click
import msgspec


def json_line(value: object) -> str:
    """Encode `value` as JSON in one line, in ASCII. Structs, also those that are arrays on the wire, become objects."""
    return json.dumps(value, default=msgspec.structs.asdict)


def print_json(value: object) -> None:
    """Print `value` as JSON in one line."""
    click.echo(json_line(value))


def print_json_document(value: object) -> None:
    """Print `value` as JSON that people read too: indented, and in their letters."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
