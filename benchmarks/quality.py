"""How good a federated model is, beside popularity, each shard alone, plain GEO, and one worker with all rows.

python benchmarks/quality.py --data datasets/movielens/fl_data --record quality.jsonl

popularity  the items with the most training positives of all shards; ties count against it
alone       each shard with a worker of its own, --config with one round per epoch; --at_once jobs at a time
plain       federated, configs/config_fl.yaml as it is, --plain_epochs epochs
best        federated, --config as it is
pooled      one worker that has all users' rows, --config with one round per epoch, --pooled_batch and --pooled_rate

Every trained model is that of the epoch which its job keeps. The figures are means over --seeds seeds, with the sample
standard deviation. With --record, what was measured before, of the same configuration, data and options, is not
measured again: a run that was interrupted goes on where it ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import statistics
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from common import (
    CONFIG,
    METRICS,
    TOP_K,
    Report,
    add_config_argument,
    add_data_argument,
    count,
    describe_data,
    new_parser,
    open_data,
    popularity,
    read_rows,
    run_benchmark,
    run_job,
    run_side_by_side,
    say,
    spread,
    titled_table,
)

# isort: split
import numpy as np

from fl_rec.config import Config
from fl_rec.data.manifest import MANIFEST_NAME, Manifest, Shard, ShardFile
from fl_rec.data.reader import Reader
from fl_rec.data.sampling import generator
from fl_rec.data.text import LAYOUTS, grouped_layout
from fl_rec.data.text import write_rows as write_text
from fl_rec.errors import DataError, FLRecError, RunError
from fl_rec.evaluation.metrics import ALL, Evaluation
from fl_rec.files import write_json
from fl_rec.runs.directory import RunDirectory
from fl_rec.tables import figure

KINDS = ("popularity", "alone", "plain", "best", "pooled")
# What the project sets itself: as good as pooled but for so much HR, and these figures.
LEAST_DIFFERENCE = -0.005
GOALS = {"hr": 0.720, "ndcg": 0.440}
# One model is evaluated by its job and again here, in other batches, whose sums may be rounded otherwise.
TOLERANCE = 1e-3
POOLED_BATCHES = 4


@dataclass(frozen=True)
class Score:
    """How well a shard's test users are served.

    Attributes:
        shard: its number.
        users: how many of them have a positive.
        hr, ndcg: HR@10 and NDCG@10.
    """

    shard: int
    users: int
    hr: float
    ndcg: float


@dataclass(frozen=True)
class Job:
    """What one job is to measure.

    Attributes:
        kind: one of `KINDS`.
        seed: runner.seed.
        shard: the only one that it trains on; None for all.
        config: the configuration.
        overrides: what it changes.
    """

    kind: str
    seed: int
    shard: int | None
    config: Path
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}" + ("" if self.shard is None else f"-{self.shard}")


@dataclass(frozen=True)
class Outcome:
    """What it has measured, as it is written down.

    Attributes:
        kind, seed, shard: the job's.
        digest: of the configuration, what was changed in it, and the data.
        minutes: from the command to its end.
        kept: the epoch whose model is kept, from 1.
        epochs: HR@10 and NDCG@10 after each epoch, on all test shards of the job.
        scores: those of the model that is kept.
        sizes: further figures of a job, by name.
    """

    kind: str
    seed: int
    shard: int | None
    digest: str
    minutes: float
    kept: int
    epochs: tuple[tuple[float, float], ...]
    scores: tuple[Score, ...]
    sizes: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        return self.kind, self.seed, self.shard, self.digest


class Record:
    """Outcomes on disk, one line each.

    Args:
        path: the file; None to keep nothing.

    Raises:
        DataError: it holds something else.
        RunError: it can't be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[tuple[Any, ...], Outcome] = {}
        if path is None:
            return
        try:
            with open(path, "ab+") as file:
                file.seek(0)
                *lines, cut_off = file.read().split(b"\n")
                self._read(path, lines)
                if cut_off:  # it ended while it wrote this line
                    file.truncate(file.tell() - len(cut_off))
        except OSError as err:
            raise RunError(f"--record must name a writable file. Received: {path} ({err.strerror}).") from err

    def _read(self, path: Path, lines: Sequence[bytes]) -> None:
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                scores = tuple(Score(**score) for score in content.pop("scores"))
                outcome = Outcome(scores=scores, epochs=tuple(map(tuple, content.pop("epochs"))), **content)
            except (AttributeError, KeyError, TypeError, ValueError) as err:
                raise DataError(
                    f"--record must name a file that this script wrote, or a new one. Received: {path}, line {number} "
                    f"({err!r})."
                ) from err
            self._known[outcome.key] = outcome

    def find(self, key: tuple[Any, ...]) -> Outcome | None:
        return self._known.get(key)

    def add(self, outcome: Outcome) -> None:
        """Writes it down at once. Several threads may do so: each line is one appending write."""
        if self._path is not None:
            with open(self._path, "ab", buffering=0) as file:
                file.write((json.dumps(dataclasses.asdict(outcome)) + "\n").encode("utf-8"))


# --- Data ----------------------------------------------------------------------------------------------


def one_shard(data: Manifest, number: int, out: Path) -> Manifest:
    """A folder with links to a shard's files, and a manifest of this shard only."""
    shard = data.shards[number]
    files = {"train": shard.train, "test": shard.test}
    if shard.validation is not None:
        files["validation"] = shard.validation
    for file in files.values():
        (out / file.file).parent.mkdir(parents=True, exist_ok=True)
        (out / file.file).symlink_to((data.folder / file.file).resolve())
    return _write_manifest(
        dataclasses.replace(
            data,
            num_shards=1,
            shards=(shard,),
            totals={
                f"{kind}_{name}": getattr(file, name)
                for kind, file in files.items()
                for name in ("rows", "positives", "users", "items")
            },
            # Nobody has counted them for one shard.
            unplaced={**data.unplaced, "users": None, "train_rows": None},
            clients=(),
            difference={},
            folder=out,
        )
    )


def pool(data: Manifest, out: Path) -> Manifest:
    """All shards as one: the training rows in random order, since a trainer reads them as they come."""
    say("data      all shards as one")
    columns = []
    for shard in data.shards:
        users, items, labels = read_rows(data, shard.train)
        columns.append(np.hstack([users, items] if data.group_size > 1 else [users, items, labels]))
    rows = np.concatenate(columns)
    rows = rows[generator(data.seed, 0).permutation(len(rows))]
    layout = grouped_layout(data.group_size) if data.group_size > 1 else LAYOUTS["multislot"]

    def pooled(kind: str) -> ShardFile:
        files = [getattr(shard, kind) for shard in data.shards]
        name = files[0].file
        if kind == "train":
            size, sha256 = write_text(out / name, rows, layout)
        else:
            text = b"".join((data.folder / file.file).read_bytes() for file in files)
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(text)
            size, sha256 = len(text), hashlib.sha256(text).hexdigest()
        counts = {column: data.totals[f"{kind}_{column}"] for column in ("rows", "positives", "users", "items")}
        return ShardFile(file=name, bytes=size, sha256=sha256, **counts)

    validation = pooled("validation") if all(shard.validation for shard in data.shards) else None
    shard = Shard(pooled("train"), pooled("test"), validation)
    partitioner = {"name": "pooled", "options": {}}
    return _write_manifest(
        dataclasses.replace(data, num_shards=1, shards=(shard,), partitioner=partitioner, folder=out)
    )


def _write_manifest(data: Manifest) -> Manifest:
    write_json(data.folder / MANIFEST_NAME, data.to_json())
    return data


# --- Jobs ----------------------------------------------------------------------------------------------


def plan(args: argparse.Namespace, data: Manifest, kind: str, seed: int) -> list[Job]:
    """The jobs of a kind; none for popularity."""
    keys: dict[str, Any] = {"runner.seed": seed, "runner.top_k": TOP_K}
    if kind == "popularity":
        return []
    if kind == "plain":
        return [Job(kind, seed, None, CONFIG, {**keys, "runner.epochs": args.plain_epochs})]
    if args.epochs:
        keys["runner.epochs"] = args.epochs
    if kind == "best":
        return [Job(kind, seed, None, args.config, keys)]
    # A round of one worker must leave its model as it is; this key is for what many have learned.
    keys.update({"runner.exchanges_per_epoch": 1, "runner.server_learning_rate": 1.0})
    if kind == "pooled":
        config = Config.load(args.config)
        optimizer, batch = config.hyper_parameters.optimizer, config.runner.train_batch_size
        keys["runner.train_batch_size"] = args.pooled_batch or POOLED_BATCHES * batch
        # The loss is a mean over the batch: with sgd a row of a larger one would count for less, and pooled look worse.
        larger = keys["runner.train_batch_size"] / batch if optimizer.class_ == "sgd" else 1.0
        keys["hyper_parameters.optimizer.learning_rate"] = args.pooled_rate or optimizer.learning_rate * larger
        return [Job(kind, seed, None, args.config, keys)]
    # The longest first, so that no core waits long for the last one.
    shards = sorted(range(data.num_shards), key=lambda shard: -data.shards[shard].train.rows)
    return [Job(kind, seed, shard, args.config, keys) for shard in shards]


def digest(job: Job, data: Manifest) -> str:
    """Of what an outcome depends on, but for the code; comments in the configuration do not count."""
    content = [yaml.safe_load(job.config.read_text(encoding="utf-8")), job.overrides, data.to_json()]
    return hashlib.sha256(json.dumps(content, default=str).encode("utf-8")).hexdigest()[:16]


def read_outcome(job: Job, run: RunDirectory, key: str, seconds: float, parts: Manifest | None) -> Outcome:
    """The figures of a job that has ended well.

    Args:
        key: see `digest`.
        seconds: how long it took.
        parts: the shards to measure its model on, if the job itself has had them as one; None for its workers' own.

    Raises:
        RunError: the model that is saved is not as good as the job has measured.
    """
    result = json.loads(run.result.read_text(encoding="utf-8"))
    kept, figures = run.path / result["model"], result["best"] or result["last"]
    if parts is None:
        records = [each for each in run.read_metrics() if each["epoch"] == figures["epoch"] and each["client"] != ALL]
        scores = [
            Score(each["client"] if job.shard is None else job.shard, each["test_users"], each["hr"], each["ndcg"])
            for each in sorted(records, key=lambda each: each["client"])
        ]
    else:
        scores = measure_model(kept, Config.load(run.config), parts)
        for name in METRICS:
            measured = figures[f"{name}@{TOP_K}"]
            if abs(total(scores, name) - measured) > TOLERANCE:
                raise RunError(
                    f"{job.name}: a saved model must be as good as the job that saved it has measured, {name} "
                    f"{measured:.4f}. Received: {total(scores, name):.4f}."
                )
    return Outcome(
        kind=job.kind,
        seed=job.seed,
        shard=job.shard,
        digest=key,
        minutes=seconds / 60,
        kept=figures["epoch"],
        epochs=tuple((each["hr@10"], each["ndcg@10"]) for each in result["epochs"]),
        scores=tuple(scores),
    )


def measure_model(folder: Path, config: Config, parts: Manifest) -> list[Score]:
    """Measures a saved model on each test shard, in this process."""
    import paddle

    from fl_rec.evaluation.evaluator import EvaluationRows
    from fl_rec.runs import models

    paddle.enable_static()
    net = models.load(folder)
    reader = Reader.from_config(config, config.yaml_path)
    runner, scores = config.runner, []
    for number, shard in enumerate(parts.shards):
        rows = EvaluationRows.read([parts.folder / shard.test.file], reader, len(net.feeds) + 1, runner.start_timeout)
        scores.append(_score(number, rows.measure(net, runner.infer_batch_size, TOP_K)))
    return scores


def _score(shard: int, ranked: Evaluation) -> Score:
    return Score(shard, ranked.users, ranked.hit_rate, ranked.ndcg)


def total(scores: Sequence[Score], name: str) -> float:
    """The figure of all users together."""
    return float(np.average([getattr(score, name) for score in scores], weights=[score.users for score in scores]))


# --- The table -----------------------------------------------------------------------------------------


class Table:
    """Figures by kind and shard, one for each seed.

    Args:
        scores: kind -> for each seed, those of some shards.
        num_shards: only with all of them there is a figure of all.
    """

    def __init__(self, scores: Mapping[str, Sequence[Sequence[Score]]], num_shards: int) -> None:
        self.kinds = tuple(scores)
        self.shards = range(num_shards)
        self.users: dict[int, int] = {}
        self._values: dict[tuple[str, str, int | str], list[float]] = {}
        for kind, seeds in scores.items():
            for of_seed in seeds:
                for name in METRICS:
                    for score in of_seed:
                        self.users[score.shard] = score.users
                        self._add(kind, name, score.shard, getattr(score, name))
                    if len(of_seed) == num_shards:
                        self._add(kind, name, ALL, total(of_seed, name))

    def _add(self, kind: str, name: str, shard: int | str, value: float) -> None:
        self._values.setdefault((kind, name, shard), []).append(value)

    def values(self, kind: str, name: str, shard: int | str = ALL) -> list[float]:
        return self._values.get((kind, name, shard), [])

    def mean(self, kind: str, name: str, shard: int | str = ALL) -> float | None:
        """Over the seeds; None if there is no figure."""
        values = self.values(kind, name, shard)
        return statistics.mean(values) if values else None

    def difference(self, kind: str, other: str, name: str, shard: int | str = ALL) -> float | None:
        """Of the means, the first minus the other; None if one is missing."""
        one, two = self.mean(kind, name, shard), self.mean(other, name, shard)
        return None if one is None or two is None else one - two

    def better(self, kind: str, other: str, name: str) -> list[bool] | None:
        """For each shard, whether the mean is higher; None if one is missing."""
        differences = [self.difference(kind, other, name, shard) for shard in self.shards]
        known = [each > 0 for each in differences if each is not None]
        return known if len(known) == len(differences) else None

    def to_record(self) -> dict[str, Any]:
        """For the line of JSON: kind -> metric -> shard -> mean, spread, and each seed's."""
        return {
            kind: {
                name: {
                    str(shard): {
                        "mean": self.mean(kind, name, shard),
                        "spread": spread(self.values(kind, name, shard)),
                        "seeds": self.values(kind, name, shard),
                    }
                    for shard in (*self.shards, ALL)
                }
                for name in METRICS
            }
            for kind in self.kinds
        }

    def format(self, title: str) -> str:
        lines = []
        for name, shown in METRICS.items():
            for shard in (*self.shards, ALL):
                users = sum(self.users.values()) if shard == ALL else self.users.get(int(shard), 0)
                cells = [self._cell(kind, name, shard) for kind in self.kinds]
                lines.append([shown, str(shard), f"{users:,}", *cells])
        return titled_table(title, ["metric", "shard", "users", *self.kinds], lines)

    def _cell(self, kind: str, name: str, shard: int | str) -> str:
        deviation = spread(self.values(kind, name, shard))
        shown = figure(self.mean(kind, name, shard), ".4f")
        return shown if deviation is None else f"{shown} ± {deviation:.4f}"


def conclude(table: Table) -> list[str]:
    """What the figures say of the federated model, in three sentences."""
    sentences = []
    difference = table.difference("best", "pooled", "hr")
    if difference is None:
        sentences.append(f"Best minus pooled in {METRICS['hr']}: not measured.")
    else:
        verdict = "holds" if difference >= LEAST_DIFFERENCE else "is broken"
        sentences.append(
            f"Best minus pooled in {METRICS['hr']}: {difference:+.4f}; the rule, {LEAST_DIFFERENCE} or more, {verdict}."
        )
    better = {shown: table.better("best", "alone", name) for name, shown in METRICS.items()}
    counts = [f"{sum(each)} of {len(each)} shards in {shown}" for shown, each in better.items() if each is not None]
    sentences.append(f"The federated model beats the shard alone: {' and '.join(counts) or 'not measured'}.")
    means = {name: table.mean("best", name) for name in GOALS}
    parts = [
        f"{METRICS[name]} of {mean:.4f} {'reaches' if mean >= GOALS[name] else 'is below'} {GOALS[name]:.3f}"
        for name, mean in means.items()
        if mean is not None
    ]
    sentences.append(f"The federated model's {', its '.join(parts) or 'figures: not measured'}.")
    return sentences


