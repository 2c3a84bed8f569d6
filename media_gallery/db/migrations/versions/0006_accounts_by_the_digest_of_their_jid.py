"""Accounts by the digest of their JID"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
STEP = 1000


def upgrade() -> None:
    op.add_column("accounts", sa.Column("jid_sha1", Text))
    accounts = sa.table("accounts", sa.column("id"), sa.column("jid"), sa.column("jid_sha1"))
    connection, after = op.get_bind(), 0
    query = sa.select(accounts.c.id, accounts.c.jid).order_by(accounts.c.id).limit(STEP)
    change = accounts.update().where(accounts.c.id == sa.bindparam("row")).values(jid_sha1=sa.bindparam("digest"))
    while rows := connection.execute(query.where(accounts.c.id > after)).all():
        after = rows[-1].id
        known = [row for row in rows if row.jid is not None]
        if known:
            digests = [(row.id, hashlib.sha1(row.jid.encode()).hexdigest()) for row in known]  # noqa: S324, no secret
            connection.execute(change, [{"row": row, "digest": digest} for row, digest in digests])
    op.create_index("accounts_jid_sha1", "accounts", ["jid_sha1"], unique=True)
