"""The service keeps to its OpenAPI document, for requests that it allows and for many that it does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from media_gallery.http import API
from media_gallery.http.openapi import document
from tests.service import PATIENCE, Service, User

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
"""Requests for each call; `make fuzz` sets more."""
SCHEMA = schemathesis.openapi.from_dict(document(API, "http://gallery"))
SCHEMA.config.generation.update(modes=list(schemathesis.GenerationMode))


@pytest.fixture(scope="module")
def asked(start_service: Callable[..., Service]) -> Service:
    return start_service()


@pytest.fixture(scope="module")
def users(asked: Service) -> dict[str, User]:
    """The user of each operation. A new one is made if the account was deleted."""
    return {}


@SCHEMA.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.explicit, Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
def test_no_answer_that_is_not_documented(asked: Service, users: dict[str, User], case: Any) -> None:
    name = case.operation.label
    if name not in users:
        users[name] = asked.user(admin=True)
    token = {"Authorization": f"Bearer {users[name].token}"}
    answer = case.call(base_url=asked.url, headers=token, timeout=PATIENCE)
    if name == "DELETE /api/v1/account/" and answer.status_code == 204:
        del users[name]
    case.validate_response(answer, checks=CHECKS)
