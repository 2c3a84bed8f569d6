"""What operators can watch (Prometheus). `/metrics` tells the values of a whole host: workers share theirs in files.

Counts and times of the workers are added up. A gauge that is true for the whole host or the whole service is `_told`:
it has the value that any process has set last, whether this process still lives or not.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus-client: the directory where workers share their counts."""
BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds, for what the database and the store do."""
RATIOS = (0.9, 1.0)
"""Parts of a quota, for each of which the accounts are counted that use as much or more."""

registry = CollectorRegistry()


def _told(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
    return Gauge(name, text, labels, registry=registry, multiprocess_mode="mostrecent")


requests = Counter("gallery_requests", "Requests answered", ["method", "route", "status"], registry=registry)
seconds = Histogram("gallery_request_seconds", "Time to answer a request", ["route"], registry=registry)
received = Counter("gallery_received_bytes", "Bytes of files received", registry=registry)
uploads = Counter("gallery_uploads", "Files taken", ["category", "stored"], registry=registry)
slot_hits = Counter("gallery_slot_hits", "Slots answered with a new link to bytes already known", registry=registry)
removed = Counter("gallery_removed_links", "Links removed", registry=registry)
codes = Counter("gallery_codes", "One-time codes", ["outcome"], registry=registry)
decodes = Counter("gallery_decodes", "Images and films decoded", ["kind", "outcome"], registry=registry)

_database = Histogram(
    "gallery_database_seconds", "Time of a transaction", ["operation"], registry=registry, buckets=BUCKETS
)
database_read, database_scan, database_write = map(_database.labels, ("read", "scan", "write"))
_store = Histogram(
    "gallery_store_seconds", "Time of a step in the store", ["operation"], registry=registry, buckets=BUCKETS
)
store_look, store_read, store_write, store_delete = map(_store.labels, ("look", "read", "write", "delete"))
_jobs = Gauge(
    "gallery_decoder_jobs", "Images and films in work", ["state"], registry=registry, multiprocess_mode="livesum"
)
decoders_waiting, decoders_running = map(_jobs.labels, ("waiting", "running"))

xmpp_connected = _told("gallery_xmpp_connected", "1 if the host has its XMPP connection, else 0", ("connection",))
upkeep_done = _told("gallery_upkeep_timestamp_seconds", "When upkeep last ended well on this host")
disk_free = _told("gallery_disk_free_bytes", "Free bytes of the data directory's file system")
disk_size = _told("gallery_disk_size_bytes", "All bytes of the data directory's file system")
staged_files = _told("gallery_staging_files", "Unfinished uploads on the disk of this host")
staged_bytes = _told("gallery_staging_bytes", "Their bytes")
accounts = _told("gallery_accounts", "Accounts of the service")
accounts_filled = _told("gallery_accounts_filled", "Accounts that use this part of their quota, or more", ("ratio",))
files = _told("gallery_files", "Files that accounts have")
used = _told("gallery_used_bytes", "Bytes of these files, as quotas count them")
quota = _told("gallery_quota_bytes", "Sum of all quotas")
blobs = _told("gallery_blobs", "Files that are stored, each content once")
stored = _told("gallery_stored_bytes", "Bytes of these, without thumbnails")
trash = _told("gallery_trash_files", "Files in the trash")
counted = _told("gallery_counted_timestamp_seconds", "When this host last counted accounts, files and trash")


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    if directory := os.environ.get(MULTIPROCESS):
        _forget_the_dead(Path(directory))
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
    return generate_latest(registry)


def _forget_the_dead(directory: Path) -> None:
    """Remove gauges of processes that have ended, such as a worker that was killed with jobs in its queue."""
    for path in directory.glob("gauge_live*.db"):
        pid = path.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            with suppress(FileNotFoundError):  # another worker has removed it
                mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
