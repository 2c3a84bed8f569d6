"""Addresses of other services"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "old_addresses",
        sa.Column("digest", Text, primary_key=True),
        sa.Column("link_id", Big, nullable=False),
        sa.Column("thumbnail", Text),
    )
