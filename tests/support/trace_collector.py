"""A collector of traces, which takes OTLP over HTTP from a server process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.threads import in_a_thread

LISTED = ("string_value", "int_value", "double_value", "bool_value")


@dataclass(frozen=True)
class CollectedSpan:
    """ids: in hexadecimal. is_error: whether its status says so."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    is_error: bool
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass
class Collector:
    """url: for OTEL_EXPORTER_OTLP_ENDPOINT. answers: False: it takes requests and never answers."""

    url: str
    answers: bool = True
    asked: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _spans: queue.SimpleQueue[CollectedSpan] = field(default_factory=queue.SimpleQueue)

    def spans(self) -> list[CollectedSpan]:
        """Those that have come since it was last asked."""
        return [self._spans.get_nowait() for _ in range(self._spans.qsize())]

    def take(self, body: bytes) -> None:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _attributes(group.resource.attributes)
            for span in (span for scope in group.scope_spans for span in scope.spans):
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                attributes = _attributes(span.attributes)
                self._spans.put(CollectedSpan(span.name, *ids, span.status.code == 2, attributes, resource))


def _attributes(listed: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in listed}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in LISTED else [_value(each) for each in value.array_value.values]


@contextmanager
def trace_collector(*, answers: bool = True) -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.asked.set()
            if not collector.answers:
                collector.ended.wait()
                return
            assert self.path == "/v1/traces"
            collector.take(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}", answers)
    with in_a_thread(server):
        try:
            yield collector
        finally:
            collector.ended.set()
