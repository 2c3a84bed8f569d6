"""The calls under `files/` and `avatar/`."""

from __future__ import annotations

from dataclasses import replace

from media_gallery.errors import BadRequest, NotFound
from media_gallery.http import multipart, parameters, shapes
from media_gallery.http.request import Call
from media_gallery.keeping import Kept
from media_gallery.models import Digest, Filter, Link, Page, Window


def _object(call: Call, link: Link) -> shapes.FileObject:
    return shapes.file_object(link, call.services.settings.public_url)


def _page(call: Call, page: Page[Link]) -> shapes.PageOf[shapes.FileObject]:
    return shapes.page_of(page, [_object(call, link) for link in page.items])


async def slot(call: Call, params: parameters.SlotParams) -> shapes.FileObject | shapes.SlotAnswer:
    """Whether this file may be uploaded; if the account has it already, a new link to it."""
    offer = params.offer()
    answer = await call.services.uploads.slot(call.caller.record, offer)
    if isinstance(answer, Kept):
        return _kept(call, answer, offer.digest)
    return shapes.SlotAnswer(answer.limit, answer.used, call.services.settings.max_file_size)


async def upload(call: Call, _: parameters.Nothing) -> shapes.FileObject:
    """Upload a file."""
    return _kept(call, await multipart.receive(call, None))


async def upload_avatar(call: Call, _: parameters.Nothing) -> shapes.FileObject:
    """Upload an image as an avatar: its centre square is kept, its thumbnails are made."""
    return _kept(call, await multipart.receive(call, "avatar"))


def _kept(call: Call, kept: Kept, asked: Digest | None = None) -> shapes.FileObject:
    answer = shapes.file_object(kept.link, call.services.settings.public_url, asked)
    answer.quota, answer.used = kept.quota.limit, kept.quota.used
    return answer


async def list_files(call: Call, params: parameters.FileListParams) -> shapes.PageOf[shapes.FileObject]:
    """The account's files; without `context` or `type=avatar`, avatars are left out."""
    if params.percent is not None:
        return await _list_oldest(call, params.percent, params.exclude_avatars, params.paging.window("-created_at"))
    named = params.names_avatars or params.type == "avatar"
    return await _list(call, params, params.filter(with_avatars=named))


async def list_files_of(call: Call, params: parameters.AccountFilesParams) -> shapes.PageOf[shapes.FileObject]:
    """The files of any account, avatars included, if a setting lets administrators see them; each look is logged."""
    wanted, window = params.filter(with_avatars=True), params.paging.window(params.order_by)
    account = await call.services.accounts.inspect(params.jid, by=call.caller)
    return _page(call, await call.services.files.list(account.id, wanted, window))


async def list_avatars(call: Call, params: parameters.ListParams) -> shapes.PageOf[shapes.FileObject]:
    """The account's avatars."""
    return await _list(call, params, replace(params.filter(with_avatars=True), contexts=("avatar",)))


async def _list(call: Call, params: parameters.ListParams, wanted: Filter) -> shapes.PageOf[shapes.FileObject]:
    window = params.paging.window(params.order_by)
    return _page(call, await call.services.files.list(call.caller.account, wanted, window))


async def delete_files(call: Call, params: parameters.DeleteParams) -> None:
    """Delete by `id`, by `file`, or by filters; avatars are deleted only if `contexts` names them."""
    wanted = params.filter(with_avatars=True)
    if params.file:
        wanted = replace(wanted, slot_id=parameters.parse_media_url(params.file)[0])
    if wanted == Filter():
        raise BadRequest("Say which files to delete", fields={"id": "is required, or else file or a filter"})
    removed = await call.services.files.delete(call.caller.account, replace(wanted, with_avatars=params.names_avatars))
    if not removed and (params.file or params.id):
        raise NotFound("There is no such file")


async def delete_avatar(call: Call, params: parameters.IdParams) -> None:
    """Delete an avatar."""
    wanted = Filter(ids=(params.id,), contexts=("avatar",))
    if not await call.services.files.delete(call.caller.account, wanted):
        raise NotFound("There is no such avatar")


def _percent(call: Call) -> int:
    text = call.request.path_params["percent"]
    if text not in map(str, range(1, 101)):
        raise BadRequest("Some parameters are wrong", fields={"percent": "must be an integer from 1 to 100"})
    return int(text)


async def list_percent(call: Call, params: parameters.PercentParams) -> shapes.PageOf[shapes.FileObject]:
    """The oldest files that together reach a share of what the account uses."""
    return await _list_oldest(call, _percent(call), params.exclude_avatars, params.window("created_at"))


async def _list_oldest(
    call: Call, percent: int, exclude_avatars: bool, window: Window
) -> shapes.PageOf[shapes.FileObject]:
    files, account = call.services.files, call.caller.account
    wanted = await files.oldest(account, percent, exclude_avatars)
    if wanted is None:
        return _page(call, Page([], 0, window))
    return _page(call, await files.list(account, wanted, window))


async def delete_percent(call: Call, params: parameters.PercentDeleteParams) -> None:
    """Delete what the same `GET` lists."""
    await call.services.files.delete_oldest(call.caller.account, _percent(call), params.exclude_avatars)


async def stats(call: Call, params: parameters.StatsParams) -> shapes.Statistics:
    """Counts and bytes of files, by category; administrators may ask for any `jid`."""
    accounts = call.services.accounts
    account = await accounts.asked(call.caller, params.jid)
    usage = await call.services.files.usage(account.id, params.filter(with_avatars=True))
    return shapes.statistics(usage, accounts.quota_of(account))
