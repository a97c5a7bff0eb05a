"""
Tests for C{etc/prometheus/alerts.yml} and C{etc/grafana/mailgate.json}: they name metrics and labels that the gateway
has, their expressions are valid for Prometheus, and the alerts fire when they must, and only then.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.test.integration.programs import programPath, require
from mailgate.watch.metrics import METRICS, Kind

ETC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__))), "etc")
ALERTS = os.path.join(ETC, "prometheus", "alerts.yml")
BOARD = os.path.join(ETC, "grafana", "mailgate.json")

FOREIGN = {"instance", "job", "le"}
"""Labels that Prometheus adds."""


def series() -> dict[str, set[str]]:
    """The labels of all series that a scrape can have, by name."""
    found: dict[str, set[str]] = {}
    for metric in METRICS:
        labels = {*metric.labels, *FOREIGN}
        if metric.kind is Kind.COUNTER:
            found[f"{metric.name}_total"] = labels
        elif metric.kind is Kind.GAUGE:
            found[metric.name] = labels
        else:
            found |= {f"{metric.name}_{suffix}": labels for suffix in ("bucket", "count", "sum")}
    return found


def unknown(expression: str) -> list[str]:
    """Return the names of metrics and labels in a PromQL expression that no scrape has."""
    known = series()
    wrong = [name for name in re.findall(r"\bmailgate_\w+", expression) if name not in known]
    for name, selectors in re.findall(r"\b(mailgate_\w+)\{([^}]*)\}", expression):
        for label in re.findall(r"(\w+)\s*[!=]~?", re.sub(r'"[^"]*"', "", selectors)):
            if label not in known.get(name, ()):
                wrong.append(f"{name}{{{label}}}")
    allowed = set().union(*(known.get(name, set()) for name in re.findall(r"\bmailgate_\w+", expression)))
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        wrong += [f"by {label}" for label in labels.replace(" ", "").split(",") if label not in allowed]
    return wrong


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels of the board that show something."""
    with open(BOARD, encoding="utf-8") as opened:
        board = json.load(opened)
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def expressions() -> list[tuple[str, str]]:
    """The expressions of the board with their panels' titles; its variables have values."""
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*"))
        for panel in panels()
        for target in panel["targets"]
    ]


