"""The parameters of a net that stay with their worker, and this worker's part of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.nets import graph
from fl_rec.nets.own_users import ALL_USERS, AllUsers, OwnUsers
from fl_rec.nets.program import TrainingProgram
from fl_rec.runs.private_parts import Part

if TYPE_CHECKING:
    from fl_rec.nets.inference import InferenceNet, ScoringProgram


class PrivateParams(Mapping[str, bool]):
    """A net's private parameters: name -> whether it is an embedding, of which a worker trains some rows only.

    Attributes:
        users: who have rows in those that are looked up by the user's id; see `keep_own`.
    """

    def __init__(self, by_row: Mapping[str, bool]) -> None:
        self._by_row = by_row
        self.users: AllUsers = ALL_USERS
        self._untrained: dict[str, np.ndarray] = {}

    @classmethod
    def of(cls, config: Config, program: TrainingProgram) -> PrivateParams:
        """Those that runner.private_params names; null is every embedding that is looked up by the user's id.

        Raises:
            ConfigError: a name fits no parameter.
        """
        return cls(private_parameters(config, program.main, program.feeds[0].name))

    def __getitem__(self, name: str) -> bool:
        return self._by_row[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_row)

    def __len__(self) -> int:
        return len(self._by_row)

    def keep_own(
        self, users: Iterable[np.ndarray], config: Config, program: TrainingProgram, scoring: ScoringProgram
    ) -> dict[str, np.ndarray]:
        """Has the tables that are looked up by the user's id, and nothing else, hold a worker's own users only.

        It is not done where one of them is shared, where the net does something else with the ids, and where they are
        to be dumped.

        Args:
            users: those of the worker's rows.
            program: the training program, without an optimizer, and not initialised.
            scoring: of it; resized as well.

        Returns:
            what the training program is to be initialised with.
        """
        import paddle

        startup = paddle.static.default_startup_program()
        tables = graph.tables_of_alone(program.main, program.feeds[0].name)
        possible = tables == graph.tables_of_alone(scoring.program, scoring.feeds[0]) and all(
            self.get(name) and graph.can_keep_rows(startup, name) and graph.can_keep_rows(scoring.startup, name)
            for name in tables
        )
        if not tables or not possible or config.runner.need_dump:
            return {}
        self.users = own = OwnUsers(
            users, {name: int(program.main.global_block().var(name).shape[0]) for name in sorted(tables)}
        )
        feed: dict[str, np.ndarray] = {}
        for name in own.tables:
            feed.update(graph.keep_rows(program.main, startup, name, own.all))
            graph.resize(scoring.program, scoring.startup, name, len(own.all))
        return feed

    def remember(self, program: TrainingProgram) -> None:
        """Notes what training begins with, once the parameters are initialised."""
        self._untrained = {name: program.value(name) for name in self}

    def take_over(self, name: str, values: np.ndarray) -> np.ndarray:
        """What this worker starts from if a saved model has these values of a private parameter."""
        untrained = self._untrained[name]
        if not self[name]:
            return values
        held = np.any(values, axis=1, keepdims=True)
        all_held, held, values = held.all(), self.users.own(name, held), self.users.own(name, values)
        if all_held:  # of a table that all had, nothing is this worker's until it is trained here
            self._untrained[name] = values
        # Rows of other workers' users stay untrained here: else they would be saved as this worker's.
        return np.where(held, values, untrained)

    def parts(self, program: TrainingProgram) -> dict[str, Part]:
        """What this worker has of each, by the data's ids."""
        parts = self._parts(program)
        for name in self.users.tables:
            rows, values = parts[name]
            parts[name] = Part(self.users.ids(rows), values)  # type: ignore[arg-type]
        return parts

    def put_into(self, net: InferenceNet, program: TrainingProgram) -> None:
        """Copies this worker's parts into a net, zeros where it has trained nothing."""
        for name, part in self._parts(program).items():
            net.set_parameter(name, part.into(np.zeros_like(self._untrained[name])))

    def _parts(self, program: TrainingProgram) -> dict[str, Part]:
        return {
            name: Part.trained(program.value(name), untrained, self[name])
            for name, untrained in self._untrained.items()
        }


def private_parameters(config: Config, program: Any, user_feed: str) -> dict[str, bool]:
    """The parameters that runner.private_params names.

    Args:
        config: see `RunnerConfig.private_params`; null is every embedding that is looked up by the user's id.
        program: the training program, before its optimizer.
        user_feed: the variable with the users' ids.

    Returns:
        name -> whether it is an embedding, of which a worker trains some rows only.

    Raises:
        ConfigError: a name fits no parameter.
    """
    ids = graph.looked_up(program)
    names = [parameter.name for parameter in program.all_parameters()]
    patterns = config.runner.private_params
    if patterns is None:
        # Shards that all workers read would have each user in every worker.
        default = config.runner.sync_mode == "geo" and config.runner.split_file_list
        return {name: True for name in names if default and ids.get(name) == {user_feed}}
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(
                f"runner.private_params must name parameters of the net. Received: {pattern!r}. "
                f"The net has {', '.join(names)}."
            )
    return {name: name in ids for name in names if any(fnmatch.fnmatchcase(name, each) for each in patterns)}
