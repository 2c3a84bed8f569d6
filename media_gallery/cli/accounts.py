"""Tokens, accounts and their quotas."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from media_gallery.app import Gallery
from media_gallery.cli.common import AsJson, Complaint, Config, err, offline, print_json, show, tell
from media_gallery.models import ACCOUNT_ORDERS, Filter, Jid, Window
from media_gallery.quantities import iso, parse_bytes, readable

tokens = App(name="token", help="Bearer tokens.")
accounts = App(name="account", help="Accounts and their quotas.")


@tokens.command(name="create")
def create_token(
    jid: str, *, admin: bool = False, device: str = "command line", config: Config = None, as_json: AsJson = False
) -> None:
    """Make a token for a JID, and its account if there is none yet. The last line printed is the token.

    Parameters
    ----------
    jid
        Whose token, such as anna@example.org.
    admin
        Let the token make the calls of administrators.
    device
        Its name in the list of tokens that the account's owner can read.
    """
    owner = Jid.parse(jid)
    if not owner.local:
        raise Complaint(f"{jid} is not the JID of an account, such as anna@example.org")
    issued = offline(config, lambda gallery: gallery.accounts.issue_token(owner, device, "media-gallery", admin))
    if as_json:
        print_json({"token": issued.token, "expires": iso(issued.expires)})
        return
    err.print(f"A token of {owner.bare}, valid until {iso(issued.expires)}:", highlight=False)
    sys.stdout.write(issued.token + "\n")


@tokens.command(name="list")
def list_tokens(jid: str, *, config: Config = None, as_json: AsJson = False) -> None:
    """List the valid tokens of an account.

    Parameters
    ----------
    jid
        Whose tokens.
    """

    async def work(gallery: Gallery) -> list[dict[str, Any]]:
        account = await gallery.accounts.get(jid)
        page = await gallery.accounts.list_tokens(account.id, Window.by("-id", 1, 10_000))
        return [
            {
                "id": token.id,
                "device": token.device,
                "client": token.client,
                "admin": token.admin,
                "created_at": iso(token.created_at),
                "expires": iso(token.expires),
                "last_used": iso(token.last_used) if token.last_used else None,
            }
            for token in page.items
        ]

    show(offline(config, work), as_json)


@tokens.command(name="revoke")
def revoke_token(jid: str, token_id: int, *, config: Config = None, as_json: AsJson = False) -> None:
    """Make a token of an account invalid, by its id in the list.

    Parameters
    ----------
    jid
        Whose token.
    token_id
        Its id, which `token list` shows.
    """

    async def work(gallery: Gallery) -> None:
        account = await gallery.accounts.get(jid)
        await gallery.accounts.revoke_token(account.id, token_id)

    offline(config, work)
    tell(as_json, f"Token {token_id} is revoked.", jid=jid, revoked=token_id)


@accounts.command(name="list")
def list_accounts(
    *,
    vhost: str | None = None,
    order_by: Annotated[str, Parameter(allow_leading_hyphen=True)] = "jid",
    limit: int = 1000,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List accounts.

    Parameters
    ----------
    vhost
        Only those of this domain.
    order_by
        jid, used or quota; with - before it, the largest first.
    limit
        How many at most.
    """
    window = Window.by(order_by, 1, limit)
    if window.order not in ACCOUNT_ORDERS:
        raise Complaint(f"--order-by is one of {', '.join(ACCOUNT_ORDERS)}")

    async def work(gallery: Gallery) -> list[dict[str, Any]]:
        page = await gallery.accounts.list(vhost, None, window)
        return [
            {
                "jid": a.jid,
                "quota": gallery.accounts.quota_of(a).limit,
                "used": a.used,
                "files": a.files,
                "created_at": iso(a.created_at),
            }
            for a in page.items
        ]

    show(offline(config, work), as_json, sizes=("quota", "used"))


@accounts.command(name="show")
def show_account(jid: str, *, config: Config = None, as_json: AsJson = False) -> None:
    """Show what an account stores, by category.

    Parameters
    ----------
    jid
        Whose account.
    """

    async def work(gallery: Gallery) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        account = await gallery.accounts.get(jid)
        usage = await gallery.files.usage(account.id, Filter())
        head = {
            "jid": account.jid,
            "quota": gallery.accounts.quota_of(account).limit,
            "used": account.used,
            "files": account.files,
            "created_at": iso(account.created_at),
        }
        return head, [{"category": c, "files": usage.files[c], "used": usage.used[c]} for c in usage.files]

    head, rows = offline(config, work)
    if as_json:
        print_json({**head, "categories": rows})
        return
    show([head], False, sizes=("quota", "used"))
    show(rows, False, sizes=("used",))


@accounts.command(name="set-quota")
def set_quota(jid: str, quota: str, *, config: Config = None, as_json: AsJson = False) -> None:
    """Give an account a quota of its own.

    Parameters
    ----------
    jid
        Whose account.
    quota
        Bytes, or a size such as 10GiB, or `default`.
    """
    try:
        value = None if quota == "default" else parse_bytes(quota)
    except ValueError as error:
        raise Complaint(f"The quota {error}, or `default`") from None
    account = offline(config, lambda gallery: gallery.accounts.set_quota(jid, value))
    text = f"{account.jid}: {readable(value) if value is not None else 'the default'}"
    tell(as_json, text, jid=account.jid, quota=value, used=account.used)


@accounts.command(name="delete")
def delete_account(jid: str, *, yes: bool = False, config: Config = None, as_json: AsJson = False) -> None:
    """Delete an account with all it has stored.

    Parameters
    ----------
    jid
        Whose account.
    yes
        Do not ask.
    """
    if not yes and not (err.is_terminal and err.input(f"Delete {jid} with all files? [y/N] ").lower().startswith("y")):
        raise Complaint("Not deleted. Say --yes to delete without being asked.")

    async def work(gallery: Gallery) -> None:
        account = await gallery.accounts.get(jid)
        await gallery.accounts.delete(account.id)

    offline(config, work)
    tell(as_json, f"{jid} is deleted.", deleted=jid)
