"""The alert rules and the dashboard for operators: what they name is there, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import samples
from tests.service import Service
from tests.xmpp.prosody import HOST

# These tests are the same on every back end.
pytestmark = pytest.mark.same_everywhere
CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "alerts.yaml"
DASHBOARD = CONTRIB / "grafana" / "dashboard.json"


def test_the_service_exposes_every_metric_that_rules_and_dashboard_name(component: Service) -> None:
    component.user().send(samples.picture(width=64, height=48), "photo.jpg")
    component.http.post("/api/v1/account/xmpp_code_request/", json={"jid": f"juliet@{HOST}"})
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    named = set(re.findall(r"\bgallery_\w+", "\n".join([RULES.read_text(), *asked])))
    assert len(named) > 20

    def missing() -> set[str]:
        return named - set(re.findall(r"^gallery_\w+", component.http.get("/metrics").text, re.MULTILINE))

    component.wait_until(lambda: not missing())


def test_every_alert_tells_what_to_do() -> None:
    alerts = RULES.read_text().split("- alert: ")[1:]
    assert len(alerts) == len(re.findall("^ +(?:severity|summary|description): ", RULES.read_text(), re.MULTILINE)) / 3
    assert all("description: >-\n" in alert for alert in alerts)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed: it comes with Debian's prometheus")
@pytest.mark.parametrize("words", [("check", RULES.name), ("test", "alerts.test.yaml")], ids=["check", "test"])
def test_promtool_takes_the_rules(words: tuple[str, str]) -> None:
    command, file = words
    done = subprocess.run(
        ["promtool", command, "rules", file], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr
