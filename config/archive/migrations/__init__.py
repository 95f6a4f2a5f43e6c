"""Alembic's migrations of the archive. They only add: see config/archive/tables.py."""
