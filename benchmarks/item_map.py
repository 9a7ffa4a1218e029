"""How long the map of a large catalogue takes to make, to fetch and to draw.

Synthetic items of as many kinds as first codes. Makes their places and clusters as a service does, and shows them on
the web page in Chromium (without a service: the browser's requests are answered here), where the map is zoomed while
the times between frames, and of drawing the points alone, are recorded.

    python benchmarks/item_map.py --json
    python benchmarks/item_map.py --items 1000 100000

Needs playwright and Chromium (see requirements-dev.txt).
"""

import argparse
import gzip
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from playwright.sync_api import Browser, Page, Route, sync_playwright

from rqrec.serving.item_map import SIDE, members_of
from rqrec.serving.map_layout import cluster_counts, clusters_of, lay_out
from rqrec.serving.web_page import MEDIA_TYPES, WEB

DIM, KINDS, SECONDS = 384, 256, 3
CHROMIUM = "/usr/bin/chromium"
MODEL = {
    "name": "synthetic",
    "architecture": "decoder_only",
    "parameters": 1,
    "experts": [],
    "n_items": 1,
    "level_sizes": [KINDS],
    "fields": [],
    "rules": [],
    "default": True,
}
FRAMES = """async (seconds) => {
    const canvas = document.querySelector("canvas");
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const times = [];
    const start = performance.now();
    let last = await new Promise(requestAnimationFrame);
    while (last - start < 1000 * seconds) {
        const middle = { clientX: left + width / 2, clientY: top + height / 2, bubbles: true, cancelable: true };
        const phase = Math.floor((last - start) / 500) % 2;
        canvas.dispatchEvent(new WheelEvent("wheel", { ...middle, deltaY: phase ? 25 : -25 }));
        const now = await new Promise(requestAnimationFrame);
        times.push(now - last);
        last = now;
    }
    return times;
}"""
DRAW = """async () => {
    const { drawPoints } = await import("/static/points.js");
    const { wholeView } = await import("/static/view.js");
    const map = await fetch("v1/map").then((response) => response.json());
    const canvas = document.querySelector("canvas");
    const points = {
        xs: Float32Array.from(map.x, (value) => value / map.side),
        ys: Float32Array.from(map.y, (value) => value / map.side),
        kinds: Uint32Array.from(map.codes),
        colors: new Uint8ClampedArray(4 * 256).fill(120),
    };
    const times = [];
    for (let i = 0; i < 30; i += 1) {
        const start = performance.now();
        drawPoints(canvas.getContext("2d"), points, wholeView(canvas.width, canvas.height), 2 * devicePixelRatio);
        times.push(performance.now() - start);
    }
    return times;
}"""


def make_map(n_items: int) -> tuple[dict[str, Any], dict[str, float]]:
    """A map of synthetic items, and the seconds that its places and clusters took."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(KINDS, size=n_items)
    centres = rng.normal(size=(KINDS, DIM)).astype(np.float32)
    vectors = centres[kinds] + rng.normal(scale=1.5, size=(n_items, DIM)).astype(np.float32)
    start, cpu_start = time.perf_counter(), time.process_time()
    places = lay_out(vectors)
    groups = [
        (level, members)
        for level, count in enumerate(cluster_counts(n_items))
        for members in members_of(clusters_of(places, count))
    ]
    seconds = {"seconds_to_make": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
    x, y = np.rint(places * SIDE).astype(int).T.tolist()
    clusters = []
    for number, (level, members) in enumerate(groups):
        cx, cy = np.rint(np.median(places[members], axis=0) * SIDE).astype(int).tolist()
        words = [f"cluster {number}"]
        clusters.append(
            {"level": level, "n_items": len(members), "x": cx, "y": cy, "words": words, "best_known": []}
        )
    content = {
        "version": 0,
        "side": SIDE,
        "item_ids": [f"B{item:09d}" for item in range(n_items)],
        "titles": [f"A title of usual length, number {item}" for item in range(n_items)],
        "x": x,
        "y": y,
        "codes": kinds.tolist(),
        "clusters": clusters,
    }
    return content, seconds


def open_page(browser: Browser, body: bytes, ratio: int) -> Page:
    """The web page with this map, answered from memory."""
    answers = {
        "/v1/models": {"models": [MODEL]},
        "/v1/users": {"users": []},
        "/v1/recommendations": {
            "model": "synthetic",
            "recommendations": [{"items": [], "n_allowed": 0, "skipped": []}],
        },
    }

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path == "/v1/map":
            route.fulfill(body=body, headers={"Content-Type": "application/json"})
        elif path.startswith("/v1/"):
            route.fulfill(json=answers.get(path, {}))
        else:
            file = WEB / (path.removeprefix("/static/") if path != "/" else "index.html")
            route.fulfill(body=file.read_bytes(), headers={"Content-Type": MEDIA_TYPES[file.suffix]})

    page = browser.new_context(viewport={"width": 1440, "height": 900}, device_scale_factor=ratio).new_page()
    page.route("**/*", answer)
    page.goto("http://map.test/")
    page.locator("canvas").wait_for(timeout=120_000)
    return page


def measure(browser: Browser, n_items: int) -> dict[str, Any]:
    """All numbers of one size."""
    content, seconds = make_map(n_items)
    body = json.dumps(content, separators=(",", ":")).encode()
    result: dict[str, Any] = {
        "items": n_items,
        **seconds,
        "megabytes": len(gzip.compress(body, 6)) / 1e6,
    }
    for ratio in (1, 2):
        page = open_page(browser, body, ratio)
        draws, frames = page.evaluate(DRAW), page.evaluate(FRAMES, SECONDS)
        result[f"at_{ratio}x"] = {
            "draw_ms_median": float(np.median(draws)),
            "frame_ms_median": float(np.median(frames)),
            "frame_ms_p95": float(np.quantile(frames, 0.95)),
            "frames_per_second": 1000 * len(frames) / sum(frames),
        }
        page.context.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000], help="numbers of items")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        results = [measure(browser, n_items) for n_items in options.items]
        browser.close()
    for result in results:
        print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
