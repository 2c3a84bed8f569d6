"""The service that tests share, and its users. Each test has its own users, so tests do not affect each other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.postgres import Postgres
from tests.s3 import S3
from tests.service import SMALL, Service, User

# The examples are the same in every run, whatever earlier runs found. `make fuzz` looks for new ones. No test fails
# because the machine stood still in it.
hypothesis.settings.register_profile(
    "tests",
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=["sqlite", "postgres"], default="sqlite", help="what all services run on")
    parser.addoption("--storage", choices=["local", "s3"], default="local", help="where all services keep files")
    parser.addoption("--kills", type=int, default=3, help="how often tests/torture kills the service")
    parser.addoption("--rounds", type=int, default=30, help="how often each race of simultaneous requests is run")
    parser.addoption("--browser", action="store_true", help="the long form of tests/web, too")
    parser.addoption("--seed", type=int, help="of the random load of tests/torture")


ORDER = ("unit", "api", "attack", "xmpp", "front", "storage", "faults", "torture")
"""Quick tests that find most faults come first. Files outside of these folders come before the last three."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> float:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return ORDER.index(folder) if folder in ORDER else ORDER.index("storage") - 0.5

    items.sort(key=place)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Iterator[Callable[[], dict[str, Any]]]:
    """Settings of a new database and a new store, of the kinds that the options of the run name."""
    fresh: list[Callable[[], dict[str, Any]]] = []
    with ExitStack() as stack:
        if request.config.getoption("--database") == "postgres":
            server = Postgres()
            stack.callback(server.stop)
            fresh.append(lambda: {"DATABASE_URL": server.ready_database()})
        if request.config.getoption("--storage") == "s3":
            fresh.append(request.getfixturevalue("bucket").settings)
        yield lambda: {name: value for settings in fresh for name, value in settings().items()}


@pytest.fixture(scope="session")
def bucket() -> Iterator[S3]:
    store = S3()
    yield store
    store.stop()


@pytest.fixture(scope="session")
def start_service(
    tmp_path_factory: pytest.TempPathFactory, backend: Callable[[], dict[str, Any]]
) -> Iterator[Callable[..., Service]]:
    """Start a service with a test's own settings. It ends with the test's file, or with the run if `kept`."""

    def start(*, kept: bool = False, **settings: Any) -> Service:
        service = Service(tmp_path_factory.mktemp("gallery"), **backend() | settings)
        (kept_services if kept else started).append(service)
        return service.start()

    yield start
    _end(kept_services)


kept_services: list[Service] = []
started: list[Service] = []


@pytest.fixture(scope="module", autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    """Stop the services of each file at its end, since they would fill the memory."""
    yield
    _end(started)


def _end(services: list[Service]) -> None:
    while services:
        process = services.pop().process
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def service(start_service: Callable[..., Service]) -> Service:
    """It keeps small files in the database, as a service does by default."""
    return start_service(kept=True, SMALL_FILE_SIZE=SMALL)


@pytest.fixture
def anna(service: Service) -> User:
    return service.user("anna")


@pytest.fixture
def boris(service: Service) -> User:
    return service.user("boris")


@pytest.fixture(scope="session")
def admin(service: Service) -> User:
    return service.user(jid="admin@example.org")
