"""The calls that tell about the service itself."""

from __future__ import annotations

from starlette.responses import Response

from media_gallery import __version__, metrics
from media_gallery.http import parameters, shapes
from media_gallery.http.request import Call


async def about(call: Call, _: parameters.Nothing) -> shapes.Service:
    """What this service is, and its limits."""
    settings = call.services.settings
    return shapes.Service(
        name="media-gallery",
        version=__version__,
        max_file_size=settings.max_file_size,
        default_quota=settings.default_quota,
        rate_upload=settings.rate_upload,
        documentation=f"{settings.public_url}/api/docs",
    )


async def state(call: Call, _: parameters.Nothing) -> shapes.ServiceState:
    """How much the service stores, and whether its parts work."""
    found = await call.services.accounts.totals()
    health = await call.services.health()
    return shapes.ServiceState(found.accounts, found.files, found.used, found.stored, health)


async def healthz(call: Call) -> Response:
    return Response('{"status":"ok"}', media_type="application/json")


async def readyz(call: Call) -> Response:
    """Raises Unavailable or NoSpace if an upload could not be taken."""
    await call.services.check()
    return Response('{"status":"ready"}', media_type="application/json")


async def metrics_page(call: Call) -> Response:
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
