"""What honest clients of the service notice of hostile ones, and of a catalogue that changes.

Honest clients ask for recommendations at a fixed rate, whether or not earlier requests have been answered, each on a
connection of its own. Loads: nothing else ("quiet"); all kinds of hostile clients at once, from a process of their
own ("attacked"); items that are renamed, added and removed, and reloads of the model, one after another ("changing").
In the last, each answer must belong to one version of the catalogue: no older than the last change that was confirmed
before the request was sent. The benchmark fails if an honest request fails, or an answer is of no single version.

The loads of a round follow one another, so on a machine that others share the ratio of a round says more than
either of its figures, and several rounds more than one.

Without --artifact the service has a joined model with random weights.

    python benchmarks/disturbed.py --json
    python benchmarks/disturbed.py --loads quiet attacked --rounds 5
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from items import DIM, write_model

from serving import random_bodies, running_service

HOST = "127.0.0.1"
TOKEN = "benchmark"
LIMIT = 10.0  # seconds that a request may take
RENAMED, REMOVED = 50, 20  # items that change, of those that are recommended most
GOAL = 2.0  # how much larger the p99 of honest clients may be than when it is quiet


def request_of(
    body: bytes,
    method: str = "POST",
    path: str = "/v1/recommendations",
    host: str = "localhost",
    extra: str = "",
) -> bytes:
    """The bytes of a request that closes its connection."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    )
    return f"{head}{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to a request. Raises OSError, or ValueError if the answer is not complete."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body
    except IndexError as error:
        raise ValueError("no answer") from error
    finally:
        writer.close()


# Honest clients


