"""What there is to tell of a job, in words and figures."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_rec.arguments import called_as
from fl_rec.evaluation.records import EpochRecord
from fl_rec.job import attempts
from fl_rec.job.observers import Started
from fl_rec.runs.hosts import said
from fl_rec.runs.result import DONE, RunResult
from fl_rec.tables import figure, printable
from fl_rec.terminal.passing import Pass
from fl_rec.terminal.words import changed, compared, duration, place, plural, signed


@dataclass(frozen=True)
class Told:
    """An epoch in words.

    Attributes:
        number: "3/20".
        loss, auc, hr, ndcg: figures of all clients together; `-` is no figure.
        change: of HR@K since the epoch before, in hundredths and thousandths; "" after the first.
        against: HR@K above popularity's; "" if that is not known.
        worst: the client with the lowest HR@K, and that; ("", "") without a test or with one client.
        rate: rows in a second.
        further: other figures by name: epsilon, the validation's.
        seconds: how long the epoch took.
    """

    number: str
    loss: str
    auc: str
    hr: str
    ndcg: str
    change: str
    against: str
    worst: tuple[str, str]
    rate: str
    further: Mapping[str, str]
    seconds: float


class Story:
    """A job as it goes on.

    Attributes:
        job: see `Started`.
        records: of the epochs so far.
    """

    def __init__(self, job: Started) -> None:
        self.job = job
        self.records: list[EpochRecord] = []
        self._seconds: list[float] = []
        runner = job.config.runner
        self.epochs, self.tests, self.top_k = runner.epochs, runner.test_data_dir is not None, runner.top_k
        # Differential privacy's workers don't tell how many rows they draw.
        self.unit = "rows" if job.config.privacy.clip is None else "exchanges"

    @property
    def knows_popularity(self) -> bool:
        """Whether the data says how well ranking by popularity does."""
        return math.isfinite(self.popularity)

    @property
    def popularity(self) -> float:
        """HR@K of ranking by counts; NaN if the data does not say."""
        return (self.job.popularity or {}).get(f"hr@{self.top_k}", math.nan)

    def title(self, number: int) -> str:
        """What a client is called: "client 3", or "3 Nairobi"."""
        names = self.job.clients
        return printable(f"{number} {names[number]}" if number < len(names) else f"client {number}")

    def _against_its_own(self, record: EpochRecord) -> str:
        """What a client's HR@K would be by popularity; "" if that is not known."""
        known = dict(enumerate(self.job.own_popularity)).get(int(record.client)) or {}
        popularity = known.get(f"hr@{self.top_k}")
        return "" if popularity is None else f" (popularity there: {popularity:.3f})"

    # -- before --------------------------------------------------------------------------------------------------

    def opening(self) -> list[tuple[str, str]]:
        """What is about to happen: labels and texts."""
        job, runner = self.job, self.job.config.runner
        exchanges = runner.exchanges_per_epoch
        together = f" of {plural(exchanges, 'exchange')}" if exchanges else ""
        parts = [
            plural(runner.epochs, "epoch") + together,
            plural(job.workers, "worker"),
            plural(job.servers, "server"),
        ]
        parts += ["a coordinator"] if job.coordinators else []
        parts += [] if exchanges else [runner.exchange or runner.sync_mode]
        lines = [("job", f"{job.name}: {', '.join(parts)}")]
        if job.hosts is not None:
            own, rest = said(job.hosts.roles_of(job.hosts.here)), len(job.hosts.names) - 1
            lines.append(("host", f"{job.hosts.here}: {own}; {plural(rest, 'host')} beside it"))
        if job.resumed is not None:
            lines.append(("resumed", attempts.said(job.resumed)))
        lines.append(("data", self._data()))
        lines.append(("settings", changed(job.changed) or "all as by default"))
        lines.append(("run", place(job.run.path)))
        return lines

    def _data(self) -> str:
        counts = [count for count in self.job.rows if count is not None]
        text = plural(self.job.workers, "shard")
        if counts and len(counts) == self.job.workers:
            text = f"{sum(counts):,} rows, {min(counts):,} to {max(counts):,} a client"
        if self.knows_popularity:
            text += f"; popularity: HR@{self.top_k} {self.popularity:.3f}"
        return text

    # -- within an epoch -----------------------------------------------------------------------------------------

    def left(self, passing: Pass) -> float:
        """Seconds that the whole job will take from now on; NaN if nobody knows."""
        epochs = self.epochs - passing.epoch
        return passing.left + (epochs * self._seconds[-1] if self._seconds else math.nan if epochs else 0.0)

    # -- epoch by epoch ------------------------------------------------------------------------------------------

    def tell(self, record: EpochRecord, seconds: float) -> Told:
        """Takes the record of one more epoch, which took so long; after a restart perhaps of one that was there."""
        self.records = [each for each in self.records if each.epoch < record.epoch]
        before = self.records[-1].hr if self.records else math.nan
        self.records.append(record)
        self._seconds.append(seconds)
        further = {}
        if math.isfinite(record.epsilon):
            further["epsilon"] = f"{record.epsilon:.2f}"
        if math.isfinite(record.validation_ndcg):
            further["valid."] = f"{record.validation_ndcg:.3f}"
        return Told(
            number=f"{record.epoch}/{self.epochs}",
            loss=figure(record.train_loss, ".4f"),
            auc=figure(record.test_auc, ".3f"),
            hr=figure(record.hr, ".3f"),
            ndcg=figure(record.ndcg, ".3f"),
            change=signed(record.hr - before),
            against=signed(record.hr - self.popularity),
            worst=self._worst(record),
            rate=figure(record.rows_per_second, ",.0f"),
            further=further,
            seconds=seconds,
        )

    def _worst(self, record: EpochRecord) -> tuple[str, str]:
        tested = [each for each in record.clients if math.isfinite(each.hr)]
        if len(tested) < 2:
            return "", ""
        worst = min(tested, key=lambda each: each.hr)
        return self.title(int(worst.client)), f"{worst.hr:.3f}"

    # -- at the end ----------------------------------------------------------------------------------------------

    def verdict(self, result: RunResult, seconds: float) -> list[tuple[str, str]]:
        """How good it is, where it is, and what to do next: labels and texts."""
        run, done = self.job.run.path, result.state == DONE
        lines = [("done" if done else "ended", f"{plural(len(self.records), 'epoch')} in {duration(seconds)}")]
        lines += self._figures(result)
        command, where = called_as(), place(run)
        if done and result.model is not None:
            lines.append(("model", place(Path(os.path.normpath(run / result.model)))))
            lines += [("next", f"{command} report {where}"), ("", f"{command} export {where}")]
        elif self.records:
            each = ", and so on each host" if self.job.hosts else ""
            lines.append(("next", f"{command} resume {where}{each}"))
        return lines

    def _figures(self, result: RunResult) -> list[tuple[str, str]]:
        kept, at = result.kept or {}, f"@{self.top_k}"
        hr, ndcg = kept.get(f"hr{at}"), kept.get(f"ndcg{at}")
        if hr is None or ndcg is None:
            return []
        which = f"epoch {kept['epoch']}, {'the best on the validation shards' if result.best else 'the last'}"
        lines = [("result", f"HR{at} {hr:.3f}, NDCG{at} {ndcg:.3f}: {which}")]
        if self.knows_popularity:
            lines.append(("", compared(hr, self.popularity)))
        of_epoch = [client for each in self.records if each.epoch == kept["epoch"] for client in each.clients]
        tested = sorted((each for each in of_epoch if math.isfinite(each.hr)), key=lambda each: each.hr)
        if len(tested) > 1:
            worst, best = (f"{self.title(int(each.client))} {each.hr:.3f}" for each in (tested[0], tested[-1]))
            lines.append(("clients", f"best: {best}, worst: {worst}{self._against_its_own(tested[0])}"))
        return lines
