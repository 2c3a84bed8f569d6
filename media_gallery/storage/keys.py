"""The keys of an S3 account, found and renewed as AWS tools do it; and requests that only botocore can make.

This is loaded only if it is needed: botocore takes as long to load as half of the service.
"""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import botocore.session
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from media_gallery.errors import Unavailable
from media_gallery.settings import Settings
from media_gallery.storage.staging import AWAY, NO_BUCKET


class Keys:
    """The keys of the settings, or those that the environment, files or a program of the machine tell.

    Raises Unavailable if there are none.
    """

    def __init__(self, settings: Settings, endpoint: str) -> None:
        self._settings, self._endpoint = settings, endpoint
        self._session = botocore.session.get_session()
        if settings.s3_access_key_id:
            self._session.set_credentials(settings.s3_access_key_id, settings.s3_secret_access_key.get_secret_value())
        self._credentials = self._session.get_credentials()
        if self._credentials is None:
            raise Unavailable("There are no S3 credentials: set S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY")
        self._refreshing = asyncio.Lock()

    def _current(self) -> tuple[ReadOnlyCredentials, float]:
        """The credentials, renewed if that is due, and for how many seconds they are valid. May take seconds."""
        frozen = self._credentials.get_frozen_credentials()
        end = getattr(self._credentials, "_expiry_time", None)  # set for temporary ones
        return frozen, math.inf if end is None else max(1.0, (end - datetime.now(UTC)).total_seconds())

    def fresh(self) -> Any:
        """The credentials for obstore, which calls this in a thread of its own."""
        frozen, seconds = self._current()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=min(300, seconds)),
        }

    async def _signing(self) -> tuple[ReadOnlyCredentials, float]:
        """As `_current`, in a thread if they must be renewed. Raises Unavailable."""
        try:
            if not isinstance(self._credentials, RefreshableCredentials):
                return self._current()
            async with self._refreshing:  # one thread for all who wait
                due = self._credentials.refresh_needed()
                return await asyncio.to_thread(self._current) if due else self._current()
        except (BotoCoreError, ClientError, RuntimeError) as error:
            raise Unavailable(AWAY) from error

    async def address(self, path: str, media_type: str, disposition: str) -> tuple[str, float]:
        """Where anybody may fetch an object of a bucket, with these headers, and for how many seconds."""
        settings = self._settings
        credentials, seconds = await self._signing()
        lifetime = min(settings.s3_url_lifetime, seconds)
        request = AWSRequest(
            "GET",
            f"{settings.s3_public_endpoint or self._endpoint}/{quote(path)}",
            params={"response-content-type": media_type, "response-content-disposition": disposition},
        )
        S3SigV4QueryAuth(credentials, "s3", settings.s3_region, expires=int(lifetime)).add_auth(request)
        return str(request.url), lifetime

    def abort_unfinished(self, bucket: str, prefix: str, older_than: float) -> int:
        """Remove parts of files that killed processes have sent; how many. No listing of the bucket shows them."""
        settings, before = self._settings, datetime.fromtimestamp(time.time() - older_than, UTC)
        config = Config(s3={"addressing_style": "path"}, read_timeout=settings.s3_timeout, retries={"max_attempts": 2})
        client = self._session.create_client("s3", settings.s3_region, endpoint_url=self._endpoint, config=config)
        count = 0
        try:
            for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] <= before:
                        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                        count += 1
        except (BotoCoreError, ClientError) as error:
            missing = isinstance(error, ClientError) and error.response["Error"]["Code"] == "NoSuchBucket"
            raise Unavailable(NO_BUCKET if missing else AWAY) from error
        finally:
            client.close()
        return count
