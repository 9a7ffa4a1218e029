"""Throughput and latency of the HTTP service, measured from a second process over loopback.

Loads: several numbers of connections, with and without batching; a fixed rate; during reloads; and twice the
highest throughput measured, where refusals (429 with Retry-After) are counted separately. The benchmark fails
if a request is lost or gets status 500 or above. Without --artifact it serves random weights on a catalogue of
the size of Amazon Beauty with random codes, which hardly changes the cost of a request.

    python benchmarks/serving.py --json
    python benchmarks/serving.py --artifact out/demo --seconds 5 --connections 64
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HISTORY = 20  # items per request
RATE = 200.0  # requests per second; the target for two cores is a p99 below 150 ms at this rate
MAX_CONNECTIONS = 1000


def write_artifact(folder: Path, n_items: int) -> None:
    """Write a hierarchical model with random weights: 3 levels of 256 codes, and the deduplication level."""
    import polars as pl
    import torch

    from rqrec.core.artifact import create
    from rqrec.data.catalog import Catalog
    from rqrec.data.ids import IdMap
    from rqrec.models.architectures import ARCHITECTURES, build_model
    from rqrec.retrieval.artifact import RetrievalArtifact, write_retrieval
    from rqrec.tokenizer.semantic_ids import SemanticIdTable

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    codes_NL = (256 * rng.random((n_items, 3)) ** 1.5).astype(np.int64)
    ids = [str(item) for item in range(n_items)]
    table = SemanticIdTable.from_codes(IdMap(ids), codes_NL, (256, 256, 256), "random")
    model = build_model(ARCHITECTURES["hierarchical"].config(table.level_sizes)).eval()
    titles = [f"Item {item}" for item in ids]
    catalog = Catalog(pl.DataFrame({"item_id": ids, "title": titles, "text": titles}))
    with create(folder, "retrieval") as target:
        write_retrieval(target, RetrievalArtifact(model, table, catalog))


@contextmanager
def running_service(artifact: Path, *options: str, timeout: float = 60) -> Iterator[tuple[int, int]]:
    """Run the service in its own process; yields port and process id. Raises RuntimeError on a bad exit status.

    `timeout`: seconds of a request; long, so that slow requests are measured.
    """
    fixed = ("--port", "0", "--timeout", str(timeout))
    command = [sys.executable, "-m", "rqrec", "serve", "--artifact", str(artifact), *fixed, *options]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stderr=log, text=True)
        try:
            port = None
            while port is None:
                time.sleep(0.1)
                log.seek(0)
                lines = [json.loads(line) for line in log.read().splitlines() if line.startswith("{")]
                port = next((line["port"] for line in lines if line["message"] == "listening"), None)
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(f"The service did not start: {log.read()}")
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            if status := process.wait(60):
                raise RuntimeError(f"The service stopped with status {status}.")


class Connection:
    """A minimal HTTP/1.1 client on one connection, to keep the client's own cost low."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Send one request; returns status and head of the response."""
        self._writer.write(
            b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(head[9:12]), head

    def close(self) -> None:
        self._writer.close()


@dataclass
class Outcome:
    """Results of the requests of one load."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # latencies of requests with status 200
    lost: int = 0
    without_retry_after: int = 0
    duration: float = 0.0

    async def send(self, connection: Connection, body: bytes) -> None:
        """Send one request and record its result; it counts as lost if the connection fails."""
        start = time.perf_counter()
        try:
            status, head = await connection.post(body)
        except (OSError, asyncio.IncompleteReadError):
            self.lost += 1
            raise
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - start)
        elif status == 429:
            self.without_retry_after += b"retry-after:" not in head

    def summary(self) -> dict[str, Any]:
        """Summary statistics; latencies in milliseconds."""
        quantiles = np.quantile(self.seconds or [np.nan], [0.5, 0.95, 0.99]) * 1e3
        return {
            "requests": sum(self.statuses.values()),
            "requests_per_second": round(self.statuses[200] / self.duration, 1),
            **{f"p{p}_ms": round(float(ms), 1) for p, ms in zip((50, 95, 99), quantiles, strict=True)},
            "refused_429": self.statuses[429],
            "429_without_retry_after": self.without_retry_after,
            "other_statuses": {str(s): n for s, n in self.statuses.items() if s not in (200, 429)},
            "lost": self.lost,
        }


def random_bodies(items: list[str]) -> Callable[[], bytes]:
    """A source of request bodies with random histories."""
    rng = np.random.default_rng(1)
    prepared = [
        json.dumps({"history": [items[i] for i in rng.integers(0, len(items), HISTORY)]}).encode()
        for _ in range(1000)
    ]
    return lambda: prepared[int(rng.integers(len(prepared)))]


async def closed_loop(port: int, body: Callable[[], bytes], connections: int, seconds: float) -> Outcome:
    """Each connection sends its next request as soon as the previous one is answered."""
    outcome, end = Outcome(), time.perf_counter() + seconds

    async def client() -> None:
        connection = await Connection.open(port)
        while time.perf_counter() < end:
            await outcome.send(connection, body())
        connection.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)), return_exceptions=True)
    outcome.duration = time.perf_counter() - start
    return outcome


async def paced(port: int, body: Callable[[], bytes], rate: float, seconds: float) -> Outcome:
    """Send requests at a fixed rate, whether or not earlier ones have been answered."""
    outcome, idle, tasks = Outcome(), [], []
    opened = 0

    async def one() -> None:
        nonlocal opened
        if idle:
            connection = idle.pop()
        elif opened < MAX_CONNECTIONS:
            opened += 1
            connection = await Connection.open(port)
        else:
            outcome.statuses[0] += 1  # the client's limit, reported as status 0: not the service's fault
            return
        await outcome.send(connection, body())
        idle.append(connection)

    start = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks, return_exceptions=True)
    outcome.duration = time.perf_counter() - start
    for connection in idle:
        connection.close()
    return outcome


def item_ids(port: int) -> list[str]:
    """Some ids of the served catalogue."""
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}/v1/items?page_size=100") as response:
        return [item["item_id"] for item in json.load(response)["items"]]


async def while_reloading(port: int, pid: int, body: Callable[[], bytes], seconds: float) -> Outcome:
    """16 connections in a closed loop while the artefact is reloaded every second."""

    async def reload() -> None:
        for _ in range(max(1, int(seconds) - 1)):
            os.kill(pid, signal.SIGHUP)
            await asyncio.sleep(1.0)

    outcome, _ = await asyncio.gather(closed_loop(port, body, 16, seconds), reload())
    return outcome


def measure(artifact: Path, connections: list[int], seconds: float, device: str) -> Iterator[dict[str, Any]]:
    """One row per load."""

    def row(outcome: Coroutine[Any, Any, Outcome], **names: Any) -> dict[str, Any]:
        return {**names, **asyncio.run(outcome).summary()}

    best = 0.0
    for max_batch in (1, 32):
        with running_service(artifact, "--max-batch", str(max_batch), "--device", device) as (port, pid):
            body = random_bodies(item_ids(port))
            asyncio.run(closed_loop(port, body, 8, min(2.0, seconds)))  # warm-up
            for count in connections:
                load = closed_loop(port, body, count, seconds)
                yield (result := row(load, load="closed", connections=count, max_batch=max_batch))
                best = max(best, result["requests_per_second"])
            if max_batch > 1:
                yield row(paced(port, body, RATE, seconds), load="paced", rate=RATE, max_batch=max_batch)
                load = while_reloading(port, pid, body, seconds)
                yield row(load, load="reloading", connections=16, max_batch=max_batch)
                load = paced(port, body, 2 * best, seconds)
                yield row(load, load="overload", rate=round(2 * best), max_batch=max_batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--artifact",
        type=Path,
        help="a retrieval model or its run; by default one with random weights is written",
    )
    parser.add_argument("--items", type=int, default=12_101, help="size of the catalogue without --artifact")
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each load")
    parser.add_argument("--device", default="cpu", help="of the service")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rqrec-benchmark-") as scratch:
        artifact = options.artifact or Path(scratch) / "retrieval"
        if not options.artifact:
            write_artifact(artifact, options.items)
        rows = []
        for row in measure(artifact, options.connections, options.seconds, options.device):
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr, flush=True)
    failed = any(row["lost"] or any(int(s) >= 500 for s in row["other_statuses"]) for row in rows)
    if options.json:
        header = {"benchmark": "serving", "cores": os.cpu_count(), "history": HISTORY, "failed": failed}
        print(json.dumps({**header, "rows": rows}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
