"""Damage to files of each format: bytes anywhere, and values of their structure that no writer would write."""

import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.torch
import torch
from hypothesis import strategies as st

Draw = Callable[[Any], Any]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


ODD: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 10**9, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), "", "1", "a", "../a", "\0", "\ud800", "é", "x" * 5000, "codes", "rqvae"),
    *([], [1], [0, 0], ["a"], [None], [[1, 2], [3]], {}, {"a": 1}, {"": None}, nested(50)),
]
DEEP = b"[" * 100_000
WORDS = [
    *(
        b"",
        b"-1",
        b"0",
        b"1e400",
        b"nan",
        b"inf",
        b"9" * 40,
        b"1.5",
        b"True",
        b"null",
        b'"',
        b"'",
        b"\0",
        b"\xff",
    ),
    *(
        b"\xed\xa0\x80",
        b"2023-99-99",
        b"2023-01-01T00:00:00Z",
        b"{",
        b"[",
        b"[[[[",
        b"\n",
        b"\r",
        b",",
        b"\t",
        b"::",
    ),
    *(
        b"|",
        b"@a()",
        b"%A",
        b"import os",
        b"include '/etc/passwd'",
        b"x/",
        b".",
        b"=",
        b"\\",
        b"user_id",
        b"item_id",
    ),
]


def mutated(draw: Draw, path: Path) -> bytes:
    """The content of a file, damaged."""
    content = path.read_bytes()
    structured = STRUCTURED.get(path.suffix)
    if structured is not None and draw(st.integers(0, 3)):
        return structured(draw, content)
    return damaged_bytes(draw, content)


def damaged_bytes(draw: Draw, content: bytes) -> bytes:
    """Some bytes replaced, removed, inserted or repeated, or the end cut off."""
    start = draw(st.integers(0, len(content)))
    end = min(len(content), start + draw(st.sampled_from([0, 1, 2, 4, 8, 64, 4096])))
    match draw(st.sampled_from(["replace", "remove", "insert", "repeat", "cut"])):
        case "replace":
            return (
                content[:start] + draw(st.binary(min_size=end - start, max_size=end - start)) + content[end:]
            )
        case "remove":
            return content[:start] + content[end:]
        case "insert":
            return (
                content[:start]
                + draw(st.sampled_from([*WORDS, DEEP]) | st.binary(max_size=16))
                + content[start:]
            )
        case "repeat":
            return content[:end] + content[start:end] * draw(st.sampled_from([1, 3, 100])) + content[end:]
        case _:
            return content[:start]


def damaged_text(draw: Draw, content: bytes) -> bytes:
    """Some words, numbers or separators replaced."""
    parts = re.split(rb"(\w+|[^\w\s])", content)
    for _ in range(draw(st.integers(1, 3))):
        parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(WORDS))
    return b"".join(parts)


def damaged_gzip(draw: Draw, content: bytes) -> bytes:
    return gzip.compress(damaged_text(draw, gzip.decompress(content)), 1)


