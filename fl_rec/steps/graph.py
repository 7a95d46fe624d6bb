"""The step through Paddle's graph, fed by Paddle's own data feed, which reads text."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fl_rec.config import Config
from fl_rec.data.rows import Rows
from fl_rec.data.text import multislot_text
from fl_rec.errors import RunError
from fl_rec.nets import graph
from fl_rec.nets.program import LOSS_SUM, ROWS, TrainingProgram, diverged
from fl_rec.runs import activity
from fl_rec.steps.base import LocalStep


class GraphStep(LocalStep):
    """Batches through the training program, by `train_from_dataset`.

    Args:
        config: `runner` is read.
        program: initialised.
        scratch: the file through which rows come to Paddle's data feed, as MultiSlot text.
    """

    name = "graph"

    def __init__(self, config: Config, program: TrainingProgram, scratch: Path) -> None:
        self._runner, self._program, self._scratch = config.runner, program, scratch
        self._in_memory = config.runner.reader_type == "InmemoryDataset"
        self._dataset: Any = None
        self._written: Rows = ()
        self._file: BinaryIO | None = None

    def begin_epoch(self, epoch: int) -> None:
        import paddle

        # Dropout's coins of an epoch are the same in a run that is resumed, where Paddle's generator is a new one.
        paddle.seed(int(np.random.SeedSequence([self._runner.seed, epoch]).generate_state(1)[0]))
        if self._runner.need_dump and self._runner.dump_fields_path is not None:
            folder = self._runner.dump_fields_path / f"epoch_{epoch}"
            graph.dump(self._program.main, folder, self._runner.dump_fields, self._runner.dump_param)

    def train(self, rows: Rows, title: str) -> None:
        if rows is not self._written:
            self._release()
            self._open(self._write(rows))
        counted = self._trained()
        with self._program.scores_watched(title), activity.counting(lambda: self._trained() - counted):
            self._program.executor.train_from_dataset(
                program=self._program.main,
                dataset=self._dataset,
                fetch_list=list(self._program.fetches.values()),
                fetch_info=[f"{title} {name}" for name in self._program.fetches],
                print_period=self._runner.print_interval,
                debug=self._runner.dataset_debug or self._runner.need_dump,
            )
        # Paddle's data feed takes a file that it can't read for one without rows.
        trained, wanted = self._trained() - counted, len(rows[0])
        if trained != wanted:
            raise RunError(
                f"Paddle's data feed must train every row that was written for it. Received: {trained:,} rows of "
                f"{wanted:,}. Look into this worker's log for what the data feed says."
            )
        loss = float(self._program.value(LOSS_SUM).item())
        if not math.isfinite(loss):
            raise diverged(f"a loss of {loss} after {title}")

    def _trained(self) -> int:
        return int(self._program.value(ROWS).item())

    def _write(self, rows: Rows) -> BinaryIO:
        try:
            self._scratch.parent.mkdir(parents=True, exist_ok=True)
            # Paddle reads it by this handle's name. It has no other, or a killed job would leave users' rows there.
            file = open(self._scratch, "wb")  # noqa: SIM115
            self._scratch.unlink()
            for lines in multislot_text(rows):
                file.write(lines.data)
            file.flush()
        except OSError as err:
            raise RunError(
                "runner.local_step=graph writes the rows that it trains for Paddle's data feed. Received: "
                f"{self._scratch}, which can't be written ({err.strerror or err}). Free some space, or name another "
                "runner.run_dir."
            ) from err
        self._written = rows
        return file

    def _open(self, file: BinaryIO) -> None:
        import paddle

        self._file = file
        # A new one: one in memory that loads again crashes (3.0.0).
        self._dataset = getattr(paddle.distributed, "InMemoryDataset" if self._in_memory else "QueueDataset")()
        self._dataset.init(
            use_var=self._program.slots,
            pipe_command="cat",
            batch_size=self._runner.train_batch_size,
            thread_num=self._runner.thread_num,
        )
        # A shell opens it by this name, and takes $ and quotes in a path for its own (3.0.0).
        self._dataset.set_filelist([f"/proc/{os.getpid()}/fd/{file.fileno()}"])
        if self._in_memory:
            self._dataset.load_into_memory()

    def _release(self) -> None:
        if self._in_memory and self._dataset is not None:
            self._dataset.release_memory()
        self._dataset = None
        if self._file is not None:
            self._file.close()

    def close(self) -> None:
        self._release()
