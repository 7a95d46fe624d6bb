"""How messages travel: a msgpack map, in chunks, by gRPC. No Paddle and no gRPC is imported here.

Arrays travel as their dtype, shape and bytes, so that float16 stays float16; nothing in a message is ever executed.

With `runner.compress_report`, arrays of floats in `extra` travel as float16, or as int8 with one float32 scale for each
row of the last axis, and arrive as float32, so that nobody computes in halves because of how they travelled. What would
not become smaller, numbers and integers travel as they are. So does an array with a value that int8 can't tell: NaN,
infinity, or more than a float32 holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

from fl_rec.coordinator.messages import (
    DTYPES,
    ClientReport,
    Decision,
    Field,
    MessageError,
    decision_from_record,
    report_from_record,
    to_record,
)

# Raise it when a field changes its meaning; a peer of another version is refused.
VERSION = 1


# Fields of a message, and what else its lists and maps have.
_MOST = 4096
# Types of msgpack's extensions.
_ARRAY, _COMPRESSED = 1, 2


SERVICE, CALL = "fl_rec.Coordinator", "Report"
METHOD = f"/{SERVICE}/{CALL}"
# What a call shows beside its message: the client that it is from, and that client's own token of the run.
CLIENT_KEY, TOKEN_KEY = "fl_rec-client", "fl_rec-token"
# Bytes of a message that travel at once.
CHUNK = 1 << 16
# A peer that stands still is noticed after KEEPALIVE + KEEPALIVE_ANSWER seconds.
KEEPALIVE, KEEPALIVE_ANSWER = 10.0, 10.0
# Seconds after which a connection on which nothing is asked is closed.
IDLE = 300.0


def channel_options() -> list[tuple[str, int]]:
    """What both sides set."""
    return [
        ("grpc.max_receive_message_length", CHUNK),
        ("grpc.max_send_message_length", CHUNK),
        # Nothing is compressed by gRPC: 1.70 unpacks what comes before it looks how long that is.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # Or a stream's window grows to megabytes, which whoever opens many streams would fill; a client needs one.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_concurrent_streams", 16),
        ("grpc.keepalive_time_ms", int(KEEPALIVE * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_ANSWER * 1000)),
        # Or else the ping itself is waited for, a minute long (seen in 1.85).
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE_ANSWER * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", int(KEEPALIVE * 1000 / 2)),
        # Two coordinators on one port would share its clients.
        ("grpc.so_reuseport", 0),
        ("grpc.enable_http_proxy", 0),
        # A coordinator that comes back is found soon. grpc.min_reconnect_backoff_ms stays: in spite of its name it is
        # what connecting may take.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


def server_options(clients: int) -> list[tuple[str, int]]:
    """What the coordinator of so many clients sets."""
    # Calls that come in while others are looked at; gRPC cancels some of them from 1,000 on, and all from 3,000 on.
    pending = 1000 + 2 * clients
    return [
        *channel_options(),
        # A client whose epoch takes longer connects again.
        ("grpc.max_connection_idle_ms", int(IDLE * 1000)),
        # To complain of pings that come too soon takes longer than to answer them: a flood took a core (seen in 1.85).
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.server.max_pending_requests", pending),
        ("grpc.server.max_pending_requests_hard_limit", 3 * pending),
    ]


def split(message: bytes) -> Iterator[bytes]:
    """A message's chunks."""
    return (message[start : start + CHUNK] for start in range(0, len(message), CHUNK))


def encode(message: ClientReport | Decision, compression: str = "none") -> bytes:
    """The message as it travels; the same bytes for the same message.

    Args:
        compression: runner.compress_report, for the arrays of `extra`; decoding needs no such setting.

    Raises:
        MessageError: an array has a number that float16 can't hold.
    """
    content = {"version": VERSION, **to_record(message)}
    if compression != "none":
        content["extra"] = {name: _compress(name, value, compression) for name, value in content["extra"].items()}
    packed: bytes = msgpack.packb(content, default=_pack_array)
    return packed


def decode_report(data: bytes) -> ClientReport:
    """The inverse of `encode`.

    Raises:
        MessageError: saying which rule is broken.
    """
    return report_from_record(_unpack(data))


