"""What benchmarks/throughput.py makes of its contestants' figures, and what it tells them. Nothing is started."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def throughput(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("throughput")


CONFIG = """
runner:
  train_data_dir: train
  exchanges_per_epoch: 4
  aggregation: sum
  resample_negatives: 8
  epochs: 3
  train_batch_size: 256
hyper_parameters:
  optimizer: {class: sgd, learning_rate: 115, schedule: linear}
  l2: {mf_user_embedding: 0.5, mf_item_embedding: 0.25}
  mf_dim: 128
  extra: {std: 0.1}
"""


@pytest.fixture
def task(throughput: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task of mf's, of three clients."""
    contest = sys.modules["contest"]
    (tmp_path / "mf.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setitem(contest.NETS, "mf", tmp_path / "mf.yaml")
    files = [SimpleNamespace(file=name, rows=rows) for name, rows in (("a", 30), ("b", 10), ("c", 25))]
    shards = [SimpleNamespace(train=file, test=file) for file in files]
    data = SimpleNamespace(folder=Path("/data"), shards=shards, num_items=7)
    return contest.new_task("mf", data, None, tmp_path / "record.jsonl")


def run(throughput: Any, rates: list[float], hits: list[float | None], **changes: Any) -> Any:
    epochs = tuple({"rows": 10, "rows_per_second": rate, "hr": hit} for rate, hit in zip(rates, hits))
    known = tuple(10.0 * (number + 1) for number in range(len(epochs)))
    values = {"exit_code": 0, "seconds": 60.0, "running_after": None, "peak_pss": 5, "cpu_per_million": 3.0}
    values |= {"known_after": known, "leftovers": (), "epochs": epochs, "failure": None}
    return throughput.JobRun(**{**values, **changes})


def test_a_contestants_figures_are_medians_and_a_target_counts_if_every_run_reached_it(throughput: Any) -> None:
    runs = [
        run(throughput, [100.0, 300.0, 200.0], [0.5, 0.62, 0.71]),
        run(throughput, [400.0, 400.0, 400.0], [0.61, 0.65, 0.69], seconds=80.0, peak_pss=9, cpu_per_million=5.0),
        run(throughput, [600.0, 500.0, 700.0], [0.3, 0.59, 0.60], seconds=100.0, cpu_per_million=1.0),
    ]
    figures = throughput.summarise(runs, 9)
    assert (figures["rows_per_second"], figures["items_per_second"]) == (400.0, 3600.0)
    assert (figures["cpu_per_million"], figures["peak_pss"], figures["seconds"]) == (3.0, 9, 80.0)
    assert (figures["seconds_to_060"], figures["seconds_to_070"]) == (20.0, None)
    assert throughput.seconds_to(runs[0], 0.70) == 30.0


def test_a_contestant_that_ranks_nothing_or_was_never_run_has_no_such_figures(throughput: Any) -> None:
    figures = throughput.summarise([run(throughput, [100.0], [None])], 1)
    assert (figures["rows_per_second"], figures["seconds_to_060"], figures["hr"]) == (100.0, None, None)
    figures = throughput.summarise([], 1)
    assert {figures[name] for name in ("rows_per_second", "peak_pss", "seconds_to_070", "hr")} == {None}


def test_ratios_are_of_ours_to_those_that_are_there(throughput: Any) -> None:
    figures = {
        name: {"rows_per_second": rate} for name, rate in (("compiled", 6.0), ("by-hand", 4.0), ("flower", None))
    }
    ratios = throughput.compare(figures)
    assert ratios["ratio_to_by_hand"] == 1.5
    assert ratios["ratio_to_flower"] is ratios["ratio_to_pytorch"] is None
    assert throughput.compare({"pytorch": {"rows_per_second": 1.0}})["ratio_to_pytorch"] is None


def test_names_on_the_command_line(throughput: Any) -> None:
    assert throughput.several(("a", "b", "c"), "c,a") == ("a", "c")
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be some of a,b\. Received: x,y"):
        throughput.several(("a", "b"), "x,a,y")


def test_a_task_says_what_our_configuration_does(task: Any, tmp_path: Path) -> None:
    assert (task.epochs, task.exchanges, task.aggregation, task.batch, task.negatives) == (3, 4, "sum", 256, 8)
    assert (task.adam, task.learning_rate, task.falls, task.l2) == (False, 115.0, True, (0.5, 0.25))
    assert (task.width, task.std, task.num_items) == (128, 0.1, 7)
    assert (task.train, task.train_rows) == (("/data/a", "/data/b", "/data/c"), (30, 10, 25))
    task.write(tmp_path / "task.json")
    read = type(task).read(tmp_path / "task.json")
    assert json.dumps(dataclasses.asdict(read)) == json.dumps(dataclasses.asdict(task))


def test_without_exchanges_of_its_own_others_average_once_an_epoch(task: Any, tmp_path: Path) -> None:
    path = tmp_path / "mf.yaml"
    path.write_text(CONFIG.replace("exchanges_per_epoch: 4", "exchanges_per_epoch: 0"), encoding="utf-8")
    data = SimpleNamespace(folder=Path("/data"), shards=[], num_items=7)
    told = sys.modules["contest"].new_task("mf", data, 5, tmp_path / "record.jsonl")
    assert (told.epochs, told.exchanges, told.aggregation) == (5, 1, "weighted")


def test_clients_are_dealt_by_size_and_each_to_one_process(task: Any) -> None:
    assert dataclasses.replace(task, processes=2).deal() == [[0], [2, 1]]
    assert dataclasses.replace(task, processes=5).deal() == [[0], [2], [1]]


def test_shares_and_rates(task: Any) -> None:
    told = dataclasses.replace(task, epochs=2, exchanges=2, learning_rate=8.0)
    assert [told.rate(epoch, part) for epoch in (0, 1) for part in (0, 1)] == [7.0, 5.0, 3.0, 1.0]
    assert dataclasses.replace(told, falls=False).rate(1, 1) == 8.0
    assert told.shares == (1.0, 1.0, 1.0)
    assert dataclasses.replace(told, aggregation="mean").shares == (1 / 3,) * 3
    assert dataclasses.replace(told, aggregation="weighted").shares == (30 / 65, 10 / 65, 25 / 65)


def test_a_record_is_read_while_it_is_written(task: Any) -> None:
    from fl_rec.evaluation.metrics import Evaluation

    path, read_record = Path(task.record), sys.modules["contest"].read_record
    assert read_record(path) == []
    task.tell(0, 100, 900, 2.0, Evaluation(users=4, hits=3, ndcg_sum=2.0))
    with open(path, "a") as file:
        file.write('{"epoch": 1, "ro')
    (line,) = read_record(path)
    assert (line["rows_per_second"], line["items_per_second"], line["hr"], line["ndcg"]) == (50.0, 450.0, 0.75, 0.5)


def test_a_clients_users_go_by_local_ids_and_its_shard_is_kept_for_the_next_process(task: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 9 1 2 1 1\n1 4 1 3 1 0\n1 9 1 5 1 0\n", encoding="utf-8")
    (tmp_path / "kept").mkdir()
    told = dataclasses.replace(task, train=(str(tmp_path / "a.txt"),), negatives=None)
    client_rows = sys.modules["contestants.task"].ClientRows
    rows = client_rows(told, 0, tmp_path / "kept")
    users, items, labels = rows.epoch(0)
    assert (rows.ids.tolist(), users.tolist()) == ([4, 9], [[1], [0], [1]])
    assert (items.tolist(), labels.tolist()) == ([[2], [3], [5]], [[1], [0], [0]])
    (tmp_path / "a.txt").unlink()
    users, items, labels = client_rows(dataclasses.replace(told, negatives=2), 0, tmp_path / "kept").epoch(1)
    assert (users.tolist(), items[:, 0].tolist(), labels.tolist()) == ([[1]], [2], [[1, 0, 0]])
    assert items.shape == (1, 3) and 2 not in items[0, 1:]


def test_cpu_is_that_between_the_first_and_the_last_epoch(throughput: Any) -> None:
    usage = sys.modules["usage"]
    used, known = usage.Usage(SimpleNamespace(), SimpleNamespace()), usage.Known()
    used._samples = [(100.0, 0.0), (110.0, 20.0), (120.0, 30.0)]
    known.look([{"rows": 5_000_000, "time": 105.0}])
    assert known.cpu_per_million(used) is None
    known.look([{"rows": 5_000_000, "time": 105.0}, {"rows": 4_000_000, "time": 115.0}])
    assert known.times == [105.0, 115.0]
    assert known.cpu_per_million(used) == pytest.approx((25.0 - 10.0) / 4)
