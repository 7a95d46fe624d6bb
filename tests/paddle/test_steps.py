"""Local steps, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config
from fl_rec.data.rows import Rows
from fl_rec.errors import ConfigError, RunError
from fl_rec.nets.program import Counted
from fl_rec.steps import choice
from fl_rec.steps.graph import GraphStep

from .conftest import SLOTS, RememberingExchange, built

Trained = tuple[Counted, dict[str, np.ndarray]]


def cut(start: int, stop: int) -> Rows:
    return tuple(slot[start:stop] for slot in SLOTS)


def by_graph(config: Config, folder: Path, parts: Sequence[Rows], **settings: Any) -> Trained:
    """What is counted, and the parameters, after these rows."""
    with built(config, **settings) as program:
        step = GraphStep(config.replace(**settings), program, folder / "rows" / "0.txt")
        program.begin_epoch()
        for rows in parts:
            step.train(rows, "test")
            assert not any((folder / "rows").iterdir()), "nobody finds users' rows when it is killed"
        step.close()
        return program.counted(), {name: program.value(name) for name in program.names}


def nameless(step: GraphStep) -> Path:
    """The file through which rows go."""
    assert step._file is not None
    return Path(f"/proc/self/fd/{step._file.fileno()}")


def by_hand(config: Config, batches: Sequence[Rows]) -> Trained:
    """The same of batches that are fed to the executor."""
    with built(config) as program:
        program.begin_epoch()
        for batch in batches:
            feed = {each.name: slot.astype(np.int64) for each, slot in zip(program.feeds, batch)}
            program.executor.run(program.main, feed=feed)
        return program.counted(), {name: program.value(name) for name in program.names}


def require_equal(found: Trained, expected: Trained) -> None:
    counted, values = found
    assert counted.rows == expected[0].rows and counted.loss_sum == pytest.approx(expected[0].loss_sum, rel=1e-6)
    assert counted.positives.tolist() == expected[0].positives.tolist()
    assert counted.negatives.tolist() == expected[0].negatives.tolist()
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[1][name], rtol=1e-5, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("reader_type", ["QueueDataset", "InmemoryDataset"])
def test_rows_are_trained_in_batches_in_their_order(config: Config, tmp_path: Path, reader_type: str) -> None:
    whole = [cut(0, 2), cut(2, 4), cut(4, 5)]
    settings = {"runner.reader_type": reader_type}
    require_equal(by_graph(config, tmp_path, [SLOTS, SLOTS], **settings), by_hand(config, [*whole, *whole]))
    # Parts have batches of their own.
    parts = [cut(0, 3), SLOTS, cut(3, 5)]
    expected = by_hand(config, [cut(0, 2), cut(2, 3), *whole, cut(3, 5)])
    require_equal(by_graph(config, tmp_path, parts, **settings), expected)


def test_a_run_directory_may_have_any_name(config: Config, tmp_path: Path) -> None:
    """Paddle opens the rows through a shell."""
    folder = tmp_path / "a $HOME `b` \"c' \\d;&|\ne"
    folder.mkdir()
    require_equal(by_graph(config, folder, [SLOTS]), by_hand(config, [cut(0, 2), cut(2, 4), cut(4, 5)]))


@pytest.mark.parametrize("rate", [1e20, 1e38])
def test_a_net_that_diverges_is_a_short_error(config: Config, tmp_path: Path, rate: float) -> None:
    """Paddle's own has forty lines."""
    settings = {"hyper_parameters.optimizer.class": "sgd", "hyper_parameters.optimizer.learning_rate": rate}
    with pytest.raises(RunError) as caught:
        by_graph(config, tmp_path, [SLOTS] * 9, **settings)
    text = str(caught.value)
    assert text.startswith("Training must keep scores finite, and this one diverged. Received: ")
    assert "in test. Lower the learning rate (hyper_parameters.optimizer.learning_rate)" in text and "\n" not in text


def test_rows_that_it_has_had_are_not_written_again(config: Config, tmp_path: Path) -> None:
    with built(config) as program:
        step = GraphStep(config, program, tmp_path / "0.txt")
        step.train(SLOTS, "test")
        file = nameless(step)
        assert file.read_bytes().startswith(b"1 0 1 0 1 1\n1 1 1 1 1 0\n")
        written = file.stat().st_mtime_ns
        step.train(SLOTS, "test")
        assert file.stat().st_mtime_ns == written
        step.train(tuple(SLOTS), "test")
        step.train(cut(3, 5), "test")
        assert nameless(step).read_bytes() == b"1 3 1 3 1 0\n1 0 1 4 1 0\n"


def test_rows_that_get_lost_are_told(config: Config, tmp_path: Path) -> None:
    with built(config) as program:
        step = GraphStep(config, program, tmp_path / "rows")
        step.train(SLOTS, "test")
        nameless(step).write_bytes(b"1 0 1 0 1 1\n")
        with pytest.raises(RunError) as caught:
            step.train(SLOTS, "test")
    assert str(caught.value) == (
        "Paddle's data feed must train every row that was written for it. Received: 1 rows of 5. Look into this "
        "worker's log for what the data feed says."
    )


def test_a_place_that_can_not_be_written(config: Config, tmp_path: Path) -> None:
    (tmp_path / "rows").touch()
    with built(config) as program, pytest.raises(RunError) as caught:
        GraphStep(config, program, tmp_path / "rows" / "0").train(SLOTS, "test")
    assert str(caught.value).startswith(
        "runner.local_step=graph writes the rows that it trains for Paddle's data feed. Received: "
        f"{tmp_path}/rows/0, which can't be written ("
    )


def test_variables_are_dumped_epoch_by_epoch(config: Config, tmp_path: Path) -> None:
    settings = {
        "runner.need_dump": True,
        "runner.dump_fields_path": str(tmp_path / "dump"),
        "runner.dump_fields": ["item_input"],
    }
    config = config.replace(**settings)
    with built(config) as program:
        program.main._fleet_opt = {}
        step = GraphStep(config, program, tmp_path / "0.txt")
        step.begin_epoch(3)
        assert program.main._fleet_opt == {
            "dump_fields_path": str(tmp_path / "dump" / "epoch_3"),
            "dump_fields": ["item_input"],
            "dump_param": [],
        }


# -- which one is taken ------------------------------------------------------------------------------------


def test_what_is_chosen_says_why(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "obstacles", lambda config: ["runner.need_dump", "hyper_parameters.proximal"])
    with built(config) as program:
        step = choice.new_step(config, program, RememberingExchange(), tmp_path / "0.txt")
        assert step.record() == {
            "name": "graph",
            "why_not_compiled": ["runner.need_dump", "hyper_parameters.proximal"],
        }
        asked = config.replace(**{"runner.local_step": "graph"})
        assert choice.new_step(asked, program, RememberingExchange(), tmp_path / "0.txt").record() == {
            "name": "graph",
            "why_not_compiled": ["runner.local_step=graph"],
        }


def test_what_can_not_be_compiled_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "obstacles", lambda config: ["runner.need_dump", "hyper_parameters.proximal"])
    assert choice.check(config, None) is config  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        choice.check(config.replace(**{"runner.local_step": "compiled"}), None)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "runner.local_step=compiled can't train everything. Received: runner.need_dump; hyper_parameters.proximal. "
        "Set it to auto."
    )
