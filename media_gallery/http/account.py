"""The calls under `account/`."""

from __future__ import annotations

from contextlib import suppress

from media_gallery.errors import BadRequest, Forbidden, Unauthorized
from media_gallery.http import parameters, shapes
from media_gallery.http.request import Call
from media_gallery.models import Jid
from media_gallery.quantities import iso

_INVISIBLE = dict.fromkeys((*range(32), 127))


def _code(code: str | int) -> str:
    """COMPAT: some clients send the code as a number, which loses its leading zeros."""
    return f"{code:06d}" if isinstance(code, int) else code.strip()


async def request_code(call: Call, params: parameters.CodeRequest) -> shapes.CodeSent:
    """Send a one-time code to a JID over XMPP."""
    accounts, jid = call.services.accounts, Jid.parse(params.jid)
    holder = call.token is not None and await _holds(call, jid)
    return shapes.CodeSent(*await accounts.request_code(jid, params.type, call.language, call.address, holder))


async def _holds(call: Call, jid: Jid) -> bool:
    """Whether the request has a valid token of this account. Any other token is ignored, not refused."""
    with suppress(Unauthorized):
        await call.authenticate()
        return call.caller.jid == jid.bare
    return False


async def sign_in(call: Call, params: parameters.SignIn) -> shapes.TokenIssued:
    """Exchange a one-time code for a token."""
    device, client = params.device.translate(_INVISIBLE), params.client.translate(_INVISIBLE)
    jid = Jid.parse(params.jid)
    issued = await call.services.accounts.sign_in(jid, _code(params.code), device, client, call.address)
    return shapes.TokenIssued(issued.token, iso(issued.expires))


async def list_tokens(call: Call, params: parameters.Paging) -> shapes.PageOf[shapes.TokenInfo]:
    """The account's tokens, the newest first."""
    caller = call.caller
    page = await call.services.accounts.list_tokens(caller.account, params.window("-id"))
    tokens = [
        shapes.TokenInfo(
            token.id,
            token.device,
            token.client,
            iso(token.created_at),
            iso(token.expires),
            iso(token.last_used) if token.last_used else None,
            token.id == caller.token_id,
        )
        for token in page.items
    ]
    return shapes.page_of(page, tokens)


async def revoke_token(call: Call, params: parameters.TokenParams) -> None:
    """Make a token invalid."""
    await call.services.accounts.revoke_token(call.caller.account, params.token_id)


async def get_account(call: Call, _: parameters.Nothing) -> shapes.OwnAccount:
    """The account itself, whether the caller is an administrator, and which token it has."""
    accounts, caller = call.services.accounts, call.caller
    account = caller.record
    quota = accounts.quota_of(account)
    return shapes.OwnAccount(
        account.jid,
        quota.limit,
        quota.used,
        account.files,
        iso(account.created_at),
        accounts.is_admin(caller),
        call.services.settings.admins_see_files,
        caller.token_id,
    )


async def delete_account(call: Call, params: parameters.AccountDelete) -> None:
    """Delete the account with all it has stored; by its token, or by `jid` and `code`."""
    accounts = call.services.accounts
    if call.token is not None:
        if params.jid and Jid.parse(params.jid).bare != call.caller.jid:
            raise Forbidden("This token belongs to another account")
        await accounts.delete(call.caller.account)
    elif params.jid and params.code is not None:
        await accounts.delete_with_code(Jid.parse(params.jid), _code(params.code), call.address)
    else:
        raise Unauthorized("A token, or jid and code, are required")


async def get_quota(call: Call, params: parameters.JidParams) -> shapes.Quota:
    """What the account may store, and what it stores; administrators may ask for any `jid`."""
    accounts = call.services.accounts
    return shapes.quota(accounts.quota_of(await accounts.asked(call.caller, params.jid)))


async def set_quota(call: Call, params: parameters.QuotaParams) -> shapes.AccountQuota:
    """Give an account a quota of its own, or with `null` the default one again."""
    accounts = call.services.accounts
    account = await accounts.set_quota(params.jid or call.caller.jid, params.value)
    quota = accounts.quota_of(account)
    return shapes.AccountQuota(quota.limit, quota.used, account.jid)


async def list_accounts(call: Call, params: parameters.AccountListParams) -> shapes.PageOf[shapes.AccountInfo]:
    """All accounts, or those of a domain, or whose JID contains a text."""
    accounts = call.services.accounts
    try:
        vhost = Jid.parse(params.vhost).domain if params.vhost else None
    except BadRequest:
        raise BadRequest("Some parameters are wrong", fields={"vhost": "must be a domain"}) from None
    if "\0" in (params.search or ""):
        raise BadRequest("Some parameters are wrong", fields={"search": "must not hold null characters"})
    page = await accounts.list(vhost, params.search, params.window(params.order_by))
    return shapes.page_of(page, [shapes.account_info(account, accounts.quota_of(account)) for account in page.items])


async def remove_account(call: Call, params: parameters.AccountRemove) -> None:
    """Delete an account with all it has stored."""
    await call.services.accounts.remove(params.jid, by=call.caller)
