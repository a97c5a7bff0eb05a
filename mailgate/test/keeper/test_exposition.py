"""
Tests for L{mailgate.keeper.exposition}. Prometheus' own checker is in
L{mailgate.test.integration.test_prometheus}.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parseOpenMetrics
from prometheus_client.parser import text_string_to_metric_families as parseText
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper import exposition
from mailgate.keeper.exposition import OPEN_METRICS, TEXT, Exposition, MetricsMissing, expose
from mailgate.keeper.ownprocess import ownProcess
from mailgate.session import Outcome
from mailgate.watch.distinct import hashed, smallest
from mailgate.watch.metrics import METRICS, Kind, Merge
from mailgate.watch.tally import Tally, Totals

OPEN = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


def everything() -> Totals:
    """A value of each metric."""
    tally = Tally()
    totals: Totals = {}
    for metric in METRICS:
        labels = tuple(f"a {label}" for label in metric.labels)
        if metric.kind is Kind.COUNTER:
            tally.count(metric.name, labels, 3)
        elif metric.kind is Kind.HISTOGRAM:
            tally.observe(metric.name, labels, 0.02)
        else:
            value = smallest([hashed(b"joe"), hashed(b"amy")]) if metric.merge is Merge.UNION else 3
            totals[metric.name] = [[list(labels), value]]
    return {**tally.totals(), **totals}


class ExpositionTests(SynchronousTestCase):
    """L{Exposition}."""

    def setUp(self) -> None:
        self.exposition = Exposition()

    def text(self, totals: Totals, accept: str = "") -> str:
        written, _ = self.exposition.write(totals, accept)
        return written.decode("utf-8")

    def test_types(self) -> None:
        """The header Accept chooses the format."""
        for accept, expected in (("", TEXT), ("*/*", TEXT), ("text/plain", TEXT), (OPEN, OPEN_METRICS)):
            written, kind = self.exposition.write({}, accept)
            self.assertEqual(kind, expected)
            self.assertEqual(written.endswith(b"# EOF\n"), expected == OPEN_METRICS)

    def test_all(self) -> None:
        """Each metric is written, in both formats, with its type and its value."""
        for accept, parse in (("", parseText), (OPEN, parseOpenMetrics)):
            families = {family.name: family for family in parse(self.text(everything(), accept))}
            for metric in METRICS:
                family = families[metric.name]
                self.assertEqual(family.type, metric.kind.value, metric.name)
                values = {sample.name: sample.value for sample in family.samples}
                if metric.kind is Kind.COUNTER:
                    self.assertEqual(values, {f"{metric.name}_total": 3.0})
                elif metric.kind is Kind.GAUGE:
                    self.assertEqual(values, {metric.name: 2.0 if metric.merge is Merge.UNION else 3.0})
                else:
                    self.assertEqual((values[f"{metric.name}_count"], values[f"{metric.name}_sum"]), (1.0, 0.02))

    def test_function(self) -> None:
        """The admin server calls a function, with one exposition for the process."""
        for accept, expected in (("", TEXT), (OPEN, OPEN_METRICS)):
            written, kind = expose(everything(), accept)
            self.assertEqual(kind, expected.encode())
            self.assertIn(b"mailgate_users 2.0", written)

    def test_names(self) -> None:
        """Counters end with C{_total} once, and nothing ends with C{_created}."""
        for accept in ("", OPEN):
            names = re.findall("^(mailgate[a-z_]*)", self.text(everything(), accept), re.MULTILINE)
            self.assertTrue(names)
            for name in names:
                self.assertNotIn("_total_total", name)
                self.assertFalse(name.endswith("_created"), name)

    def test_process(self) -> None:
        """The keeper's own process, and the versions."""
        text = self.text({})
        for name in ("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_start_time_seconds"):
            self.assertGreater(self.number(name, text), 2**20)
        self.assertGreater(self.number("process_cpu_seconds_total", text), 0)
        self.assertGreater(self.number("process_max_fds", text), self.number("process_open_fds", text))
        self.assertGreater(self.number("process_open_fds", text), 2)
        self.assertIn("\npython_gc_collections_total{", text)
        self.assertRegex(
            text, r'\nmailgate_build_info\{openssl="[^"]+",python="[^"]+",twisted="[^"]+",version="[^"]+"\} 1'
        )

    def number(self, name: str, text: str) -> float:
        (value,) = re.findall(f"^{name} (.*)$", text, re.MULTILINE)
        return float(value)

    def test_started(self) -> None:
        """The start of the process is that of the system's clock."""
        started = self.number("process_start_time_seconds", self.text({}))
        self.assertTrue(0 <= time.time() - started < 24 * 3600, started)

    def test_noProc(self) -> None:
        """Where the system says nothing, only the CPU time and the limit are left."""
        found = [name for name, _ in ownProcess(self.mktemp())]
        self.assertEqual(found, ["process_cpu_seconds", "process_max_fds"])

    def test_escaped(self) -> None:
        """Label values cannot break a line or a text."""
        value = 'a"b\\c\nmailgate_users 99'
        for accept, parse in (("", parseText), (OPEN, parseOpenMetrics)):
            families = list(parse(self.text({"mailgate_auth_cache": [[[value], 1]]}, accept)))
            (cache,) = [family for family in families if family.name == "mailgate_auth_cache"]
            self.assertEqual([sample.labels for sample in cache.samples], [{"result": value}])

    def test_bounded(self) -> None:
        """100,000 backends, ciphers and servers are few series, and no observation is lost."""
        count = 100_000
        totals: Totals = {
            "mailgate_sessions_relayed": [[["imap", f"192.0.2.{number}:143"], 1] for number in range(count)],
            "mailgate_tls_ciphers": [[["TLSv1.3", f"CIPHER{number}"], 1] for number in range(count)],
            "mailgate_connections": [[[f"server{number}", "imap"], 1] for number in range(count)],
            "mailgate_connections_ended": [[["imap", outcome.name], 1] for outcome in Outcome],
        }
        text = self.text(totals)
        self.assertLess(len(text.splitlines()), 1000)
        for family in parseText(text):
            if f"{family.name}" in totals and "ended" not in family.name:
                self.assertEqual(sum(sample.value for sample in family.samples), count, family.name)
        first = self.exposition.write(totals)[0].splitlines()
        self.assertEqual(len(first), len(text.splitlines()))

    def test_stays(self) -> None:
        """What is exported once has its own name for ever: a counter must not fall."""
        self.text({"mailgate_tls_ciphers": [[["TLSv1.3", f"C{number}"], 1] for number in range(20)]})
        text = self.text({"mailgate_tls_ciphers": [[["TLSv1.3", f"C{number}"], 5] for number in reversed(range(40))]})
        self.assertIn('mailgate_tls_ciphers_total{cipher="C7",version="TLSv1.3"} 5.0', text)
        self.assertIn('mailgate_tls_ciphers_total{cipher="other",version="TLSv1.3"} 100.0', text)

    def test_configured(self) -> None:
        """Backends of the configuration keep their names, whatever an authentication service names."""
        hostile = [[["imap", f"192.0.2.{number}:143"], 1] for number in range(100)]
        own = ["imap", "10.0.0.1:143"]
        totals: Totals = {
            "mailgate_sessions_relayed": [*hostile, [own, 7]],
            "mailgate_backend_up": [[["10.0.0.1:143"], 1]],
        }
        self.assertIn('mailgate_sessions_relayed{backend="10.0.0.1:143",protocol="imap"} 7.0', self.text(totals))

    def test_strange(self) -> None:
        """Rows with other labels or buckets, of another release perhaps, are left out."""
        totals: Totals = {
            "mailgate_auth_cache": [[["hit", "x"], 1]],
            "mailgate_login_seconds": [[["imap"], [1, 2, 3.0]]],
            "mailgate_news": [[[], 1]],
        }
        text = self.text(totals)
        self.assertNotIn("mailgate_news", text)
        self.assertNotIn("mailgate_auth_cache_total{", text)
        self.assertNotIn("mailgate_login_seconds_bucket", text)

    def test_missing(self) -> None:
        """Without prometheus_client the error says what to install."""
        self.patch(exposition, "_missing", ImportError("No module named 'prometheus_client'"))
        error = self.assertRaises(MetricsMissing, Exposition)
        self.assertIn('install "mailgate[metrics]"', str(error))

    def test_alone(self) -> None:
        """The module can be imported without prometheus_client."""
        program = (
            "import sys; sys.modules['prometheus_client'] = None; sys.modules['prometheus_client.core'] = None\n"
            "from mailgate.keeper.exposition import Exposition, MetricsMissing\n"
            "try: Exposition()\nexcept MetricsMissing as error: print(error)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        self.assertIn("mailgate[metrics]", done.stdout, done.stderr)
