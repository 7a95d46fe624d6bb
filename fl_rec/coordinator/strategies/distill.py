"""Federated distillation: a teacher learns from the clients' logits, and they from the teacher's (see Distill)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fl_rec import plugins
from fl_rec.config import Config
from fl_rec.coordinator.messages import JOIN, ClientReport, Decision
from fl_rec.coordinator.strategies.base import Fleet, Strategy
from fl_rec.distillation.proxy import FINGERPRINT, LOGITS, SOFT_TARGETS, ProxySet
from fl_rec.errors import ConfigError, RunError
from fl_rec.typed import Keys, NonNegativeFloat, PositiveFloat, PositiveInt, Values, key, to_plain

if TYPE_CHECKING:
    from fl_rec.distillation.teacher import Teacher


class Options(Keys):
    selection: str = key("join_all", "the strategy that says who trains: a name, or your own")
    selection_options: Values = key({}, "what that strategy lets you set")
    start: PositiveInt = key(5, "first round with soft targets; until then the clients learn alone")
    combine: Literal["mean", "rows", "confidence", "entropy_reduction"] = key(
        "mean",
        "how the clients' probabilities become one: their mean; weighted by the rows of the shards, or by how far each "
        "is from 1/2; or their mean, sharpened",
    )
    sharpness: PositiveFloat = key(0.1, "temperature of entropy_reduction; the lower, the sharper")
    teacher: Values = key({}, "hyper_parameters in which the teacher differs")
    learning_rate: PositiveFloat = key(0.02, "of the teacher's Adam, in its first round; then it falls")
    first_epochs: PositiveInt = key(20, "passes of the teacher over its first round's rows")
    epochs: PositiveInt = key(3, "and over those of each later round")
    label_weight: NonNegativeFloat = key(0.0, "weight of the proxy set's labels in the teacher's loss")
    batch_size: PositiveInt = key(1024, "rows of a step of the teacher")


class Distill(Strategy):
    """Trains a teacher on the clients' logits, and sends its logits to the clients that train.

    Who trains is another strategy's decision. Each round has its own rows of the proxy set (`ProxySet.rows`): the
    clients report their logits on them, and the decisions bring the teacher's on the same rows. A client whose logits
    are not finite is left out of the round; without any, the teacher stays as it is. Its learning rate falls as
    1 / (1 + rounds since `start`), so that it holds a mean over the rounds: students who imitate each other of the
    round before would lose what each had of its own.
    """

    Options = Options

    def __init__(self, fleet: Fleet, options: Any = None) -> None:
        super().__init__(fleet, options)
        from fl_rec.coordinator.strategies import new_strategy

        proxy = None if fleet.config is None else ProxySet.from_config(fleet.config)
        if fleet.config is None or proxy is None:
            raise ConfigError(
                "coordinator.strategy=distill needs a proxy set, which the coordinator and all clients hold. Received: "
                "no distillation.proxy_data_dir. Make it with fl-rec prepare --public and fl-rec partition."
            )
        if self.options.selection == "distill":
            raise ConfigError("coordinator.options.selection must be another strategy. Received: distill.")
        self._proxy = proxy
        folder = fleet.config.yaml_path.parent
        name, given = self.options.selection, self.options.selection_options
        self._selection = new_strategy(name, given, fleet, folder, "coordinator.options.selection")
        # As it is written down with a run, whose folder is another.
        written = {
            "selection": plugins.absolute(name, folder),
            "selection_options": to_plain(self._selection.options),
        }
        self.options = self.options.model_copy(update=written)
        # One standing for both: who joined and how they fared is what the selection goes by.
        self._selection.standing, self._selection.finished = self.standing, self.finished
        self._config = fleet.config.with_hyper_parameters(self.options.teacher, "coordinator.options.teacher")
        self._require_room(fleet.config)
        self._teacher: Teacher | None = None
        self._learned = -1

    @property
    def report_fields(self) -> Mapping[str, tuple[int, ...]]:
        return {**self._selection.report_fields, LOGITS: self._proxy.shape, FINGERPRINT: ()}

    @property
    def most(self) -> int:
        return self._selection.most

    def decide(self, reports: Mapping[int, ClientReport], round: int) -> Mapping[int, Decision]:
        for client, report in reports.items():
            theirs = report.extra.get(FINGERPRINT, float(self._proxy.fingerprint))
            if theirs != self._proxy.fingerprint:
                raise RunError(
                    f"All must hold the same proxy set. Received: {theirs:.0f} from client {client}, and the "
                    f"coordinator's is {self._proxy.fingerprint}. Compare distillation.proxy_data_dir, runner.seed and "
                    "distillation.positives of both."
                )
        decisions = dict(self._selection.decide(reports, round))
        if not self.options.start <= round < self.fleet.epochs:
            return decisions
        usable = {client: each for client, each in reports.items() if np.isfinite(each.extra[LOGITS]).all()}
        targets = self._learn(usable, round)
        left_out = sorted(set(reports) - set(usable))
        others = f"logits of client{'s' * (len(left_out) > 1)} {', '.join(map(str, left_out))}"
        for client, decision in decisions.items():
            reason = decision.reason
            if left_out:
                whose = "its logits" if client in left_out else others
                reason = f"{reason}{'; ' * bool(reason)}{whose} not finite, left out"
            if decision.next_state == JOIN and targets is not None:
                decision = replace(decision, extra={**decision.extra, SOFT_TARGETS: targets})
            decisions[client] = replace(decision, reason=reason)
        return decisions

    def _require_room(self, config: Config) -> None:
        """ConfigError if a round's logits are longer than a message may be."""
        rows, group = self._proxy.shape
        # Of each row that travels as int8 a scale of float32 travels too.
        row_bytes = min(group + 4, 2 * group) if config.runner.compress_report == "int8" else 2 * group
        needed = rows * row_bytes + 1024  # what a message has besides is less than that
        if needed > config.coordinator.max_message_bytes:
            raise ConfigError(
                f"A round's logits must fit coordinator.max_message_bytes={config.coordinator.max_message_bytes}. "
                f"Received: {rows:,} rows of {group}, {needed:,} bytes with the rest. Lower distillation.positives, or "
                "raise the limit."
            )

    def _learn(self, reports: Mapping[int, ClientReport], round: int) -> np.ndarray | None:
        """Trains the teacher, and returns its logits, float16 [rows, group]; None if it has never learned anything."""
        rows, path = self._proxy.rows(round), self.fleet.folder and self.fleet.folder / "teacher.npz"
        if self._teacher is None:
            # Two seconds to import, and only the coordinator needs it.
            from fl_rec.distillation.teacher import Teacher

            options = self.options
            self._teacher = Teacher(self._config, options.learning_rate, options.label_weight, options.batch_size)
            if path is not None and path.is_file():  # of this run, before its coordinator was lost
                self._learned = self._teacher.load(path)
        if reports and round > self._learned:
            first = self._learned < 0
            self._teacher.train(
                rows,
                self._combine(reports),
                self.options.first_epochs if first else self.options.epochs,
                1 / (1 + round - self.options.start),
                round,
            )
            self._learned = round
            if path is not None:
                self._teacher.save(path, round)
        return self._teacher.logits(rows).astype(np.float16) if self._learned >= 0 else None

    def _combine(self, reports: Mapping[int, ClientReport]) -> np.ndarray:
        """One probability for each item of each row, float64 [rows, group]."""
        logits = np.stack([np.asarray(report.extra[LOGITS], np.float64) for report in reports.values()])
        each = 1 / (1 + np.exp(-logits))
        how = self.options.combine
        weights = np.ones_like(each)
        if how == "rows":
            # Rows of the proxy set are in every client's count.
            own = [max(1, report.shard_rows - self._proxy.shape[0]) for report in reports.values()]
            weights *= np.array(own)[:, None, None]
        elif how == "confidence":
            weights = np.abs(2 * each - 1) + 1e-3
        mean: np.ndarray = (weights * each).sum(0) / weights.sum(0)
        if how == "entropy_reduction":
            # Softmax over the two classes' probabilities, as DS-FL sharpens them.
            mean = 1 / (1 + np.exp(-(2 * mean - 1) / self.options.sharpness))
        return mean
