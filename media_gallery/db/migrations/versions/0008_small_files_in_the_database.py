"""Small files in the database"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("blobs", sa.Column("in_database", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "contents",
        sa.Column("blob_id", Big, sa.ForeignKey("blobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
