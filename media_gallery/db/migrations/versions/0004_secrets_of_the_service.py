"""Secrets of the service"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table("secrets", sa.Column("name", Text, primary_key=True), sa.Column("value", Text, nullable=False))