# --- The benchmark -------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, folder: Path) -> Report:
    """All jobs of a seed, then the next seed; the others also after one that failed."""
    data = open_data(args.data, folder, config=args.config)
    record = Record(args.record)
    failures: list[str] = []
    outcomes: list[Outcome] = []

    @functools.cache
    def data_of(kind: str, shard: int | None) -> Manifest:
        if kind == "pooled":
            return pool(data, folder / "data-pooled")
        return data if shard is None else one_shard(data, shard, folder / f"data-{shard}")

    def play(job: Job, stop: threading.Event) -> Outcome | None:
        key = digest(job, data)
        outcome = record.find((job.kind, job.seed, job.shard, key))
        if outcome is None:
            path = folder / job.name
            parts = data if job.kind == "pooled" else None
            run = run_job(path, data_of(job.kind, job.shard), job.overrides, args.timeout, config=job.config, stop=stop)
            if stop.is_set():
                return None
            try:
                if run.failure:
                    raise RunError(run.failure)
                outcome = read_outcome(job, RunDirectory(path), key, run.seconds, parts)
            except FLRecError as err:
                failures.append(str(err))
                say(f"job       {err}")
                return None
            record.add(outcome)
            if not args.keep:  # every epoch's model would fill the disk
                shutil.rmtree(path)
        figures = ", ".join(f"{shown} {total(outcome.scores, name):.4f}" for name, shown in METRICS.items())
        say(f"job       {job.name}: {figures} ({outcome.minutes:.1f} minutes)")
        return outcome

    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for kind in args.only:
            jobs = [functools.partial(play, job) for job in plan(args, data, kind, seed)]
            # Jobs of one worker leave the other cores idle.
            width = args.at_once if kind == "alone" else 1
            outcomes += [outcome for outcome in run_side_by_side(jobs, width) if outcome is not None]

    scores: dict[str, list[list[Score]]] = {}
    for kind in args.only:
        seeds = sorted({outcome.seed for outcome in outcomes if outcome.kind == kind})
        scores[kind] = [
            [score for each in outcomes if (each.kind, each.seed) == (kind, seed) for score in each.scores]
            for seed in seeds
        ]
        if kind == "popularity":
            scores[kind] = [[_score(*each) for each in enumerate(popularity(data, TOP_K))]]
    table = Table(scores, data.num_shards)
    conclusions = conclude(table)
    figures = {
        **describe_data(data),
        "config": args.config.name,
        "first_seed": args.first_seed,
        "seeds": args.seeds,
        "table": table.to_record(),
        "best_minus_pooled": {name: table.difference("best", "pooled", name) for name in METRICS},
        "best_above_alone": {name: table.better("best", "alone", name) for name in METRICS},
        "jobs": [dataclasses.asdict(outcome) for outcome in outcomes],
        "conclusions": conclusions,
    }
    title = "{source}: {train_rows:,} training rows, {workers} shards, {seeds} seed(s) from {first_seed}, {config}"
    shown = [table.format(title.format(**figures))]
    lines = [
        [each.kind, str(each.seed), f"{each.minutes:.1f}", str(len(each.epochs)), str(each.kept)]
        for each in outcomes
        if each.shard is None
    ]
    if lines:
        shown.append(titled_table("jobs", ["kind", "seed", "minutes", "epochs", "kept"], lines))
    return Report("\n\n".join([*shown, "\n".join(conclusions)]), figures, failures)


def kinds(text: str) -> tuple[str, ...]:
    """An argument that is a comma list of `KINDS`."""
    given = text.split(",")
    strange = [name for name in given if name not in KINDS]
    if strange:
        raise argparse.ArgumentTypeError(f"must be some of {','.join(KINDS)}. Received: {','.join(strange)}")
    return tuple(kind for kind in KINDS if kind in given)


def main() -> int:
    cores = len(os.sched_getaffinity(0))
    parser = new_parser(__doc__)
    add_data_argument(parser)
    add_config_argument(parser)
    parser.add_argument("--only", type=kinds, default=KINDS, metavar="KIND,...", help="(default: all)")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="(default: 3; --quick: 1)")
    parser.add_argument("--first_seed", type=count, default=2022, metavar="N", help="(default: 2022)")
    parser.add_argument(
        "--epochs", type=count, metavar="N", help="of all but plain (default: the configuration's; --quick: 2)"
    )
    parser.add_argument("--plain_epochs", type=count, default=20, metavar="N", help="(default: 20; --quick: 2)")
    parser.add_argument(
        "--pooled_batch",
        type=count,
        metavar="N",
        help=f"train_batch_size of pooled (default: {POOLED_BATCHES} times the configuration's)",
    )
    parser.add_argument(
        "--pooled_rate",
        type=float,
        metavar="RATE",
        help="learning_rate of pooled (default: the configuration's; with sgd as many times that as its batch is)",
    )
    parser.add_argument(
        "--at_once", type=count, default=cores, metavar="N", help="jobs of alone at a time (default: one for each core)"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="add each job's figures to it, and take known ones")
    parser.add_argument(
        "--timeout", type=count, default=6 * 3600, metavar="S", help="seconds until a job has hung (default: 6 hours)"
    )
    return run_benchmark(parser, {"data": None, "seeds": 1, "epochs": 2, "plain_epochs": 2}, measure)


if __name__ == "__main__":
    sys.exit(main())
