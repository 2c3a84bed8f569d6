"""The service that tests share, and users of it. Each test has users of its own, so tests do not see one another."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.postgres import Postgres
from tests.service import Service, User


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=["sqlite", "postgres"], default="sqlite", help="what all services run on")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Iterator[Callable[[], dict[str, Any]]]:
    """Settings of a fresh database of the kind that the run is about."""
    if request.config.getoption("--database") == "sqlite":
        yield dict
        return
    server = Postgres()
    yield lambda: {"DATABASE_URL": server.new_database()}
    server.stop()


@pytest.fixture(scope="session")
def start_service(
    tmp_path_factory: pytest.TempPathFactory, backend: Callable[[], dict[str, Any]]
) -> Iterator[Callable[..., Service]]:
    """Start a service with settings of a test's own; all are ended at the end."""
    started: list[Service] = []

    def start(**settings: Any) -> Service:
        service = Service(tmp_path_factory.mktemp("gallery"), **backend() | settings)
        started.append(service)
        return service.start()

    yield start
    for service in started:
        if service.process and service.process.poll() is None:
            os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait()


@pytest.fixture(scope="session")
def service(start_service: Callable[..., Service]) -> Service:
    return start_service()


@pytest.fixture
def anna(service: Service) -> User:
    return service.user("anna")


@pytest.fixture
def boris(service: Service) -> User:
    return service.user("boris")


@pytest.fixture(scope="session")
def admin(service: Service) -> User:
    return service.user(jid="admin@example.org")
