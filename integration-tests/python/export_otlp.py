"""Exports metrics with the OpenTelemetry SDK, and prints what it recorded and what was answered, as lines of JSON.

    export_otlp.py ENDPOINT each        one metric of each kind, exported once
    export_otlp.py ENDPOINT many COUNT FILE
                                        COUNT exports, one after the other, a line for each that was answered; the
                                        last one when there is such a file
    export_otlp.py URL http             a counter and an exponential histogram, exported once over HTTP, packed
"""

import json
import logging
import math
import os
import sys
import time

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource

# Between two exports, so that no two are of one millisecond and a crash falls between them.
PAUSE_SECONDS = 0.02
# Longer than a server takes to come back: an export is sent again until it is answered.
TIMEOUT_SECONDS = 60


def say(**line):
    print(json.dumps(line), flush=True)


class Answers:
    """Looks at what goes over the wire; changes nothing of it."""

    def __init__(self, exporter):
        self.points = self.rejected = self.answered = 0
        self.message = ""
        self.scales = []
        stub = exporter._stub
        # The exporter makes its stub anew when a connection breaks.
        exporter._stub = lambda channel: self.watched(stub(channel))
        exporter._initialize_channel_and_stub()

    def watched(self, client):
        export = client.Export
        client.Export = lambda request, **options: self.look(request, export(request=request, **options))
        return client

    def look(self, request, response):
        for metric in metrics_of(request):
            kind = metric.WhichOneof("data")
            points = getattr(metric, kind).data_points
            self.points += len(points)
            if kind == "exponential_histogram":
                self.scales += [point.scale for point in points]
        self.answered += 1
        self.rejected += response.partial_success.rejected_data_points
        self.message = response.partial_success.error_message
        return response


def metrics_of(request):
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def provider_of(endpoint, instance, views=(), temporality=None):
    exporter = OTLPMetricExporter(
        endpoint=endpoint,
        insecure=True,
        timeout=TIMEOUT_SECONDS,
        preferred_temporality=temporality,
    )
    return provider_with(exporter, instance, views), Answers(exporter)


def provider_with(exporter, instance, views):
    reader = PeriodicExportingMetricReader(
        exporter, export_interval_millis=math.inf, export_timeout_millis=TIMEOUT_SECONDS * 1000
    )
    resource = Resource.create(
        {
            "service.namespace": "shop",
            "service.name": "cart",
            "service.instance.id": instance,
            "host.name": "h1",
        }
    )
    return MeterProvider(metric_readers=[reader], resource=resource, views=views)


def each(endpoint):
    boundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]
    views = [
        View(instrument_name="latency", aggregation=ExplicitBucketHistogramAggregation(boundaries)),
        View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation()),
    ]
    provider, answers = provider_of(endpoint, "each", views)
    meter = provider.get_meter("shop", "1.0")
    requests = meter.create_counter("cart.requests", "1", "Requests")
    requests.add(2, {"http.method": "GET"})
    requests.add(3, {"http.method": "GET"})
    requests.add(1, {"http.method": "PUT"})
    items = meter.create_up_down_counter("cart.items", "{item}")
    items.add(7)
    items.add(-4)
    meter.create_gauge("temperature", "Cel").set(21.5)
    # Between 2 ms and 0.8 s, and between 1 and 8,000 bytes, evenly on a logarithmic scale.
    latencies = [0.002 * 400 ** (i / 999) for i in range(1000)]
    sizes = [8000 ** (i / 999) for i in range(1000)]
    latency, size = meter.create_histogram("latency", "s"), meter.create_histogram("size", "By")
    span = trace.NonRecordingSpan(
        trace.SpanContext(0xABCDEF, 0x1234, False, trace.TraceFlags(trace.TraceFlags.SAMPLED))
    )
    with trace.use_span(span):
        for value in latencies:
            latency.record(value)
        for value in sizes:
            size.record(value)
    assert provider.force_flush(TIMEOUT_SECONDS * 1000)
    say(
        points=answers.points,
        rejected=answers.rejected,
        message=answers.message,
        latencies=latencies,
        boundaries=boundaries,
        sizes=sizes,
        scales=answers.scales,
    )


def many(endpoint, count, file):
    # Histograms as deltas: a point of each export that is rejected.
    provider, answers = provider_of(
        endpoint, "many", temporality={Histogram: AggregationTemporality.DELTA}
    )
    meter = provider.get_meter("shop")
    work = meter.create_counter("work")
    meter.create_observable_gauge("load", [lambda _: [Observation(0.5)]])
    duration = meter.create_histogram("duration", "s")
    for number in range(count):
        while number == count - 1 and not os.path.exists(file):
            time.sleep(PAUSE_SECONDS)
        for worker in range(20):
            work.add(worker + 1, {"worker": worker})
        duration.record(0.1)
        while answers.answered == number:
            provider.force_flush(TIMEOUT_SECONDS * 1000)
        say(answered=answers.answered, points=answers.points, rejected=answers.rejected, message=answers.message)
        time.sleep(PAUSE_SECONDS)


def http(url):
    exporter = HttpExporter(endpoint=url, compression=Compression.Gzip, timeout=TIMEOUT_SECONDS)
    views = [View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())]
    provider = provider_with(exporter, "http", views)
    meter = provider.get_meter("shop")
    meter.create_counter("cart.requests").add(5, {"http.method": "GET"})
    size = meter.create_histogram("size", "By")
    for value in range(1, 101):
        size.record(value)
    assert provider.force_flush(TIMEOUT_SECONDS * 1000)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    endpoint, what = sys.argv[1:3]
    if what == "each":
        each(endpoint)
    elif what == "http":
        http(endpoint)
    else:
        many(endpoint, int(sys.argv[3]), sys.argv[4])
