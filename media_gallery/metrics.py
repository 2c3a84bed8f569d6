"""What operators can watch (Prometheus). `/metrics` adds up the counts of all workers."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus-client: the directory where workers share their counts."""

registry = CollectorRegistry()
requests = Counter("gallery_requests", "Requests answered", ["method", "route", "status"], registry=registry)
seconds = Histogram("gallery_request_seconds", "Time to answer a request", ["route"], registry=registry)
received = Counter("gallery_received_bytes", "Bytes of files received", registry=registry)
uploads = Counter("gallery_uploads", "Files taken", ["category", "stored"], registry=registry)
slot_hits = Counter("gallery_slot_hits", "Slots answered with a new link to bytes already known", registry=registry)
removed = Counter("gallery_removed_links", "Links removed", registry=registry)
codes = Counter("gallery_codes", "One-time codes", ["outcome"], registry=registry)
decodes = Counter("gallery_decodes", "Images and films decoded", ["kind", "outcome"], registry=registry)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    if os.environ.get(MULTIPROCESS):
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
    return generate_latest(registry)