def legends() -> Iterator[tuple[str, str]]:
    """Yield each expression of the board with its legend."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]


class NamesTests(SynchronousTestCase):
    """The names in both files."""

    def test_alerts(self):
        """The alerts use metrics and labels that exist; so do their texts."""
        with open(ALERTS, encoding="utf-8") as opened:
            text = opened.read()
        found = re.findall(r"^        expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", text, re.MULTILINE)
        self.assertEqual(len(found), text.count("- alert:"))
        for block, line in found:
            self.assertEqual(unknown(block or line), [])
        labels = {label for each in series().values() for label in each}
        self.assertEqual(set(re.findall(r"\$labels\.(\w+)", text)) - labels, set())

    def test_board(self):
        """The board uses metrics and labels that exist; so do its legends."""
        for title, expression in expressions():
            self.assertEqual(unknown(expression), [], title)
        for expression, legend in legends():
            for label in re.findall(r"\{\{(\w+)\}\}", legend):
                self.assertIn(label, expression if "by (" in expression else " ".join(map(str, series().values())))

    def test_boardIsComplete(self):
        """Each metric is on the board."""
        shown = " ".join(expression for _, expression in expressions())
        self.assertEqual([metric.name for metric in METRICS if metric.name not in shown], [])

    def test_places(self):
        """No panel of the board covers another one, and each has a number of its own."""
        cells: set[tuple[int, int]] = set()
        for panel in panels():
            place = panel["gridPos"]
            own = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(own & cells, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            cells |= own
        self.assertEqual(len({panel["id"] for panel in panels()}), len(list(panels())))

    def test_check(self):
        """The check finds names and labels that do not exist."""
        self.assertEqual(unknown("rate(mailgate_reloads_total[5m])"), [])
        self.assertEqual(unknown("rate(mailgate_reloads[5m])"), ["mailgate_reloads"])
        self.assertEqual(unknown('mailgate_workers{status="x"}'), ["mailgate_workers{status}"])
        self.assertEqual(unknown("sum by (worker) (mailgate_users)"), ["by worker"])


class PromtoolTests(SynchronousTestCase):
    """Prometheus itself reads both files."""

    def setUp(self):
        require("promtool")

    def run_(self, *arguments: str) -> None:
        promtool = programPath("promtool")
        assert promtool is not None
        result = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def write(self, content: object) -> str:
        """Write a file in YAML, of which JSON is a part."""
        path: str = self.mktemp()
        with open(path, "w", encoding="utf-8") as opened:
            json.dump(content, opened)
        return path

    def test_alerts(self):
        """The alerts are valid."""
        self.run_("check", "rules", ALERTS)

    def test_board(self):
        """The expressions of the board are valid."""
        rules = [
            {"record": f"board:panel{number}", "expr": expression}
            for number, (_, expression) in enumerate(expressions())
        ]
        self.run_("check", "rules", self.write({"groups": [{"name": "board", "rules": rules}]}))

    def fires(self, alert: str, given: dict[str, str], moment: str, labels: dict[str, str] | None) -> None:
        """
        Run Prometheus over series.

        @param alert: the alert.
        @param given: series in Prometheus' notation, one value a minute.
        @param moment: when to look.
        @param labels: the labels of the alert that fires; L{None} if it must not.
        """
        alerts = [] if labels is None else [{"exp_labels": labels}]
        check = {
            "rule_files": [ALERTS],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in given.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                            "eval_time": moment,
                            "exp_samples": [{"labels": "{}", "value": len(alerts)}],
                        },
                        *(
                            {
                                "expr": "count(ALERTS{"
                                + ", ".join(f'{name}="{value}"' for name, value in each["exp_labels"].items())
                                + f', alertname="{alert}", alertstate="firing"}})',
                                "eval_time": moment,
                                "exp_samples": [{"labels": "{}", "value": 1}],
                            }
                            for each in alerts
                        ),
                    ],
                }
            ],
        }
        self.run_("test", "rules", self.write(check))

    def test_backendDown(self):
        """A backend that is down is reported, one that an operator drains is not."""
        down = 'mailgate_backend_up{backend="10.0.0.1:143"}'
        draining = 'mailgate_backend_draining{backend="10.0.0.1:143"}'
        where = {"backend": "10.0.0.1:143"}
        self.fires("MailgateBackendDown", {down: "1 0x9", draining: "0x10"}, "5m", where)
        self.fires("MailgateBackendDown", {down: "1x10", draining: "0x10"}, "5m", None)
        self.fires("MailgateBackendDown", {down: "1 0x9", draining: "1x10"}, "5m", None)

    def test_loginsFail(self):
        """Logins that fail for now are reported if they are many, wrong passwords are not."""
        logins = 'mailgate_logins_total{{protocol="imap",method="plain",outcome="{}",instance="g1"}}'.format
        good, temporary, denied = logins("accepted"), logins("temporary"), logins("denied")
        self.fires("MailgateLoginsFail", {good: "0+600x20", temporary: "0+100x20"}, "15m", {"instance": "g1"})
        self.fires("MailgateLoginsFail", {good: "0+600x20", temporary: "0+10x20"}, "15m", None)
        self.fires("MailgateLoginsFail", {good: "0+600x20", temporary: "0x20", denied: "0+600x20"}, "15m", None)

    def test_certificate(self):
        """A certificate that expires in less than two weeks is reported."""
        expiry = 'mailgate_certificate_not_after_timestamp_seconds{server="imaps",name="mail.example.org"}'
        self.fires("MailgateCertificateExpires", {expiry: f"{13 * 86400}x90"}, "80m", {"name": "mail.example.org"})
        self.fires("MailgateCertificateExpires", {expiry: f"{16 * 86400}x90"}, "80m", None)

    def test_limits(self):
        """A user whose password is guessed from many networks is reported; a limit with dry_run is not."""
        limited = 'mailgate_limited_total{{rule="{}",action="{}",instance="g1"}}'.format
        where = {"instance": "g1"}
        self.fires("MailgateUserUnderAttack", {limited("R6", "delayed"): "0 0 1+1x20"}, "10m", where)
        self.fires("MailgateUserUnderAttack", {limited("R6", "dry_run"): "0 0 1+1x20"}, "10m", None)
        self.fires("MailgateUserUnderAttack", {limited("R2", "refused"): "0+600x40"}, "30m", None)
        self.fires("MailgateLimitsBusy", {limited("R2", "refused"): "0+600x40"}, "30m", {**where, "rule": "R2"})
        self.fires("MailgateLimitsBusy", {limited("R2", "refused"): "0+60x40"}, "30m", None)

    def test_workerHangs(self):
        """A worker that does not report is noticed."""
        age = 'mailgate_worker_report_age_seconds{worker="0"}'
        self.fires("MailgateWorkerHangs", {age: "0 30 90 150"}, "3m", {"worker": "0"})
        self.fires("MailgateWorkerHangs", {age: "0 1 0 1"}, "3m", None)

    def test_defect(self):
        """A critical line is reported; errors, which backends and services can cause, are not."""
        lines = 'mailgate_log_lines_total{{level="{}",instance="g1"}}'.format
        self.fires("MailgateDefect", {lines("critical"): "0 0 1 1 1"}, "4m", {"instance": "g1"})
        self.fires("MailgateDefect", {lines("critical"): "1x10", lines("error"): "0+60x10"}, "4m", None)

    def test_reload(self):
        """A refused reload is reported; the first one, too, as the counter exists from the start."""
        refused = 'mailgate_reloads_total{result="refused"}'
        self.fires("MailgateReloadRefused", {refused: "0 0 1 1 1"}, "4m", {"severity": "warning"})
        self.fires("MailgateReloadRefused", {refused: "0x10"}, "4m", None)
