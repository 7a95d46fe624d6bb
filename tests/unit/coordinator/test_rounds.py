"""rounds.jsonl: what was said in a round is read back as it was, whatever happened to the writer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.coordinator.messages import FINISH, JOIN, WAIT, ClientReport, Decision, Device
from fl_rec.coordinator.rounds import LARGEST_INLINE, Round, RoundLog, recorded_reports
from fl_rec.errors import DataError
from fl_rec.runs.directory import RunDirectory

REPORT = ClientReport(
    client=3,
    round=2,
    shard_rows=100,
    rows=50,
    seconds=0.1,
    train_loss=0.3,
    train_auc=1 / 3,
    test_auc=0.7,
    hr=0.2,
    ndcg=0.1,
    test_users=6,
    device=Device("phone", 0.5, 1e6),
    bytes_sent=1,
    bytes_received=2,
    extra={"energy": 0.1, "logits": np.array([[0.1, np.nan, np.inf]], np.float16), "none": math.nan},
)


def strictly(text: str) -> Any:
    """As a parser reads it that knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def there_and_back(done: Round) -> Round:
    line = done.to_json()
    assert "\n" not in line
    strictly(line)
    return Round.from_json(line)


def assert_same(first: Any, second: Any) -> None:
    """Fields of two messages, NaN equal to NaN."""
    for item in dataclasses.fields(first):
        one, other = getattr(first, item.name), getattr(second, item.name)
        if item.name == "extra":
            assert sorted(one) == sorted(other)
            for name in one:
                assert np.shape(one[name]) == np.shape(other[name])
                assert getattr(one[name], "dtype", float) == getattr(other[name], "dtype", float)
                np.testing.assert_array_equal(one[name], other[name])
        else:
            assert one == other or (math.isnan(one) and math.isnan(other)), item.name


# -- one line ----------------------------------------------------------------------------------------------


def test_round_is_read_back() -> None:
    decisions = {3: Decision(JOIN, 0.1, 0.2, 'a "reason"\né', {"t": 2.5, "m": np.arange(3)}), 11: Decision(FINISH)}
    found = there_and_back(Round(2, "random_k", {3: REPORT}, decisions, (0, 1), 1.25))
    assert (found.round, found.strategy, found.missing, found.seconds) == (2, "random_k", (0, 1), 1.25)
    assert (list(found.reports), list(found.decisions)) == ([3], [3, 11])
    assert_same(found.reports[3], REPORT)
    assert_same(found.decisions[3], decisions[3])
    assert_same(found.decisions[11], decisions[11])


def test_unknown_figures_and_unlimited_bandwidth_are_read_back() -> None:
    report = ClientReport(client=0, round=0)
    assert math.isnan(report.train_loss) and report.device.bandwidth == math.inf and report.bytes_sent is None
    assert_same(there_and_back(Round(0, "s", {0: report}, {0: Decision()})).reports[0], report)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64"])
def test_array_keeps_every_bit(dtype: str) -> None:
    array = np.arange(250, 256).reshape(2, 3).astype(dtype)
    for each in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        found = there_and_back(Round(0, "s", {}, {0: Decision(extra={"x": each})})).decisions[0].extra["x"]
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_empty_array_and_number_of_an_array() -> None:
    extra = {"none": np.zeros((0, 2), np.float32), "one": np.array(2.5, np.float32)}
    found = there_and_back(Round(0, "s", {}, {0: Decision(extra=extra)})).decisions[0].extra
    assert np.shape(found["none"]) == (0, 2)
    assert found["one"] == 2.5 and np.shape(found["one"]) == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_number_that_is_not_finite(value: float) -> None:
    found = there_and_back(Round(0, "s", {}, {0: Decision(extra={"x": value})})).decisions[0].extra["x"]
    assert type(found) is float and repr(found) == repr(value)


