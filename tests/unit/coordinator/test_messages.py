"""What travels between clients and coordinator arrives bit for bit, or is refused with the rule that it breaks."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from fl_rec.coordinator.messages import (
    FINISH,
    JOIN,
    WAIT,
    ClientReport,
    Decision,
    Device,
    MessageError,
    check_fields,
    to_record,
)
from fl_rec.coordinator.wire import VERSION, decode_decision, decode_report, encode

REPORT = ClientReport(
    client=3,
    round=7,
    shard_rows=1000,
    rows=500,
    seconds=2.5,
    train_loss=0.625,
    train_auc=0.75,
    test_auc=0.5,
    hr=0.25,
    ndcg=0.125,
    test_users=60,
    device=Device("phone", 0.5, 1e6),
    bytes_sent=12345,
    bytes_received=67890,
    extra={"energy": 1.5, "logits": np.array([[1.0, 2.0, 3.0]], np.float32)},
)
DECISION = Decision(WAIT, 0.5, 2.0, "because é", {"temperature": 2, "mask": np.array([1, 0], np.uint8)})


def text_of(function: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(MessageError) as caught:
        function(*arguments, **named)
    return str(caught.value)


def packed(content: Any) -> bytes:
    """As a peer may send it, whatever it is."""

    def as_array(value: Any) -> Any:
        array = np.asarray(value)
        return msgpack.ExtType(1, msgpack.packb([array.dtype.name, list(array.shape), array.tobytes()]))

    return bytes(msgpack.packb(content, default=as_array))


def array_ext(*body: Any, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(list(body)))


def report_with(**changes: Any) -> bytes:
    return packed({"version": VERSION, "client": 0, "round": 1, **changes})


def decision_with(**changes: Any) -> bytes:
    return packed({"version": VERSION, **changes})


# -- what arrives ------------------------------------------------------------------------------------------


def test_report_arrives_with_every_field() -> None:
    found = decode_report(encode(REPORT))
    defaults = ClientReport(client=0, round=0)
    for item in dataclasses.fields(ClientReport):
        if item.name != "extra":
            assert getattr(found, item.name) == getattr(REPORT, item.name)
            assert getattr(REPORT, item.name) != getattr(defaults, item.name), (
                f"{item.name} must not be its default here"
            )
    assert sorted(found.extra) == ["energy", "logits"]
    assert found.extra["energy"] == 1.5
    np.testing.assert_array_equal(found.extra["logits"], REPORT.extra["logits"])


def test_decision_arrives_with_every_field() -> None:
    found = decode_decision(encode(DECISION))
    assert (found.next_state, found.local_epochs, found.learning_rate_factor) == (WAIT, 0.5, 2.0)
    assert found.reason == "because é"
    assert found.extra["temperature"] == 2
    np.testing.assert_array_equal(found.extra["mask"], np.array([1, 0]))


def test_defaults_arrive() -> None:
    found = decode_report(encode(ClientReport(client=0, round=0)))
    figures = [getattr(found, name) for name in ("train_loss", "train_auc", "test_auc", "hr", "ndcg")]
    assert np.isnan(figures).all()
    assert (found.bytes_sent, found.bytes_received, dict(found.extra)) == (None, None, {})
    assert found.device == Device("machine", 1.0, math.inf)
    assert (found.trained, math.isnan(found.seconds_per_row)) == (False, True)
    assert decode_decision(encode(Decision())).next_state == JOIN


def test_seconds_per_row() -> None:
    assert (REPORT.trained, REPORT.seconds_per_row) == (True, 0.005)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (4, 0)])
def test_array_keeps_every_bit(dtype: str, shape: tuple[int, ...]) -> None:
    bits = np.random.default_rng(0).integers(0, 256, (int(np.prod(shape)) * np.dtype(dtype).itemsize,), np.uint8)
    array = np.frombuffer(bits.tobytes(), dtype).reshape(shape)
    found = decode_decision(encode(Decision(extra={"x": array}))).extra["x"]
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, shape, array.tobytes())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_not_a_number_and_infinity_in_arrays(dtype: type) -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0], dtype)
    found = decode_report(encode(ClientReport(0, 1, extra={"x": array}))).extra["x"]
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())


def test_array_in_any_memory_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for each in (np.asfortranarray(array), array.T.copy().T, np.repeat(array, 2, axis=1)[:, ::2], array.astype(">f4")):
        found = decode_decision(encode(Decision(extra={"x": each}))).extra["x"]
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_number_that_is_not_finite(value: float) -> None:
    found = decode_report(encode(ClientReport(0, 1, train_loss=math.nan, extra={"x": value})))
    assert (repr(found.train_loss), repr(found.extra["x"])) == ("nan", repr(value))


def test_numpy_numbers_become_numbers() -> None:
    report = ClientReport(0, 1, train_loss=np.float32(0.5), seconds=np.float64(2), extra={"x": np.int64(3)})  # type: ignore[arg-type]
    found = decode_report(encode(report))
    assert (found.train_loss, found.seconds, found.extra["x"]) == (0.5, 2.0, 3)
    assert type(found.train_loss) is type(found.seconds) is float
    assert type(found.extra["x"]) is int


def test_record_is_a_copy() -> None:
    record = to_record(REPORT)
    record["extra"]["energy"] = record["device"]["type"] = None
    assert (REPORT.extra["energy"], REPORT.device.type) == (1.5, "phone")


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"\xc1", b"\x81\xa1", encode(REPORT) + b"\x00", b"\xff" * 3 + b"\x00"])
def test_bytes_that_are_no_msgpack(data: bytes) -> None:
    text = text_of(decode_report, data)
    assert text.startswith(f"A message must be msgpack. Received: {len(data)} bytes that are not (")


def test_no_bytes() -> None:
    assert text_of(decode_report, b"").startswith("A message must be msgpack. Received: 0 bytes that are not (")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("array", [False, True])
def test_many_lists_in_few_bytes(nested: bool, array: bool) -> None:
    """A byte on the way is a hundred in memory, and more in the text of an error."""
    lists: list[Any] = [[] for _ in range(1 << 16)]
    while nested and len(lists) > 64:
        lists = [lists[start : start + 64] for start in range(0, len(lists), 64)]
    field = {"extra": {"x": array_ext(lists, [0], b"")}} if array else {"device": lists}
    data = msgpack.packb({"version": VERSION, "client": 0, "round": 0, **field})
    tracemalloc.start()
    text = text_of(decode_report, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than 4096 values" in text if nested else "exceeds max_array_len(4096)" in text
    assert len(text) < 200 and peak < 1 << 20


def test_every_truncation_is_refused() -> None:
    data = encode(REPORT)
    for length in range(len(data)):
        assert "Received: " in text_of(decode_report, data[:length])


@pytest.mark.parametrize(("content", "kind"), [([1, 2], "list"), ("text", "str"), (None, "NoneType"), ({}, "dict")])
def test_no_map_with_a_version(content: Any, kind: str) -> None:
    assert text_of(decode_report, packed(content)) == f"A message must be a map with a version. Received: {kind}."


@pytest.mark.parametrize("version", [VERSION + 1, 0, None, "1", [1]])
def test_other_version(version: Any) -> None:
    assert text_of(decode_report, report_with(version=version)) == (
        f"Messages must be of version {VERSION}. Received: {version!r}. Use the same fl_rec on both sides."
    )


def test_version_that_is_an_array() -> None:
    assert text_of(decode_report, report_with(version=np.zeros(2))).startswith(
        f"Messages must be of version {VERSION}. Received: array("
    )


def test_unknown_fields() -> None:
    text = text_of(decode_report, report_with(lost=1, colour=2))
    assert text.startswith("A report has the fields bytes_received, bytes_sent, client, device, extra, hr, ")
    assert text.endswith(" Received: ['colour', 'lost'].")
    assert text_of(decode_decision, decision_with(state="JOIN")) == (
        "A decision has the fields extra, learning_rate_factor, local_epochs, next_state, reason. Received: ['state']."
    )
    assert text_of(decode_report, report_with(device={"speed": 1})) == (
        "A device has the fields bandwidth, capacity, type. Received: ['speed']."
    )


def test_missing_fields() -> None:
    text = text_of(decode_report, packed({"version": VERSION, "client": 0}))
    assert text.startswith("A report has every field that has no default: ")
    assert "'round'" in text


def test_report_is_no_decision() -> None:
    assert "Received: ['bytes_received', " in text_of(decode_decision, encode(REPORT))
    assert text_of(decode_report, encode(DECISION)).startswith("A report has the fields ")


@pytest.mark.parametrize("name", ["client", "round", "shard_rows", "rows", "test_users", "bytes_sent"])
@pytest.mark.parametrize("value", [-1, 2**53 + 1, True, 1.0, "1", [1], float("nan"), np.zeros(2)])
def test_count_that_is_none(name: str, value: Any) -> None:
    shown = "an array of float64" if isinstance(value, np.ndarray) else repr(value)
    assert text_of(decode_report, report_with(**{name: value})) == (
        f"{name} must be a whole number from 0 to 2^53. Received: {shown}."
    )


def test_only_bytes_may_be_unknown() -> None:
    assert decode_report(report_with(bytes_sent=None)).bytes_sent is None
    assert (
        text_of(decode_report, report_with(rows=None)) == "rows must be a whole number from 0 to 2^53. Received: None."
    )


@pytest.mark.parametrize("value", [-0.5, math.inf, math.nan, True, "1", None, np.zeros(1)])
def test_seconds_that_are_none(value: Any) -> None:
    assert text_of(decode_report, report_with(seconds=value)).startswith("seconds must be 0 or more. Received: ")


@pytest.mark.parametrize("name", ["train_auc", "test_auc", "hr", "ndcg"])
@pytest.mark.parametrize("value", [True, "0.5", None, np.zeros(1), -0.1, 1.1, math.inf])
def test_share_that_is_none(name: str, value: Any) -> None:
    text = text_of(decode_report, report_with(**{name: value}))
    assert text.startswith(f"{name} must be a number from 0 to 1, or NaN. Received: ")


@pytest.mark.parametrize("value", [True, "0.5", None, np.zeros(1), math.inf, -math.inf])
def test_loss_that_is_none(value: Any) -> None:
    text = text_of(decode_report, report_with(train_loss=value))
    assert text.startswith("train_loss must be a finite number, or NaN. Received: ")


@pytest.mark.parametrize("name", ["capacity", "bandwidth"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, True, "fast", None])
def test_device_that_is_none(name: str, value: Any) -> None:
    text = text_of(decode_report, report_with(device={name: value}))
    assert text.startswith(f"device.{name} must be a ") and text.endswith(f"number above 0. Received: {value!r}.")


def test_device_of_a_wrong_type() -> None:
    assert text_of(decode_report, report_with(device={"type": 5})) == "device.type must be a text. Received: 5."
    assert text_of(decode_report, report_with(device=5)).endswith("Received: 5.")


def test_capacity_is_finite() -> None:
    # It is work per second, and what is left out of rounds.jsonl because it is not finite would be read back as 1.
    assert text_of(Device, capacity=math.inf) == "device.capacity must be a finite number above 0. Received: inf."
    assert Device(bandwidth=math.inf).bandwidth == math.inf


@pytest.mark.parametrize("state", ["join", "", None, 1, ["JOIN"], np.zeros(2)])
def test_state_that_is_none(state: Any) -> None:
    text = text_of(decode_decision, decision_with(next_state=state))
    assert text.startswith("next_state must be one of JOIN, WAIT, FINISH. Received: ")


@pytest.mark.parametrize("name", ["local_epochs", "learning_rate_factor"])
@pytest.mark.parametrize("value", [0, 0.0, -1, math.inf, math.nan, True, "1", None])
def test_amount_that_is_none(name: str, value: Any) -> None:
    expected = f"{name} must be a finite number above 0; a client that is not to train has WAIT. Received: {value!r}."
    assert text_of(decode_decision, decision_with(**{name: value})) == expected
    assert text_of(Decision, **{name: value}) == expected


def test_reason_is_text() -> None:
    assert text_of(Decision, reason=None) == "reason must be a text. Received: None."


@pytest.mark.parametrize("value", ["text", None, True, [1.0], {"a": 1}, np.array([None]), np.array(["a"]), 1j])
def test_extra_that_is_none(value: Any) -> None:
    shown = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else repr(value)
    expected = (
        "extra x must be a number, or an array of float16, float32, float64, int8, uint8, int32, int64. "
        f"Received: {shown}."
    )
    assert text_of(Decision, extra={"x": value}) == text_of(ClientReport, 0, 1, extra={"x": value}) == expected


def test_extra_is_a_mapping() -> None:
    assert text_of(Decision, extra=[1]) == "extra must be a mapping of names to numbers or arrays. Received: [1]."
    assert text_of(decode_report, report_with(extra=None)).startswith("extra must be a mapping of names to numbers ")
    assert text_of(Decision, extra={1: 2.0}).startswith("extra 1 must be a number, ")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (array_ext("object", [1], b"12345678"), "dtype object"),
        (array_ext("float128", [1], b"1" * 16), "dtype float128"),
        (array_ext("O", [1], b"12345678"), "dtype O"),
        (array_ext("float32", [2], b"1234"), "cannot reshape array of size 1 into shape (2,)"),
        (array_ext("float32", [1], b"12345"), "buffer size must be a multiple of element size"),
        (array_ext("float32", [1 << 62, 1 << 62], b"1234"), ""),
        (array_ext("float32", "x", b"1234"), ""),
        (array_ext("float32", [1], None), ""),
        (array_ext("float32", [1]), "not enough values"),
        (msgpack.ExtType(1, b"\xc1"), ""),
        (array_ext("float32", [1], b"1234", code=3), "type 3"),
        (array_ext("float32", [1], b"1234", b"", code=2), "dtype float32"),
        (array_ext("float16", [2], b"12", b"", code=2), "cannot reshape array of size 1 into shape (2,)"),
        (array_ext("int8", [2], b"1", b"1234", code=2), "cannot reshape array of size 1 into shape (2,)"),
        (array_ext("int8", [2], b"12", b"", code=2), "cannot reshape array of size 0 into shape (1,)"),
        (array_ext("int8", [2], b"12", b"12345678", code=2), "cannot reshape array of size 2 into shape (1,)"),
        (array_ext("int8", [], b"1", b"1234", code=2), ""),
        (array_ext("int8", [2], b"12", code=2), "missing 1 required positional argument"),
    ],
)
def test_malformed_array(array: msgpack.ExtType, reason: str) -> None:
    text = text_of(decode_report, report_with(extra={"x": array}))
    assert text.startswith("An array must be dtype, shape and bytes that agree. Received: ")
    assert reason in text


def test_objects_do_not_travel() -> None:
    record = {"version": VERSION, **to_record(REPORT)}
    for name in record:
        with pytest.raises(MessageError):
            decode_report(packed({**record, name: msgpack.Timestamp(1, 2)}))


def test_only_messages_errors_come_of_any_bytes() -> None:
    chance, data = random.Random(1), encode(REPORT)
    for _ in range(3000):
        mutated = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        for decode in (decode_report, decode_decision):
            with contextlib.suppress(MessageError):
                decode(bytes(mutated))


# -- how arrays are compressed -----------------------------------------------------------------------------


def arrived(array: Any, compression: str) -> Any:
    """The array at the other end, the same in a report and in a decision."""
    reported = decode_report(encode(ClientReport(0, 1, extra={"x": array}), compression)).extra["x"]
    decided = decode_decision(encode(Decision(extra={"x": array}), compression)).extra["x"]
    np.testing.assert_array_equal(reported, decided)
    return reported


def rows_of(dtype: str, shape: tuple[int, ...] = (3, 5, 40)) -> np.ndarray:
    """Rows whose sizes differ by far."""
    chance = np.random.default_rng(0)
    return (chance.normal(size=shape) * np.exp(chance.normal(size=(*shape[:-1], 1)))).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
def test_float16(dtype: str) -> None:
    array = rows_of(dtype)
    found = arrived(array, "float16")
    assert (found.dtype, found.shape) == (np.float32, array.shape)
    np.testing.assert_array_equal(found, array.astype(np.float16).astype(np.float32))
    assert 0 < np.abs(found / array - 1).max() <= 2**-11


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("shape", [(40,), (3, 5, 40), (2, 5)])
def test_int8(dtype: str, shape: tuple[int, ...]) -> None:
    array = rows_of(dtype, shape)
    found = arrived(array, "int8")
    assert (found.dtype, found.shape) == (np.float32, shape)
    steps = np.abs(array.astype(np.float64)).max(-1, keepdims=True) / 127
    assert 0.25 < (np.abs(found - array.astype(np.float64)) / steps).max() <= 0.5001
    # A row's largest is told with the scale's own precision.
    np.testing.assert_allclose(np.abs(found).max(-1), np.abs(array.astype(np.float64)).max(-1), rtol=1e-6)


def test_int8_of_rows_without_memory_order() -> None:
    array = rows_of("float32", (40, 30))
    for each in (np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(arrived(each, "int8"), arrived(array, "int8"))


def test_row_of_zeros_and_of_the_smallest() -> None:
    # The smallest float16, whose 127th part no float16 holds.
    array = np.array([[0] * 10, [2**-24] * 10, [-1] * 10], np.float16)
    with np.errstate(all="raise"):
        found = arrived(array, "int8")
    np.testing.assert_allclose(found, array.astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize(("compression", "size"), [("none", 4000), ("float16", 2000), ("int8", 1040)])
def test_compressed_arrays_are_shorter(compression: str, size: int) -> None:
    array = rows_of("float32", (10, 100))
    bare = len(encode(Decision(), compression))
    assert size < len(encode(Decision(extra={"x": array}), compression)) - bare < size + 40
    assert encode(Decision(extra={"x": array}), compression) == encode(Decision(extra={"x": array}), compression)


@pytest.mark.parametrize("compression", ["none", "float16", "int8"])
@pytest.mark.parametrize(
    "value",
    [
        1.1,
        5,
        np.array(1.1),
        np.zeros((0, 5)),
        np.zeros((5, 0), np.float32),
        np.arange(300).reshape(3, 100),
        np.ones((3, 100), np.int8),
        np.full((3, 100), 255, np.uint8),
    ],
)
def test_what_is_not_compressed(value: Any, compression: str) -> None:
    found = arrived(value, compression)
    assert type(found) is type(value)
    assert np.asarray(found).dtype == np.asarray(value).dtype
    np.testing.assert_array_equal(found, value)


def test_what_would_not_become_smaller() -> None:
    for array in (np.array([[0.1], [0.2]], np.float32), np.array([0.1, 0.2, 0.3, 0.4], np.float16)):
        found = arrived(array, "int8")
        assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())
    array = np.array([0.1, 0.2], np.float16)
    found = arrived(array, "float16")
    assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_a_number(dtype: str, value: float) -> None:
    array = rows_of(dtype)
    array[1, 2, 3] = value
    found = arrived(array, "int8")
    assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())
    found = arrived(array, "float16")
    np.testing.assert_array_equal(found, array.astype(np.float16).astype(np.float32))
    assert repr(float(found[1, 2, 3])) == repr(value)


@pytest.mark.parametrize(
    "array", [np.full((2, 50), -1e300), np.full((2, 50), 1e39), np.full((2, 50), np.finfo(np.float32).max, np.float32)]
)
def test_what_int8_can_not_scale(array: np.ndarray) -> None:
    found = arrived(array, "int8")
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, array, rtol=1e-6)


@pytest.mark.parametrize(("value", "shown"), [(70000.0, "70000"), (-1e30, "-1e+30"), (65520.0, "65520")])
def test_what_float16_can_not_hold(value: float, shown: str) -> None:
    array = np.array([[1.0, np.inf, value]], np.float32)
    assert text_of(encode, ClientReport(0, 1, extra={"logits": array}), "float16") == (
        "extra logits must be within 65504 to travel as runner.compress_report=float16. "
        f"Received: {shown}. Scale it down, or set runner.compress_report to int8 or none."
    )
    np.testing.assert_array_equal(arrived(np.array([65504.0, -65504.0]), "float16"), [65504, -65504])


def test_only_messages_errors_come_of_any_compressed_bytes() -> None:
    chance = random.Random(2)
    for compression in ("float16", "int8"):
        data = encode(Decision(extra={"x": np.ones((2, 9), np.float32)}), compression)
        for _ in range(2000):
            mutated = bytearray(data)
            for _ in range(chance.randint(1, 4)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            with contextlib.suppress(MessageError), np.errstate(all="ignore"):
                decode_decision(bytes(mutated))


# -- declared fields ---------------------------------------------------------------------------------------


def test_declared_fields_fit() -> None:
    check_fields(REPORT, {"energy": (), "logits": (1, 3)})
    check_fields(ClientReport(0, 5), {})


def test_undeclared_field() -> None:
    assert text_of(check_fields, REPORT, {"energie": (), "logits": (1, 3)}) == (
        "A report's own fields are declared. Received: energy, which is not. Did you mean energie?"
    )
    assert text_of(check_fields, REPORT, {}) == (
        "A report's own fields are declared. Received: energy, which is not. Declare it in coordinator.report_fields."
    )


def test_missing_field() -> None:
    assert text_of(check_fields, ClientReport(0, 1), {"energy": ()}) == (
        "A report has every declared field. Missing: energy. Return it from report_fields() of the trainer, "
        "or take it out of coordinator.report_fields."
    )


def test_nothing_is_missing_before_the_first_round() -> None:
    check_fields(ClientReport(0, 0), {"energy": ()})
    assert "which is not" in text_of(check_fields, ClientReport(0, 0, extra={"x": 1.0}), {"energy": ()})
    assert text_of(check_fields, ClientReport(0, 0, extra={"energy": np.zeros(2)}), {"energy": ()}) == (
        "energy must have its declared shape []. Received: [2]."
    )


@pytest.mark.parametrize(
    ("shape", "value"), [((2,), 1.0), ((2,), np.zeros(3)), ((), np.zeros(1)), ((1, 2), np.zeros(2))]
)
def test_other_shape(shape: tuple[int, ...], value: Any) -> None:
    assert text_of(check_fields, ClientReport(0, 1, extra={"x": value}), {"x": shape}) == (
        f"x must have its declared shape {list(shape)}. Received: {list(np.shape(value))}."
    )


def test_number_may_be_an_array_without_dimensions() -> None:
    check_fields(ClientReport(0, 1, extra={"x": np.array(1.0)}), {"x": ()})


def test_states() -> None:
    assert [decode_decision(encode(Decision(state))).next_state for state in (JOIN, WAIT, FINISH)] == [
        "JOIN",
        "WAIT",
        "FINISH",
    ]