def decode_decision(data: bytes) -> Decision:
    """The inverse of `encode`.

    Raises:
        MessageError: saying which rule is broken.
    """
    return decision_from_record(_unpack(data))


def unpacked(data: bytes, most: int, **more: Any) -> Any:
    """What msgpack reads. ValueError, or another of msgpack's, also if it has more lists, maps and values in them than
    `most`: each takes a byte on the way, a hundred in memory, and a thousand where it is told that it is wrong."""
    left = most

    def counted(found: Any) -> Any:
        nonlocal left
        left -= 1 + len(found)
        if left < 0:
            raise ValueError(f"more than {most} values")
        return found

    limits = {"max_map_len": most, "max_array_len": most}
    return msgpack.unpackb(data, list_hook=counted, object_hook=counted, **limits, **more)


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        content = unpacked(data, _MOST, ext_hook=_unpack_array)
    except MessageError:
        raise
    except Exception as err:  # msgpack's errors have no common base, and some of them no text
        why = str(err) or type(err).__name__
        raise MessageError(f"A message must be msgpack. Received: {len(data)} bytes that are not ({why}).") from err
    if not isinstance(content, dict) or "version" not in content:
        raise MessageError(f"A message must be a map with a version. Received: {type(content).__name__}.")
    version = content.pop("version")
    if not isinstance(version, int) or version != VERSION:
        raise MessageError(
            f"Messages must be of version {VERSION}. Received: {version!r}. Use the same fl_rec on both sides."
        )
    return content


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise MessageError(f"A message holds numbers, texts and arrays. Received: {type(value).__name__}.")
    # A dtype's name does not tell its byte order.
    body = [value.dtype.name, list(value.shape), value.astype(value.dtype.name, copy=False).tobytes()]
    return msgpack.ExtType(_ARRAY, msgpack.packb(body))


def _compress(name: str, value: Field, compression: str) -> Any:
    """A float array's shorter form: dtype, shape, bytes, and bytes of the rows' scales; all else as it is."""
    if not isinstance(value, np.ndarray) or value.ndim == 0 or value.size == 0 or value.dtype.kind != "f":
        return value
    if compression == "float16":
        if value.dtype.itemsize == 2:
            return value
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        lost = np.isinf(half) & np.isfinite(value)
        if lost.any():
            raise MessageError(
                f"extra {name} must be within 65504 to travel as runner.compress_report=float16. Received: "
                f"{value[lost][0]:g}. Scale it down, or set runner.compress_report to int8 or none."
            )
        body = ["float16", list(value.shape), half.tobytes(), b""]
    else:
        if value.size + 4 * (value.size // value.shape[-1]) >= value.nbytes:
            return value
        with np.errstate(over="ignore"):
            scales = np.abs(value).max(-1, keepdims=True).astype(np.float32) / np.float32(127)
            if not np.isfinite(127 * scales).all():
                return value
        # A row of zeros has the scale 0.
        steps = np.rint(value / np.where(scales > 0, scales, np.float32(1)))
        body = ["int8", list(value.shape), np.clip(steps, -127, 127).astype(np.int8).tobytes(), scales.tobytes()]
    return msgpack.ExtType(_COMPRESSED, msgpack.packb(body))


def _unpack_array(code: int, body: bytes) -> np.ndarray:
    try:
        if code == _COMPRESSED:
            return _decompress(*unpacked(body, _MOST))
        if code != _ARRAY:
            raise ValueError(f"type {code}")
        dtype, shape, data = unpacked(body, _MOST)
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype}")
        array: np.ndarray = np.frombuffer(data, dtype).reshape(shape)
        return array
    except Exception as err:
        raise MessageError(f"An array must be dtype, shape and bytes that agree. Received: {err}.") from err


def _decompress(dtype: str, shape: list[int], data: bytes, scales: bytes) -> np.ndarray:
    if dtype not in ("float16", "int8"):
        raise ValueError(f"dtype {dtype}")
    array = np.frombuffer(data, dtype).reshape(shape).astype(np.float32)
    if dtype == "int8":
        array *= np.frombuffer(scales, np.float32).reshape([*shape[:-1], 1])
    return array