@dataclass
class Outcome:
    """What honest clients got."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        quantiles = np.quantile(self.seconds or [np.nan], [0.5, 0.99, 1]) * 1e3
        return {
            "requests": len(self.seconds) + self.errors.total(),
            **{
                f"{name}_ms": round(float(ms), 1)
                for name, ms in zip(("p50", "p99", "max"), quantiles, strict=True)
            },
            "errors": dict(self.errors),
        }


class AnyVersion:
    """The check of answers while nothing changes."""

    def sent(self) -> Any:
        """What is known when a request is sent."""

    def fault(self, before: Any, items: Sequence[dict[str, Any]]) -> str:
        """What is wrong with recommended items; empty if nothing is."""
        return "" if items else "no items"


async def honest(
    port: int, body: Callable[[], bytes], rate: float, seconds: float, check: AnyVersion
) -> Outcome:
    """Requests at a fixed rate."""
    outcome = Outcome()

    async def one(due: float) -> None:
        before = check.sent()
        try:
            async with asyncio.timeout(LIMIT):
                status, answer = await ask(port, request_of(body()))
        except (OSError, ValueError, TimeoutError) as error:
            outcome.errors[type(error).__name__] += 1
            return
        took = time.perf_counter() - due
        if status != 200:
            outcome.errors[f"status {status}"] += 1
        elif fault := check.fault(before, json.loads(answer)["recommendations"][0]["items"]):
            outcome.errors[fault] += 1
        else:
            outcome.seconds.append(took)

    start, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return outcome


# Hostile clients


async def send(port: int, data: bytes, stay: float, drip: bytes = b"", every: float = 1.0) -> None:
    """Send bytes, then some more every so often, and leave after `stay` seconds without having read anything."""
    _, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(data)
        end = time.monotonic() + stay
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(every, left))
            if drip:
                writer.write(drip)
                await writer.drain()
    finally:
        writer.transport.abort()


def heavy(items: list[str], histories: int, k: int) -> bytes:
    """As much work as one request may ask for: the longest histories, and explanations."""
    rng = np.random.default_rng(0)
    lists = [[items[i] for i in rng.integers(0, len(items), 1000)] for _ in range(histories)]
    return request_of(json.dumps({"histories": lists, "k": k, "explain": True}).encode())


ODD_BODIES = [
    b"",
    b"{",
    b"null",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"history": ' + b"9" * 100_000 + b"}",
    b'{"history": ["' + b"a" * 900_000 + b'"]}',
    b'{"history": [], "k": 1e400}',
    b'{"history": ["1"], "where": "' + b"(" * 5000 + b'"}',
    json.dumps({"histories": [["x"] * 1000] * 64, "unknown": "raise"}).encode(),
]
HEAD = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\n"


def hostile_clients(port: int, items: list[str]) -> dict[str, tuple[int, float, Callable[[int], Coroutine]]]:
    """By kind: how many clients there are, seconds that each waits between attempts, and an attempt.

    An attempt gets its number. The last kind is connections: more than the service lets be open.
    """
    largest = [heavy(items, 16, 100), heavy(items, 64, 25)]
    return {
        "largest requests": (4, 0.0, lambda n: ask(port, largest[n % 2])),
        "early leavers": (2, 0.2, lambda n: send(port, largest[n % 2], 0.05)),
        "slow headers": (20, 0.0, lambda n: send(port, HEAD, 30, b"X-A: b\r\n")),
        "slow bodies": (20, 0.0, lambda n: send(port, HEAD + b"Content-Length: 9999\r\n\r\n", 30, b" ")),
        "huge headers": (2, 0.2, lambda n: ask(port, HEAD + b"X-A: " + b"a" * 50_000 + b"\r\n\r\n")),
        "endless headers": (2, 0.2, lambda n: send(port, HEAD + b"X-A: ", 1, b"a" * 50_000, 0.01)),
        "odd bodies": (2, 0.1, lambda n: ask(port, request_of(ODD_BODIES[n % len(ODD_BODIES)]))),
        "not HTTP": (2, 0.1, lambda n: ask(port, b"\x16\x03\x01\x02\x00\x01\x00\xff\r\n\r\n")),
        "wrong host": (2, 0.1, lambda n: ask(port, request_of(b"{}", host="attacker.example"))),
        "readers of nothing": (
            5,
            0.0,
            lambda n: send(port, request_of(b"", "GET", "/v1/items?page_size=100"), 5),
        ),
        "half-open connections": (1200, 0.0, lambda n: send(port, b"", 20)),
    }


async def attack(port: int, items: list[str], seconds: float, kinds: Sequence[str]) -> Counter[str]:
    """All kinds of hostile clients at once; returns the attempts of each kind."""
    attempts: Counter[str] = Counter()

    async def client(kind: str, pause: float, attempt: Callable[[int], Coroutine]) -> None:
        await asyncio.sleep(np.random.default_rng().uniform(0, 2))
        while True:
            attempts[kind] += 1
            try:
                await attempt(attempts[kind])
            except (OSError, ValueError):  # refused, as it should be
                await asyncio.sleep(0.1)
            await asyncio.sleep(pause)

    tasks = [
        asyncio.create_task(client(kind, pause, attempt))
        for kind, (count, pause, attempt) in hostile_clients(port, items).items()
        if not kinds or kind in kinds
        for _ in range(count)
    ]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return attempts


def attack_process(port: int, items: list[str], seconds: float, kinds: Sequence[str], pipe: Any) -> None:
    """Run the attack; say that it begins, and send what it attempted."""
    pipe.send("begun")
    pipe.send(asyncio.run(attack(port, items, seconds, kinds)))


async def attacked(
    port: int, body: Callable[[], bytes], items: list[str], rate: float, seconds: float, kinds: Sequence[str]
) -> dict[str, Any]:
    """Honest clients under attack."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=attack_process, args=(port, items, seconds + 5, kinds, sender), daemon=True
    )
    process.start()
    await asyncio.to_thread(receiver.recv)
    await asyncio.sleep(5)  # until all of them are there
    outcome = await honest(port, body, rate, seconds, AnyVersion())
    attempts = await asyncio.to_thread(receiver.recv)
    process.join()
    return {**outcome.summary(), "attempts": dict(attempts)}


# A catalogue that changes


@dataclass
class Versions(AnyVersion):
    """What answers may say, as items are renamed and removed."""

    renamed: set[str]
    begun: int = 0  # the number that the last begun renaming gives to all titles
    confirmed: int = 0
    removed: set[str] = field(default_factory=set)  # whose removal was confirmed
    changes: Counter[str] = field(default_factory=Counter)

    def sent(self) -> tuple[int, set[str]]:
        return self.confirmed, set(self.removed)

    def fault(self, before: tuple[int, set[str]], items: Sequence[dict[str, Any]]) -> str:
        numbers = {
            int(item["title"].rpartition(" v")[2]) for item in items if item["item_id"] in self.renamed
        }
        if len(numbers) > 1:
            return "of two versions"
        if any(not before[0] <= number <= self.begun for number in numbers):
            return "of an old version"
        return (
            "with a removed item"
            if before[1] & {item["item_id"] for item in items}
            else super().fault(before, items)
        )


