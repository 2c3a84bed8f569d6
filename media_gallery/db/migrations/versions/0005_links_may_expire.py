"""Links may expire"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("links", sa.Column("expires_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite")))
    where = sa.text("expires_at IS NOT NULL")
    op.create_index("links_expiring", "links", ["expires_at"], sqlite_where=where, postgresql_where=where)
