"""What Prometheus is told of the page's server: the only place where these names exist."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
REQUESTS = Counter(
    "tally_page_requests_total", "Requests answered, by view and status.", ["view", "status"], registry=REGISTRY
)
SECONDS = Histogram(
    "tally_page_request_seconds",
    "From a request to its answer, by view.",
    ["view"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
    registry=REGISTRY,
)
RUNS = Gauge("tally_page_runs", "Runs of the folder, as last listed.", registry=REGISTRY)
SIGHTS = Gauge("tally_page_sights", "Runs whose numbers are kept in memory.", registry=REGISTRY)
