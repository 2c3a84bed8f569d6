"""Indexes by which the newest link to some bytes is found, and tokens that have expired"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("links_by_blob", "links", ["blob_id", "account_id", "id"])
    avatars = sa.text("category = 'avatar'")
    op.create_index(
        "avatars_by_blob", "links", ["blob_id", "account_id", "id"], sqlite_where=avatars, postgresql_where=avatars
    )
    op.drop_index("ix_links_blob_id", "links")
    op.create_index("ix_tokens_expires", "tokens", ["expires"])
