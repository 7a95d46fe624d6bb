"""What a student learns with: its own rows beside the proxy set's, and the distance to the teacher's logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fl_rec.config import Config
from fl_rec.data.rows import Rows, Source
from fl_rec.data.sampling import Stream, generator
from fl_rec.distillation.proxy import FINGERPRINT, LARGEST_LOGIT, LOGITS, SOFT_TARGETS, ProxySet
from fl_rec.errors import RunError
from fl_rec.nets.losses import cross_entropy, logits_of
from fl_rec.nets.own_users import AllUsers
from fl_rec.nets.program import TrainingProgram

# The data feed reads whole numbers: targets travel to the program in thousandths, and this stands for none.
TARGET_UNIT, NO_TARGET = 0.001, 999_999


class Scorer(Protocol):
    """What `fl_rec.nets.inference.InferenceNet` is to a student, whose module needs no Paddle."""

    def predict(self, inputs: tuple[np.ndarray, ...], batch_size: int) -> np.ndarray: ...


class Student:
    """What a worker learns from a teacher: nothing, without distillation; see `DistilledStudent`.

    Attributes:
        soft_targets: the teacher's logits on the proxy set's rows of the next epoch, float [rows, group]; None if there
            are none.
    """

    soft_targets: np.ndarray | None = None

    @property
    def users(self) -> np.ndarray:
        """Users whose rows it trains beside the worker's own, int64."""
        return np.empty(0, np.int64)

    def add_to(self, program: TrainingProgram) -> None:
        """Adds what it learns with to the training program, before `minimise`."""
        return

    def rows(self, own: Source, seed: int, users: AllUsers) -> Source:
        """What is trained: the worker's own rows, and others.

        Raises:
            DataError: a public user has rows in the shard.
        """
        return own

    def begin_epoch(self, epoch: int) -> None:
        """Before the rows of an epoch are read."""
        return

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint keeps of it."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from it, before the rest of a pass is drawn."""
        return

    def require_no_overlap(self, users: np.ndarray, what: str) -> None:
        """DataError if the figures of these users would know what was trained; see `ProxySet`."""
        return

    def fingerprint(self, declared: Mapping[str, Any]) -> Mapping[str, float]:
        """Fields of every report, of those that are declared."""
        return {}

    def logits(self, net: Scorer, round: int, declared: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """Fields of a report after training, of those that are declared.

        Args:
            net: the model as it was evaluated.
            round: that the decision will be for.
        """
        return {}

    def listen(self, told: Mapping[str, Any]) -> None:
        """Takes the fields of a decision; see `soft_targets`.

        Raises:
            RunError: they are not logits of the proxy set's rows.
        """
        return

    def signature(self) -> dict[str, Any]:
        """What a saved model says of the student."""
        return {}


class DistilledStudent(Student):
    """Learns from the teacher's logits on the rows of a proxy set, beside its own rows.

    Args:
        config: the job's, with every size filled in.
        proxy: the public users' rows.
    """

    def __init__(self, config: Config, proxy: ProxySet) -> None:
        self._config, self.proxy = config, proxy
        self.soft_targets = None

    @property
    def users(self) -> np.ndarray:
        return self.proxy.users

    def add_to(self, program: TrainingProgram) -> None:
        import paddle

        settings = self._config.distillation
        targets = paddle.static.data(SOFT_TARGETS, [-1, program.group_size], "float32")
        program.slots.append(targets)
        program.cost = add_distillation(
            program.cost, program.prediction, targets, settings.temperature, settings.weight
        )

    def rows(self, own: Source, seed: int, users: AllUsers) -> Source:
        self._rows = DistilledRows(own, self.proxy, seed, users)
        return self._rows

    def begin_epoch(self, epoch: int) -> None:
        # What was decided in a round is for the epoch after it.
        self._rows.begin(epoch - 1, self.soft_targets)

    def state(self) -> dict[str, np.ndarray]:
        round, targets = self._rows.drawn
        return {"student_round": np.array(round), **({} if targets is None else {"student_targets": targets})}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._rows.begin(int(state["student_round"]), state.get("student_targets"))

    def require_no_overlap(self, users: np.ndarray, what: str) -> None:
        self.proxy.require_no_overlap(users, what)

    def fingerprint(self, declared: Mapping[str, Any]) -> Mapping[str, float]:
        return {FINGERPRINT: float(self.proxy.fingerprint)} if FINGERPRINT in declared else {}

    def logits(self, net: Scorer, round: int, declared: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        if LOGITS not in declared:
            return {}
        rows = self.proxy.rows(round)
        users: np.ndarray = np.repeat(rows.users, rows.items.shape[1])[:, None]
        scores = net.predict((users, rows.items.reshape(-1, 1)), self._config.runner.infer_batch_size)
        return {LOGITS: to_logits(scores.reshape(rows.items.shape))}

    def listen(self, told: Mapping[str, Any]) -> None:
        if SOFT_TARGETS not in told:
            self.soft_targets = None
            return
        targets = np.asarray(told[SOFT_TARGETS])
        if targets.shape != self.proxy.shape or not np.isfinite(targets).all():
            what = f"of shape {list(targets.shape)}" if targets.shape != self.proxy.shape else "not all finite"
            raise RunError(
                f"A decision's {SOFT_TARGETS} must be finite logits of shape {list(self.proxy.shape)}, for the rows of "
                f"the proxy set. Received: {what}. Look at the strategy {self._config.coordinator.strategy}."
            )
        self.soft_targets = targets

    def signature(self) -> dict[str, Any]:
        return {"public_users": self.proxy.users.tolist()}


def new_student(config: Config) -> Student:
    """The student of a configuration; DataError if its proxy set can't be read."""
    proxy = ProxySet.from_config(config)
    return Student() if proxy is None else DistilledStudent(config, proxy)


class DistilledRows:
    """A worker's own rows and those of the proxy set, each with its soft targets, as a source of training rows.

    A row has one slot more than a net has feeds, int32 [group]: the targets, in units of `TARGET_UNIT`, or `NO_TARGET`.

    Args:
        own: the worker's own rows.
        proxy: the proxy set.
        seed: of the order of the rows.
        users: by whom users go in `own`, and in what this gives.
    """

    def __init__(self, own: Source, proxy: ProxySet, seed: int, users: AllUsers) -> None:
        self._own, self._proxy, self._seed, self._users = own, proxy, seed, users
        self._round = 0
        self._targets: np.ndarray | None = None
        # The round and the targets of the last reading.
        self.drawn: tuple[int, np.ndarray | None] = (0, None)
        self.count = own.count + proxy.shape[0]

    def begin(self, round: int, targets: np.ndarray | None) -> None:
        """Sets which rows of the proxy set the next reading has.

        Args:
            round: from 0.
            targets: logits of the teacher, float [rows, group]; None if there are none: labels teach alone.
        """
        self._round, self._targets = round, targets

    def epoch(self, number: int) -> Rows:
        """As `FreshNegatives.epoch`."""
        self.drawn = self._round, self._targets
        own, rows = self._own.epoch(number), self._proxy.rows(self._round)
        targets = np.full((self.count, self._proxy.shape[1]), NO_TARGET, np.int32)
        if self._targets is not None:
            targets[self._own.count :] = np.rint(np.clip(self._targets, -LARGEST_LOGIT, LARGEST_LOGIT) / TARGET_UNIT)
        proxy = (self._users.places(rows.users[:, None]), rows.items, rows.labels)
        slots = [np.concatenate([mine, public.astype(mine.dtype)]) for mine, public in zip(own, proxy)]
        order = generator(self._seed, Stream.STUDENT_ORDER, number).permutation(self.count)
        return tuple(np.take(slot, order, axis=0) for slot in (*slots, targets))


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities, float16 of the same shape, at most `LARGEST_LOGIT` in size; NaN stays NaN."""
    p: np.ndarray = probabilities.astype(np.float64)
    with np.errstate(divide="ignore"):
        logits: np.ndarray = np.clip(np.log(p) - np.log1p(-p), -LARGEST_LOGIT, LARGEST_LOGIT).astype(np.float16)
    return logits


def add_distillation(cost: Any, prediction: Any, targets: Any, temperature: float, weight: float) -> Any:
    """Adds the distance to a teacher's logits, times T^2 so that its gradient keeps its size (arXiv:1503.02531).

    Args:
        cost: the scalar loss of a batch.
        prediction: the net's probabilities, float32 [batch, group].
        targets: float32 [batch, group], in units of `TARGET_UNIT`, or its NO_TARGET.
        temperature: T, by which both logits are divided.
        weight: of the distance, a mean over all items of the batch, those without a target included.
    """
    import paddle

    known = paddle.cast(targets < NO_TARGET - 0.5, "float32")
    soft = paddle.nn.functional.sigmoid(targets * (TARGET_UNIT / temperature))
    distance = cross_entropy(logits_of(prediction) / temperature, soft, known)
    return cost + weight * temperature**2 * distance
