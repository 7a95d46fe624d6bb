"""An epoch's figures as a table: what it has, and how wide it is."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from fl_rec.evaluation.records import EpochRecord
from fl_rec.evaluation.table import epoch_table, note_of_ties
from fl_rec.tables import text_width

NAMES = ("Boston", "北京市海淀区的一个很长的名字")


def one(client: Any, rows: int, hr: float, **further: Any) -> EpochRecord:
    figures = {"seconds": 4.25, "rows_per_second": rows / 4.25, "train_loss": 0.35, "train_auc": 0.94, "test_auc": 0.9}
    kept: dict[str, Any] = {**figures, "hr": hr, "ndcg": hr / 2, "test_users": 604, "top_k": 10, **further}
    return EpochRecord(3, client, rows, **kept)


def epoch(*rows: int, **further: Any) -> EpochRecord:
    clients = tuple(one(client, each, 0.5 + client / 10, **further) for client, each in enumerate(rows))
    return one("all", sum(rows), 0.55, clients=clients, **further)


def test_lines_up_one_line_per_client_and_one_for_all() -> None:
    untested = {"test_auc": math.nan, "hr": math.nan, "ndcg": math.nan, "test_users": 0}
    record = epoch(518095, 1243905)
    first, other = record.clients
    record = dataclasses.replace(record, clients=(first, dataclasses.replace(other, **untested)))
    assert (
        epoch_table(record, "epoch 3 of 20: epsilon 1.5")
        == """\
epoch 3 of 20: epsilon 1.5
            train  train    train   train  train   test   test   test     test
client       rows      s   rows/s    loss    AUC    AUC  users  HR@10  NDCG@10
------------------------------------------------------------------------------
     0    518,095    4.2  121,905  0.3500  0.940  0.900    604  0.500    0.250
     1  1,243,905    4.2  292,684  0.3500  0.940      -      -      -        -
------------------------------------------------------------------------------
   all  1,762,000    4.2  414,588  0.3500  0.940  0.900    604  0.550    0.275"""
    )


def titles(table: str) -> list[str]:
    above, below = (line.split() for line in table.splitlines()[1:3])
    return [" ".join(both) for both in zip(above, below[1:])]


def test_what_has_no_room_is_left_out() -> None:
    record = epoch(518095, 1243905, validation_hr=0.41, validation_ndcg=0.21)
    wide = epoch_table(record, "epoch 3 of 20", NAMES, 140)
    assert [*map(text_width, wide.splitlines())][1:] == [119] * 7
    assert titles(wide)[:4] == ["train rows", "train s", "train rows/s", "train loss"]
    assert titles(wide)[-2:] == ["valid. HR@10", "valid. NDCG@10"] and NAMES[1] in wide
    narrow = epoch_table(record, "epoch 3 of 20", NAMES)
    assert [*map(text_width, narrow.splitlines())][1:] == [80] * 7
    assert titles(narrow) == [
        each for each in titles(wide) if each not in ("train s", "train rows/s", "train AUC", "test users")
    ]
    assert "\n1 北京市海淀区的一个" in narrow and "0 Boston " in narrow


@pytest.mark.parametrize("names", [(), NAMES])
@pytest.mark.parametrize("width", [62, 80, 100])
def test_fits_with_a_billion_rows(names: tuple[str, ...], width: int) -> None:
    record = epoch(10**9, 10**9, top_k=100, validation_hr=0.41, validation_ndcg=0.21, seconds=12345.6)
    table = epoch_table(record, "epoch 3 of 20", names, width)
    assert max(map(text_width, table.splitlines())) <= width
    assert {"train loss", "test AUC", "test HR@100", "test NDCG@100", "valid. NDCG@100"} <= set(titles(table))


def test_says_that_a_net_has_collapsed() -> None:
    few, many = (epoch(1, test_users=30, test_tied=tied) for tied in (3, 4))
    assert note_of_ties(few) == []
    (note,) = note_of_ties(many)
    assert note.startswith("4 of 30 test users have no hit in HR@10 only because many items have one")
    assert "Set runner.exchanges_per_epoch=5" in note