def test_numbers_of_numpy_are_written() -> None:
    # A strategy that computes with float32 decides in float32.
    decision = Decision(JOIN, np.float32(0.5), np.float64(0.25), extra={"x": np.float32(2), "n": np.int64(3)})  # type: ignore[arg-type]
    report = ClientReport(0, 1, train_loss=np.float32(0.5), hr=np.float32(np.nan), device=Device("x", np.float32(0.5)))  # type: ignore[arg-type]
    found = there_and_back(Round(0, "s", {0: report}, {0: decision}))
    assert (found.decisions[0].local_epochs, found.decisions[0].learning_rate_factor) == (0.5, 0.25)
    assert found.decisions[0].extra == {"x": 2.0, "n": 3.0}
    assert (found.reports[0].train_loss, found.reports[0].device.capacity) == (0.5, 0.5)
    assert math.isnan(found.reports[0].hr)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"round": 0',
        '{"round": 0, "strategy": "s", "missing": [], "seconds": 0, "reports": [], "decisions": {}}',
        '{"round": 0, "strategy": "s", "missing": [], "seconds": 0, "reports": {"x": {}}, "decisions": {}}',
        '{"round": 0, "strategy": "s", "missing": [], "seconds": 0, "reports": {"0": {"client": -1}}, "decisions": {}}',
        '{"round": 0, "strategy": "s", "missing": [], "seconds": 0, "reports": {"0": 5}, "decisions": {}}',
        '{"round": 0, "strategy": "s", "missing": [], "seconds": 0, "reports": {}, "decisions": '
        '{"0": {"extra": {"x": {"dtype": "float32", "shape": [1], "base64": "?"}}}}}',
    ],
)
def test_line_that_is_no_round(line: str) -> None:
    with pytest.raises(DataError) as caught:
        Round.from_json(line)
    assert str(caught.value).startswith(f"A line of rounds.jsonl is a round. Received: {line[:80]!r} (")


# -- the file ----------------------------------------------------------------------------------------------


def done(number: int) -> Round:
    return Round(number, "s", {0: ClientReport(0, number)}, {0: Decision(), 1: Decision(WAIT)}, (1,))


def numbers(log: RoundLog) -> list[int]:
    return [each.round for each in log]


@pytest.fixture
def log(tmp_path: Path) -> RoundLog:
    return RoundLog(tmp_path / "rounds.jsonl")


def test_rounds_in_order(log: RoundLog, tmp_path: Path) -> None:
    assert numbers(log) == []
    log.mend()
    assert not (tmp_path / "rounds.jsonl").exists()
    for number in range(3):
        log.append(done(number))
    assert numbers(log) == [0, 1, 2]
    assert (tmp_path / "rounds.jsonl").read_text().count("\n") == 3