async def changing(port: int, body: Callable[[], bytes], rate: float, seconds: float) -> dict[str, Any]:
    """Honest clients while items change and the model is reloaded, one after another."""
    frequent = await ask_often(port, body, 100)
    versions = Versions(set(frequent[:RENAMED]))
    auth = f"Authorization: Bearer {TOKEN}\r\n"
    rng = np.random.default_rng(0)

    async def change(kind: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        status, answer = await ask(port, request_of(json.dumps(body).encode(), method, path, extra=auth))
        if status != 200:
            raise RuntimeError(f"{kind}: status {status}: {answer.decode()}")
        versions.changes[kind] += 1
        return json.loads(answer)

    async def rename() -> None:
        versions.begun += 1
        items = [{"item_id": item, "title": f"{item} v{versions.begun}"} for item in sorted(versions.renamed)]
        await change("renamings", "PATCH", "/v1/items", {"items": items})
        versions.confirmed = versions.begun

    async def changes() -> None:
        end, to_remove = time.monotonic() + seconds - 1, frequent[RENAMED : RENAMED + REMOVED]
        while time.monotonic() < end:
            await rename()
            new = {
                "item_id": f"new {time.time_ns()}",
                "title": "New",
                "vector": rng.standard_normal(DIM).tolist(),
            }
            await change("additions", "POST", "/v1/items", {"items": [new]})
            asked = {"history": frequent[:1], "allow": [new["item_id"]]}
            answer = await change("questions for new items", "POST", "/v1/recommendations", asked)
            if [item["item_id"] for item in answer["recommendations"][0]["items"]] != asked["allow"]:
                raise RuntimeError(f"The new item is not recommended: {answer}")
            if to_remove:
                await change("removals", "DELETE", f"/v1/items/{to_remove[0]}")
                versions.removed.add(to_remove.pop(0))
            await change("reloads", "POST", "/admin/reload")

    await rename()
    outcome, _ = await asyncio.gather(honest(port, body, rate, seconds, versions), changes())
    return {**outcome.summary(), "changes": dict(versions.changes)}


# The measurement


async def ask_often(port: int, body: Callable[[], bytes], requests: int) -> list[str]:
    """The recommended items of some requests, the most frequent first."""
    found: Counter[str] = Counter()
    for _ in range(requests):
        _, answer = await ask(port, request_of(body()))
        found.update(item["item_id"] for item in json.loads(answer)["recommendations"][0]["items"])
    return [item for item, _ in found.most_common()]


async def measure(
    port: int, loads: Sequence[str], rate: float, seconds: float, kinds: Sequence[str], rounds: int
) -> list[dict[str, dict[str, Any]]]:
    """What honest clients got under each load of each round."""
    _, answer = await ask(port, request_of(b"", "GET", "/v1/items?page_size=100"))
    items = [item["item_id"] for item in json.loads(answer)["items"]]
    body = random_bodies(items)
    measured: list[dict[str, dict[str, Any]]] = [{} for _ in range(rounds)]
    await ask_often(port, body, 100)
    gc.collect()
    gc.freeze()  # a collection of what was imported would hold the honest clients up, and count as the service's time
    for rows, load in product(measured, loads):
        begun = os.getloadavg()[0]
        if load == "quiet":
            row = (await honest(port, body, rate, seconds, AnyVersion())).summary()
        elif load == "attacked":
            row = await attacked(port, body, items, rate, seconds, kinds)
        else:
            row = await changing(port, body, rate, seconds)
        rows[load] = {**row, "load_average_before": round(begun, 2)}
        print(load, rows[load], file=sys.stderr, flush=True)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--artifact", type=Path, help="a model; the load that changes it takes a copy of your own"
    )
    parser.add_argument("--items", type=int, default=10_000, help="size of the catalogue without --artifact")
    loads = ["quiet", "attacked", "changing"]
    parser.add_argument("--loads", nargs="+", choices=loads, default=loads)
    parser.add_argument("--kinds", nargs="+", default=[], help="kinds of hostile clients; by default all")
    parser.add_argument("--rate", type=float, default=50.0, help="honest requests per second")
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of each load")
    parser.add_argument("--rounds", type=int, default=1, help="how often all loads are measured")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rqrec-benchmark-") as scratch:
        artifact = options.artifact or Path(scratch) / "retrieval"
        if not options.artifact:
            write_model(artifact, options.items)
        with running_service(artifact, "--admin-token", TOKEN, timeout=LIMIT) as (port, _):
            rounds = asyncio.run(
                measure(port, options.loads, options.rate, options.seconds, options.kinds, options.rounds)
            )
    result: dict[str, Any] = {
        "benchmark": "disturbed",
        "cores": os.cpu_count(),
        "rate": options.rate,
        "rounds": rounds,
    }
    if "quiet" in options.loads:
        ratios = {
            load: [round(rows[load]["p99_ms"] / rows["quiet"]["p99_ms"], 2) for rows in rounds]
            for load in options.loads
            if load != "quiet"
        }
        result |= {"p99_ratios": ratios, "median": {load: median(each) for load, each in ratios.items()}}
        result["goal"] = GOAL
    result["failed"] = any(row["errors"] for rows in rounds for row in rows.values())
    if options.json:
        print(json.dumps(result))
    sys.exit(result["failed"])


if __name__ == "__main__":
    main()
