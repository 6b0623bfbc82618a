"""What happened, as numbers for Prometheus: vLLM's names behind our own prefix, so that its dashboards port."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smallpress.server.worker import Stream

if TYPE_CHECKING:
    from smallpress.server.hosted import Hosted

PREFIX = "smallpress:"
SECONDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072)


class Histogram:
    """Counts of values up to each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, label: str) -> Iterator[str]:
        running = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            running += count
            yield f'{name}_bucket{{{label},le="{bound}"}} {running}'
        yield f"{name}_sum{{{label}}} {self.sum:.9g}"
        yield f"{name}_count{{{label}}} {running}"


HISTOGRAMS = {
    "time_to_first_token_seconds": ("From submission to the first token.", SECONDS),
    "inter_token_latency_seconds": ("Between two tokens of one request.", SECONDS),
    "e2e_request_latency_seconds": ("From submission to the last token.", SECONDS),
    "request_queue_time_seconds": ("Waiting for a place.", SECONDS),
    "request_prefill_time_seconds": ("From a place to the first token.", SECONDS),
    "request_decode_time_seconds": ("From the first token to the last.", SECONDS),
    "request_prompt_tokens": ("Tokens of a prompt.", TOKENS),
    "request_generation_tokens": ("Tokens of a completion.", TOKENS),
}


@dataclass
class Metrics:
    """Of one model, written on the event loop only."""

    finished: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram(bounds) for name, (_, bounds) in HISTOGRAMS.items()}
    )

    def ended(self, stream: Stream) -> None:
        """A request is over, in whichever way."""
        times, done = stream.times, stream.completion
        self.finished[
            "error" if done is None else "abort" if done.finish_reason == "cancelled" else done.finish_reason
        ] += 1
        seen: dict[str, float] = {}
        if times.admitted:
            seen["request_queue_time_seconds"] = times.admitted - times.submitted
        if times.first:
            seen["time_to_first_token_seconds"] = times.first - times.submitted
            seen["request_prefill_time_seconds"] = times.first - times.admitted
            seen["request_decode_time_seconds"] = times.last - times.first
            seen["e2e_request_latency_seconds"] = times.last - times.submitted
        if done is not None:
            seen |= {"request_prompt_tokens": done.n_prompt, "request_generation_tokens": len(done.ids)}
        for name, value in seen.items():
            self.histograms[name].observe(max(value, 0.0))
        for gap in times.gaps:
            self.histograms["inter_token_latency_seconds"].observe(gap)


def prometheus(models: Iterable["Hosted"]) -> str:
    """The text of /metrics: each name once, with a line for each model that is loaded."""
    loaded = [(model, f'model_name="{_escaped(model.name)}"') for model in models if model.engine is not None]
    lines: list[str] = []

    def family(name: str, kind: str, help: str, samples: Iterable[str]) -> None:
        lines.extend((f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} {kind}", *samples))

    stats = [(m.engine.stats(), label) for m, label in loaded if m.engine is not None and m.parent is None]
    for name, kind, help, values in (
        ("num_requests_running", "gauge", "In the batch.", [s.n_running for s, _ in stats]),
        ("num_requests_waiting", "gauge", "In line.", [s.n_waiting for s, _ in stats]),
        ("kv_cache_usage_perc", "gauge", "Share of the cache in use.", [s.pages_held / s.n_pages for s, _ in stats]),
        ("prefix_cache_queries_total", "counter", "Prompt tokens looked up in the cache.",
         [s.cached_tokens + s.prefill_tokens for s, _ in stats]),
        ("prefix_cache_hits_total", "counter", "Prompt tokens found there.", [s.cached_tokens for s, _ in stats]),
        ("prefix_cache_disk_hits_total", "counter", "Of these, prompt tokens that came back from disk.",
         [s.loaded_tokens for s, _ in stats]),
        ("prompt_tokens_total", "counter", "Prompt tokens computed.", [s.prefill_tokens for s, _ in stats]),
        ("generation_tokens_total", "counter", "Tokens generated.", [s.new_tokens for s, _ in stats]),
        ("num_preemptions_total", "counter", "Requests that gave their place back.", [s.n_preempted for s, _ in stats]),
        ("engine_busy_seconds_total", "counter", "Time spent in steps.", [round(s.busy_seconds, 6) for s, _ in stats]),
    ):  # fmt: skip
        pairs = zip(stats, values, strict=True)
        family(name, kind, help, [f"{PREFIX}{name}{{{label}}} {value}" for (_, label), value in pairs])
    family("request_success_total", "counter", "Requests that ended, by how.", [
        f'{PREFIX}request_success_total{{{label},finished_reason="{reason}"}} {count}'
        for model, label in loaded for reason, count in sorted(model.metrics.finished.items())
    ])  # fmt: skip
    for name, (help, _) in HISTOGRAMS.items():
        found = [line for m, label in loaded for line in m.metrics.histograms[name].lines(PREFIX + name, label)]
        family(name, "histogram", help, found)
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