def test_last_line_that_was_cut_off(log: RoundLog, tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    log.append(done(0))
    whole = path.read_bytes()
    line = (done(1).to_json()).encode()
    # Even a line that only lacks its end was never answered.
    for length in (1, len(line) // 2, len(line) - 1, len(line)):
        path.write_bytes(whole + line[:length])
        assert numbers(log) == [0]
        log.mend()
        assert path.read_bytes() == whole
        log.mend()
        log.append(done(1))
        assert numbers(log) == [0, 1]


def test_only_line_that_was_cut_off(log: RoundLog, tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_bytes(b'{"round": 0')
    assert numbers(log) == []
    log.mend()
    assert (tmp_path / "rounds.jsonl").read_bytes() == b""


def test_broken_line_before_the_last_is_told(log: RoundLog, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log.append(done(0))
    with open(tmp_path / "rounds.jsonl", "a") as file:
        file.write("broken\n")
    log.append(done(2))
    with caplog.at_level(logging.WARNING):
        assert numbers(log) == [0, 2], "the rest is read"
    assert caplog.messages[0].startswith(f"note: {log._path}, line 2 is torn, and left out (Expecting value: ")
    with open(tmp_path / "rounds.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match=r"A line of rounds.jsonl is a round\."):
        numbers(log)


def test_round_that_fits_the_disk_in_part_is_not_written(log: RoundLog, tmp_path: Path) -> None:
    log.append(done(0))
    size = (tmp_path / "rounds.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append(done(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert numbers(log) == [0]
    log.mend()
    log.append(done(1))
    assert numbers(log) == [0, 1]


# -- large arrays ------------------------------------------------------------------------------------------


LARGE = np.arange(LARGEST_INLINE // 2 + 1, dtype=np.float16)


def arrays_in(folder: Path) -> list[Path]:
    return sorted((folder / "coordinator" / "arrays").glob("*"))


def with_arrays(number: int, *arrays: np.ndarray) -> Round:
    return Round(number, "s", {}, {client: Decision(extra={"x": array}) for client, array in enumerate(arrays)})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64"])
def test_large_array_keeps_every_bit(log: RoundLog, tmp_path: Path, dtype: str) -> None:
    bits = np.random.default_rng(0).integers(0, 256, (2, 3, LARGEST_INLINE), np.uint8)
    array = bits.view(dtype)
    report = ClientReport(0, 1, extra={"logits": array})
    for number, each in enumerate((array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">")))):
        log.append(Round(number, "s", {0: report}, {0: Decision(extra={"x": each})}))
        found = list(log)[number]
        for read in (found.decisions[0].extra["x"], found.reports[0].extra["logits"]):
            assert isinstance(read, np.ndarray)
            assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())
    (path,) = arrays_in(tmp_path)
    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest() + ".npy"


def test_line_refers_to_a_large_array(log: RoundLog, tmp_path: Path) -> None:
    log.append(with_arrays(0, LARGE, LARGE[:-1]))
    line = (tmp_path / "rounds.jsonl").read_text()
    (path,) = arrays_in(tmp_path)
    decisions = strictly(line)["decisions"]
    assert decisions["0"]["extra"]["x"] == {"dtype": "float16", "shape": [len(LARGE)], "sha256": path.stem}
    assert sorted(decisions["1"]["extra"]["x"]) == ["base64", "dtype", "shape"], "of the largest that is in the line"
    np.testing.assert_array_equal(np.load(path), LARGE)
    with pytest.raises(DataError, match="an array that is in a file"):
        Round.from_json(line)


def test_equal_arrays_are_one_file(log: RoundLog, tmp_path: Path) -> None:
    log.append(with_arrays(0, *[LARGE.copy() for _ in range(10)]))
    (path,) = arrays_in(tmp_path)
    written = path.stat().st_mtime_ns
    log.append(with_arrays(1, LARGE, LARGE + 1, LARGE.astype(np.float32), LARGE.reshape(1, -1)))
    assert len(arrays_in(tmp_path)) == 4
    assert path.stat().st_mtime_ns == written, "it was there"
    assert [len(each.decisions) for each in log] == [10, 4]


def test_array_that_is_missing(log: RoundLog, tmp_path: Path) -> None:
    log.append(with_arrays(0, LARGE))
    (path,) = arrays_in(tmp_path)
    path.unlink()
    with pytest.raises(DataError) as caught:
        list(log)
    assert str(caught.value) == (
        f"Large arrays of rounds.jsonl are in files of their own. Received: {path}, which can't be read "
        "(No such file or directory). Copy a run with all of its folders."
    )


@pytest.mark.parametrize("content", [b"", LARGE.tobytes()])
def test_array_that_was_damaged(log: RoundLog, tmp_path: Path, content: bytes) -> None:
    log.append(with_arrays(0, LARGE))
    (path,) = arrays_in(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(log)
    assert str(caught.value) == f"An array's file is named after its content. Received: {path}, which has another."


def test_array_that_fits_the_disk_in_part_is_not_written(log: RoundLog, tmp_path: Path) -> None:
    log.append(done(0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append(with_arrays(1, LARGE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert numbers(log) == [0]
    log.append(with_arrays(1, LARGE))
    np.testing.assert_array_equal(list(log)[1].decisions[0].extra["x"], LARGE)
    assert len(arrays_in(tmp_path)) == 1


def test_line_of_an_earlier_version(log: RoundLog, tmp_path: Path) -> None:
    line = (
        '{"round": 0, "strategy": "s", "missing": [], "seconds": 0.5, "reports": {}, "decisions": {"0": {"extra": '
        '{"x": {"dtype": "float16", "shape": [2], "base64": "ADwAQA=="}, '
        '"none": {"dtype": "float64", "shape": [], "base64": "AAAAAAAA+H8="}}}}}\n'
    )
    (tmp_path / "rounds.jsonl").write_text(line)
    (found,) = log
    assert (found.report_bytes, found.decision_bytes) == ({}, {})
    np.testing.assert_array_equal(found.decisions[0].extra["x"], np.array([1, 2], np.float16))
    assert np.isnan(found.decisions[0].extra["none"])


# -- for people --------------------------------------------------------------------------------------------


def test_table() -> None:
    decisions = {
        10: Decision(WAIT, reason="not chosen"),
        2: Decision(JOIN, 0.375, 0.5, "shortened"),
        **{client: Decision(JOIN) for client in (0, 5, 6, 7, 9)},
        3: Decision(FINISH, reason="converged"),
    }
    assert Round(1, "mine", {}, decisions, (2, 10)).table(5).split("\n") == [
        "round 1, for epoch 2 of 5, mine: 6 JOIN, 1 WAIT, 1 FINISH; no report in time from 2, 10",
        "  clients    next  epochs  rate x  why",
        "---------------------------------------------",
        "0, 5-7, 9    JOIN    1.00       1",
        "        2    JOIN    0.38     0.5  shortened",
        "        3  FINISH       -       -  converged",
        "       10    WAIT       -       -  not chosen",
    ]


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (Decision(JOIN), "2 JOIN, 0 WAIT, 0 FINISH"),
        (Decision(JOIN, reason="in time"), "2 JOIN, 0 WAIT, 0 FINISH; in time"),
        (Decision(JOIN, 0.5, 2.0), "2 JOIN, 0 WAIT, 0 FINISH; 0.50 epochs, rate x 2"),
        (Decision(JOIN, 1.0, 0.25, "late"), "2 JOIN, 0 WAIT, 0 FINISH; 1.00 epochs, rate x 0.25; late"),
        (Decision(WAIT, reason="all wait"), "0 JOIN, 2 WAIT, 0 FINISH; nobody trains; all wait"),
    ],
)
def test_all_are_told_the_same_in_one_line(decision: Decision, told: str) -> None:
    assert Round(0, "mine", {}, {0: decision, 1: decision}).table(5) == f"round 0, for epoch 1 of 5, mine: {told}"


@pytest.mark.parametrize(
    ("up", "down", "told"),
    [
        (4096, 4096, ""),
        (4097, 0, "; up to 4.0 KiB up and 0.1 KiB down"),
        (0, 1_100_000, "; up to 0.1 KiB up and 1074.2 KiB down"),
    ],
)
def test_large_messages_are_told(up: int, down: int, told: str) -> None:
    one = Round(0, "mine", {}, {0: Decision(), 1: Decision()}, (), 0.0, {0: 100, 1: up}, {0: 100, 1: down})
    assert one.table(5) == f"round 0, for epoch 1 of 5, mine: 2 JOIN, 0 WAIT, 0 FINISH{told}"


def test_sizes_are_read_back() -> None:
    found = there_and_back(Round(0, "s", {3: REPORT}, {0: Decision()}, (), 0.0, {3: 123}, {0: 45, 11: 67}))
    assert (found.report_bytes, found.decision_bytes) == ({3: 123}, {0: 45, 11: 67})


def test_title_of_the_last_table() -> None:
    last = Round(5, "mine", {}, {0: Decision(FINISH)})
    assert last.table(5).split("\n")[0] == "round 5, after 5 epochs, mine: 1 FINISH"
    longest = Round(
        20, "resource_aware", {}, {number: Decision(FINISH, reason="that was the last epoch") for number in range(100)}
    )
    assert longest.table(20) == "round 20, after 20 epochs, resource_aware: 100 FINISH; that was the last epoch"
    assert last.clients(FINISH) == [0] and last.clients(JOIN) == []


# -- what a recorded run reported --------------------------------------------------------------------------


def metrics_line(client: Any, epoch: int, **changes: Any) -> dict[str, Any]:
    return {
        "client": client,
        "epoch": epoch,
        "rows": 10,
        "seconds": 2.0,
        "train_loss": 0.5,
        "train_auc": 0.6,
        "test_auc": 0.7,
        "hr": 0.2,
        "ndcg": 0.1,
        "test_users": 4,
        **changes,
    }


def test_reports_of_a_run_with_a_coordinator(run: RunDirectory) -> None:
    log = RoundLog(run.rounds)
    log.append(Round(0, "s", {0: ClientReport(0, 0), 1: ClientReport(1, 0)}, {}))
    log.append(Round(1, "s", {1: ClientReport(1, 1, rows=5)}, {}))
    run.append_metrics([metrics_line(7, 1)])
    found = recorded_reports(run)
    assert [sorted(reports) for reports in found] == [[0, 1], [1]]
    assert found[1][1].rows == 5


def test_rounds_without_a_coordinator_have_no_reports(run: RunDirectory) -> None:
    log = RoundLog(run.rounds)
    for number in (0, 3):
        log.append(Round(number, "s", {0: ClientReport(0, number)}, {}))
    found = recorded_reports(run)
    assert [[report.round for report in reports.values()] for reports in found] == [[0], [], [], [3]]


def test_reports_of_a_run_without_a_coordinator(run: RunDirectory) -> None:
    waited = metrics_line(1, 2, rows=0, seconds=0.0, train_loss=None, train_auc=None, test_auc=None)
    run.append_metrics(
        [metrics_line(0, 1), metrics_line(1, 1, rows=30), metrics_line("all", 1), metrics_line(0, 2, rows=20), waited]
    )
    found = recorded_reports(run)
    assert [sorted(reports) for reports in found] == [[0, 1], [0, 1], [0, 1]]
    assert [(each.round, each.shard_rows, each.rows, each.trained) for each in found[0].values()] == [
        (0, 20, 0, False),
        (0, 30, 0, False),
    ]
    assert math.isnan(found[0][0].train_loss)
    expected = ClientReport(0, 1, 20, 10, 2.0, 0.5, 0.6, 0.7, 0.2, 0.1, 4)
    assert_same(found[1][0], expected)
    assert (found[2][1].rows, found[2][1].shard_rows, math.isnan(found[2][1].test_auc)) == (0, 30, True)


def test_run_without_figures(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        recorded_reports(run)
    assert str(caught.value) == (
        f"A recorded run has figures of at least one epoch. Received: {run.metrics}, with none."
    )
    nothing = RunDirectory(tmp_path / "nothing")
    with pytest.raises(DataError) as caught:
        recorded_reports(nothing)
    assert str(caught.value) == (
        f"A recorded run has rounds.jsonl or metrics.jsonl. Received: {nothing.path}, which has neither."
    )
