"""``/healthz``, ``/readyz`` and ``/metrics``: plain HTTP on loopback, for supervisors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ntmd.runtime.udp import bind_complaint

ADDRESS = "127.0.0.1"
REQUEST_MAX = 8192
REQUEST_SECONDS = 5.0
UNFIT = re.compile(r"[^a-zA-Z0-9_]")

Metrics = Mapping[str, Mapping[str, Any]]


class Health:
    """Serves until :meth:`close`. ``metrics`` gives each role's numbers, ``ready`` says so."""

    def __init__(self, metrics: Callable[[], Metrics], ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> None:
        """Listen; Complaint if the port is taken."""
        try:
            self._server = await asyncio.start_server(self._serve, ADDRESS, port, limit=REQUEST_MAX)
        except OSError as error:
            raise bind_complaint("TCP", ADDRESS, port, error) from error

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._answer(head)
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # nobody we could answer
        finally:
            writer.close()

    def _answer(self, head: bytes) -> tuple[str, str, bytes]:
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        target = parts[1].partition(b"?")[0] if len(parts) == 3 else b""
        text = "text/plain; charset=utf-8"
        if len(parts) != 3 or parts[0] not in (b"GET", b"HEAD"):
            return "405 Method Not Allowed", text, b"only GET\n"
        if target == b"/healthz":
            return "200 OK", text, b"ok\n"
        if target == b"/readyz":
            ready = self._ready()
            return (
                ("200 OK", text, b"ready\n")
                if ready
                else ("503 Service Unavailable", text, b"starting\n")
            )
        if target == b"/metrics":
            return "200 OK", CONTENT_TYPE_LATEST, render(self._metrics())
        return "404 Not Found", text, b"/healthz, /readyz, /metrics\n"


def render(metrics: Metrics) -> bytes:
    """Prometheus text: ``ntm_<role>_<name>``; an inner mapping becomes the label ``kind``."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    return generate_latest(registry)


class _Collector:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """One family for each number and each mapping of numbers."""
        for role, values in self._metrics.items():
            for name, value in values.items():
                family = f"ntm_{role}_{UNFIT.sub('_', name)}"
                if isinstance(value, Mapping):
                    labelled = GaugeMetricFamily(family, f"{name} of the {role}", labels=["kind"])
                    for kind, number in value.items():
                        if isinstance(number, bool | int | float):
                            labelled.add_metric([str(kind)], float(number))
                    yield labelled
                elif isinstance(value, bool | int | float):
                    yield GaugeMetricFamily(family, f"{name} of the {role}", value=float(value))
