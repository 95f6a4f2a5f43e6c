"""Run by Alembic alone, for config/archive/archive_schema.py: on the connection that it is given."""

from typing import Any, Literal

from alembic import context

from config.archive.tables import METADATA, Moment


def _render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """A migration does not depend on types that may change after it."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Moment) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_item=_render_item,
    compare_type=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
