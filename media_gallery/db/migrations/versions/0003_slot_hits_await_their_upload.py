"""Slot hits await their upload"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("links", sa.Column("awaited_until", sa.BigInteger().with_variant(sa.Integer(), "sqlite")))
    where = sa.text("awaited_until IS NOT NULL")
    op.create_index("links_awaited", "links", ["account_id", "blob_id"], sqlite_where=where, postgresql_where=where)
