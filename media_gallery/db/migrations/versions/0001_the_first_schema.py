"""The first schema"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _accounts()
    _files()


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", Big, primary_key=True),
        sa.Column("jid", Text, unique=True),
        sa.Column("vhost", Text, nullable=False),
        sa.Column("quota", Big),
        sa.Column("used", Big, server_default="0", nullable=False),
        sa.Column("files", Big, server_default="0", nullable=False),
        sa.Column("created_at", Big, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("accounts_vhost", "accounts", ["vhost", "jid"])
    op.create_table(
        "usage",
        sa.Column("account_id", Big, sa.ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("category", Text, primary_key=True),
        sa.Column("files", Big, nullable=False),
        sa.Column("used", Big, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", Big, primary_key=True),
        sa.Column("account_id", Big, sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("hash", Text, nullable=False, unique=True),
        sa.Column("device", Text, nullable=False),
        sa.Column("client", Text, nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("created_at", Big, nullable=False),
        sa.Column("expires", Big, nullable=False),
        sa.Column("last_used", Big),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "codes",
        sa.Column("id", Big, primary_key=True),
        sa.Column("jid", Text, nullable=False, index=True),
        sa.Column("hash", Text, nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("expires", Big, nullable=False, index=True),
        sqlite_autoincrement=True,
    )


def _files() -> None:
    op.create_table(
        "blobs",
        sa.Column("id", Big, primary_key=True),
        sa.Column("sha256", Text, nullable=False, unique=True),
        sa.Column("sha1", Text, nullable=False, index=True),
        sa.Column("size", Big, nullable=False),
        sa.Column("key", Text, nullable=False, unique=True),
        sa.Column("links", Big, nullable=False),
        sa.Column("width", sa.Integer()),
        sa.Column("height", sa.Integer()),
        sa.Column("decodable", sa.Boolean()),
        sa.Column("created_at", Big, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "links",
        sa.Column("id", Big, primary_key=True),
        sa.Column("account_id", Big, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("blob_id", Big, sa.ForeignKey("blobs.id"), nullable=False, index=True),
        sa.Column("slot_id", Text, nullable=False, unique=True),
        sa.Column("name", Text, nullable=False),
        sa.Column("folded", Text, nullable=False),
        sa.Column("size", Big, nullable=False),
        sa.Column("media_type", Text, nullable=False),
        sa.Column("context", Text, nullable=False),
        sa.Column("category", Text, nullable=False),
        sa.Column("metadata", Text, nullable=False),
        sa.Column("thumbnails", sa.Boolean(), nullable=False),
        sa.Column("created_at", Big, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("links_by_id", "links", ["account_id", "id", "category"])
    op.create_index("links_by_time", "links", ["account_id", "created_at", "id", "category"])
    op.create_index("links_by_category", "links", ["account_id", "category", "created_at", "id"])
    op.create_index("links_by_size", "links", ["account_id", "size", "id", "category"])
    op.create_index("links_by_name", "links", ["account_id", "folded", "id", "category"])
    op.create_table("trash", sa.Column("key", Text, primary_key=True), sa.Column("created_at", Big, nullable=False))
