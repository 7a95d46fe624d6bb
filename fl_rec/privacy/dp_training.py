"""Training with differential privacy of what is shared; see `fl_rec.privacy.mechanism` for what that means."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from fl_rec.config import Config
from fl_rec.data.rows import TrainingRows
from fl_rec.errors import ConfigError, DataError
from fl_rec.nets import graph
from fl_rec.nets.program import TrainingProgram
from fl_rec.privacy import accountant, mechanism
from fl_rec.privacy.accountant import Ledger, Spent
from fl_rec.privacy.mechanism import Change
from fl_rec.privacy.noise import ALL_OF_IT, NoisePart
from fl_rec.privacy.one_worker_each import Gather


class DpTraining:
    """Trains user by user, and leaves in the shared parameters the clipped and noisy sum of the users' changes.

    The rows of a drawn user are one batch, with which the training program takes one step of SGD from the model of the
    last exchange. Of the shared parameters it only computes the step, minus the learning rate times the gradient: their
    optimizers are taken out of the program, so that there is nothing to put back before the next user, and nothing by
    which one user's change could depend on another's. The user's own private rows are changed in place, and stay.

    This is for synchronous exchanges only: without them Paddle's communicator sends rows on its own while the worker
    trains, in C++, where there is no place between a user's change and the sending of it.

    Args:
        config: `privacy` and `runner.exchanges_per_epoch` are read.
        program: initialised, without `send` operators. It is changed: from now on it is for this only.
        private: names of the private parameters, all of them tables looked up by the user's id.
        rows: this worker's rows.
        ledger: of this worker.
        noise: what this worker adds of it.

    Attributes:
        exchanges: of how many the model is; those of a run that broke off and goes on are paid for besides.

    Raises:
        ConfigError: the net is one whose users' changes can't be told apart.
    """

    def __init__(
        self,
        config: Config,
        program: TrainingProgram,
        private: Collection[str],
        rows: TrainingRows,
        ledger: Ledger,
        noise: NoisePart = ALL_OF_IT,
    ) -> None:
        import paddle

        if config.privacy.clip is None:
            raise ConfigError("DpTraining needs privacy.clip. Received: null. Set it, such as to 1.")
        self._config = config
        self._clip: float = config.privacy.clip
        self._deviation = config.privacy.noise_multiplier * self._clip * noise.share
        self._room = noise.room
        self._program = program
        self._rows = rows
        self._inputs = {feed.name: graph.dtype_of(feed) for feed in program.feeds}
        self._pass, self._users = -1, _Users([np.empty((0, 1), np.int64) for _ in program.feeds])
        self.exchanges, self._ledger = 0, ledger
        _require_stateless(program, private)
        self._steps = graph.take_out_sgd(program.main, private)
        # Who knew the coins of a dropout would know in whose step they fell.
        paddle.seed(secrets.randbits(63))

    def new_generator(self) -> np.random.Generator:
        """What the users of an exchange and its noise are drawn with.

        The system's entropy, anew each time, and not runner.seed: who can guess the seed can take the noise off.
        """
        return np.random.default_rng()

    def begin_epoch(self, epoch: int) -> None:
        """What is trained from now on is of this epoch."""
        self.exchanges = (epoch - 1) * self._config.runner.exchanges_per_epoch
        self._ledger.exchanges = max(self._ledger.exchanges, self.exchanges)  # of a run whose ledger is not there

    def train(self) -> None:
        """Trains for the next exchange."""
        generator = self.new_generator()
        model = {name: self._program.value(name) for name in self._steps}
        total = {name: np.zeros(values.shape) for name, values in model.items()}
        for rows in self._epoch().draw(accountant.users_per_exchange(self._config), generator):
            mechanism.add(total, mechanism.clipped(self._change(rows), self._clip))
        mechanism.cut(total, self._room)
        mechanism.add_noise(total, self._deviation, generator)
        for name, values in model.items():
            self._program.set_value(name, (values + total[name]).astype(np.float32))
        self.pay()

    def pay(self) -> None:
        """For the next exchange, whether this worker trains for it or others do: epsilon is the run's."""
        self.exchanges += 1
        self._ledger.pay()

    def take_up(self, gather: Gather) -> None:
        """Has each worker's ledger tell of the most that one has paid for: when a run breaks off, some had not yet."""
        paid = gather(np.array([self._ledger.exchanges], np.float64), "the privacy that was spent")
        self._ledger.exchanges = int(paid.max())

    def spent(self) -> Spent:
        """The guarantee of the exchanges so far, of a run that has broken off and goes on those of both."""
        return Spent.of(self._config, self._ledger.exchanges)

    def _epoch(self) -> _Users:
        """This epoch's rows of every user."""
        number = self.exchanges // self._config.runner.exchanges_per_epoch
        if number != self._pass:
            self._users = _Users(self._rows.of_pass(number))
            self._pass = number
        return self._users

    def _change(self, rows: Sequence[np.ndarray]) -> dict[str, Change]:
        """What one step with a user's rows would change of the shared parameters."""
        feed = {name: slot.astype(dtype, copy=False) for (name, dtype), slot in zip(self._inputs.items(), rows)}
        with self._program.scores_watched("differential privacy's steps"):
            self._program.executor.run(self._program.main, feed=feed, scope=self._program.scope)
        changes = {}
        for name, step in self._steps.items():
            rate = self._program.value(step.rate).astype(np.float64).reshape(-1)[0]
            if step.sparse:
                table = self._program.scope.find_var(step.gradient).get_selected_rows()
                changes[name] = Change.of_rows(np.array(table.rows()), -rate * np.array(table.get_tensor()))
            else:
                changes[name] = Change(None, -rate * self._program.value(step.gradient))
        return changes


class _Users:
    """Rows by user."""

    def __init__(self, slots: Sequence[np.ndarray]) -> None:
        """`slots` are arrays [rows, width], the first of them the user's id, [rows, 1]."""
        if slots[0].shape[1] != 1:
            raise DataError(
                f"A training row must have one user, who is kept private. Received: {slots[0].shape[1]} values in its "
                "first slot. Make the user's id the first slot, or leave privacy.clip out."
            )
        order = np.argsort(slots[0][:, 0], kind="stable")
        self._slots = [slot[order] for slot in slots]
        edges = np.flatnonzero(np.diff(self._slots[0][:, 0])) + 1
        self._edges = [0, *edges.tolist(), len(order)] if len(order) else [0]

    def draw(self, chance: float, generator: np.random.Generator) -> Iterator[list[np.ndarray]]:
        """The rows of each user that is drawn, slot by slot; each user is drawn independently of the others."""
        for user in np.flatnonzero(generator.random(len(self._edges) - 1) < chance):
            rows = slice(self._edges[user], self._edges[user + 1])
            yield [slot[rows] for slot in self._slots]


def _require_stateless(program: TrainingProgram, private: Collection[str]) -> None:
    """What the program keeps from batch to batch is parameters and figures, and nothing else."""
    if not private:
        raise ConfigError(
            "privacy.clip needs the users' embeddings to be private, each with its worker. Received: a net with no "
            "table that is looked up by its first feed, the user's id. Look one up by that very variable, or leave "
            "privacy.clip out."
        )
    received = graph.carried_over(program.main, program.statistics)
    if received:
        raise ConfigError(
            "privacy.clip needs a user's change to depend on nothing but the last exchange's model and the user's own "
            f"rows. Received: {', '.join(received)}, which would carry one user's rows over to the next. Have "
            "create_optimizer make SGD, keep no statistics of batches in the net, or leave privacy.clip out."
        )
