"""Alembic's entry point: runs the revisions on the connection that the program opened."""

from __future__ import annotations

from alembic import context

from ntm_as.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
