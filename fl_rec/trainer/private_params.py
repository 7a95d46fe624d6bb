"""Which parameters of a net stay with their worker."""

from __future__ import annotations

import fnmatch
from typing import Any

from fl_rec.config import Config
from fl_rec.errors import ConfigError
from fl_rec.nets.graph import looked_up


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
    ids = looked_up(program)
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