def damaged_value(draw: Draw, value: Any) -> Any:
    """A JSON value with one part replaced, removed or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: damaged_value(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], damaged_value(draw, value[at]), *value[at + 1 :]]
    odd = draw(st.sampled_from(ODD))
    match draw(st.sampled_from(["replace", "remove", "add"])):
        case "remove" if isinstance(value, dict | list) and value:
            return dict(list(value.items())[1:]) if isinstance(value, dict) else value[1:]
        case "add" if isinstance(value, dict):
            return {**value, draw(st.sampled_from(["a", "", "../a", "/a", "format_version"])): odd}
        case "add" if isinstance(value, list):
            return [*value, odd]
    return odd


def damaged_json(draw: Draw, content: bytes) -> bytes:
    if content[:1] not in (b"{", b"["):  # JSON lines
        return damaged_text(draw, content)
    try:
        value = json.loads(content)
    except json.JSONDecodeError:
        return damaged_text(draw, content)
    return json.dumps(damaged_value(draw, value)).encode()


TYPES: list[Any] = [
    *(pl.Int8, pl.Int128, pl.UInt64, pl.Float32, pl.Boolean, pl.Binary, pl.Null, pl.Datetime("us"), pl.Time),
    *(pl.List(pl.String), pl.List(pl.Int64), pl.Struct({"a": pl.Int64}), pl.Categorical),
]


def damaged_parquet(draw: Draw, content: bytes) -> bytes:
    """A column of another type, with nulls, renamed, repeated or removed; or other rows."""
    table = pl.read_parquet(content)
    name = draw(st.sampled_from(table.columns))
    column = table[name]
    match draw(st.sampled_from(["type", "null", "rename", "remove", "rows", "one", "shuffle"])):
        case "type":
            kind = draw(st.sampled_from(TYPES))
            table = table.with_columns(pl.Series(name, [None] * len(table), dtype=kind))
            if kind in (pl.Int8, pl.Int128, pl.UInt64, pl.Float32):
                table = table.with_columns(pl.lit(1).cast(kind).alias(name))
        case "null":
            table = table.with_columns(pl.when(pl.int_range(pl.len()) > 0).then(pl.col(name)).alias(name))
        case "rename":
            other = draw(st.sampled_from(["a", "", "history", "code_9"]))
            table = table.drop(other, strict=False).rename({name: other}) if name != other else table
        case "remove":
            table = table.drop(name)
        case "rows":
            table = pl.concat([table.head(draw(st.integers(0, 3))), table.head(draw(st.integers(0, 3)))])
        case "one":
            table = table.with_columns(pl.Series(name, [column[0]] * len(table), dtype=column.dtype))
        case "shuffle":
            table = table.reverse()
    target = io.BytesIO()
    table.write_parquet(target)
    return target.getvalue()


def damaged_array(draw: Draw, array: np.ndarray) -> np.ndarray:
    """An array of another shape, type or content."""
    match draw(st.sampled_from(["type", "shape", "cut", "value", "empty", "scalar"])):
        case "type":
            return array.astype(
                draw(st.sampled_from(["int8", "float16", "bool", "complex64", "U3", "uint64"]))
            )
        case "shape":
            return array.reshape(draw(st.sampled_from([(1, *array.shape), (*array.shape, 1), (array.size,)])))
        case "cut":
            return array[: len(array) // 2] if array.ndim else array
        case "value" if array.size:
            changed = array.copy().reshape(-1)
            at = draw(st.integers(0, array.size - 1))
            odd = [-1, 2**31, 2**62] if array.dtype.kind == "i" else [np.nan, np.inf, 1e30]
            changed[at] = np.array(draw(st.sampled_from(odd)), dtype="float64").astype(array.dtype)
            return changed.reshape(array.shape)
        case "empty":
            return array[:0] if array.ndim else array
    return np.array(3)


def damaged_npy(draw: Draw, content: bytes) -> bytes:
    target = io.BytesIO()
    with np.errstate(all="ignore"):
        np.save(target, damaged_array(draw, np.load(io.BytesIO(content))))
    return target.getvalue()


def damaged_npz(draw: Draw, content: bytes) -> bytes:
    arrays = dict(np.load(io.BytesIO(content)))
    name = draw(st.sampled_from(sorted(arrays)))
    if draw(st.booleans()):
        with np.errstate(all="ignore"):
            arrays[name] = damaged_array(draw, arrays[name])
    else:
        arrays[draw(st.sampled_from(["a", "items"]))] = arrays.pop(name)
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def damaged_tensors(draw: Draw, content: bytes) -> bytes:
    if draw(st.booleans()):  # the header alone: shapes and places that the data does not have
        size = int.from_bytes(content[:8], "little")
        header = damaged_json(draw, content[8 : 8 + size])
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    tensors = safetensors.torch.load(content)
    name = draw(st.sampled_from(sorted(tensors)))
    match draw(st.sampled_from(["remove", "shape", "type", "nan", "huge", "add"])):
        case "remove":
            del tensors[name]
        case "shape":
            tensors[name] = tensors[name].flatten()[: draw(st.integers(0, 3))].contiguous()
        case "type":
            kind = draw(st.sampled_from([torch.int64, torch.float16, torch.bool, torch.float64, torch.uint8]))
            tensors[name] = tensors[name].to(kind)
        case "add":
            tensors["a"] = torch.zeros(2)
        case change:
            if tensors[name].is_floating_point():
                odd = {"nan": torch.nan, "huge": min(1e38, torch.finfo(tensors[name].dtype).max)}[change]
                tensors[name] = torch.full_like(tensors[name], odd)
            else:
                tensors[name] = torch.full_like(tensors[name], 10**6)
    return safetensors.torch.save(tensors)


STRUCTURED: dict[str, Callable[[Draw, bytes], bytes]] = {
    ".json": damaged_json,
    ".jsonl": damaged_text,
    ".csv": damaged_text,
    ".dat": damaged_text,
    ".txt": damaged_text,
    ".item": damaged_text,
    ".data": damaged_text,
    ".inter": damaged_text,
    ".gz": damaged_gzip,
    ".parquet": damaged_parquet,
    ".npy": damaged_npy,
    ".npz": damaged_npz,
    ".safetensors": damaged_tensors,
}
