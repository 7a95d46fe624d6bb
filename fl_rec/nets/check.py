"""Whether there are the configured net and loss, and whether the machine can hold them. No Paddle is imported here."""

from __future__ import annotations

from typing import Protocol

import psutil

from fl_rec import environment
from fl_rec.config import Config, HyperParameters
from fl_rec.errors import ConfigError
from fl_rec.nets.contract import locate_net
from fl_rec.nets.losses import find_loss
from fl_rec.plugins import absolute

_GB = 1e9


class _Job(Protocol):
    @property
    def workers(self) -> int: ...


def check(config: Config, job: _Job) -> Config:
    """The configuration with the file of a user's loss found from anywhere.

    Raises:
        ConfigError: there is no such net or loss, see `find_loss`; or its embeddings take more than all memory.
    """
    with environment.importing():  # a user's file may import Paddle
        find_loss(config)
    locate_net(config.runner.model_path)
    _require_memory(config, job.workers)
    return config.replace(**{"hyper_parameters.loss": absolute(config.hyper_parameters.loss, config.yaml_path.parent)})


def _require_memory(config: Config, workers: int) -> None:
    """ConfigError if the embeddings, without what an optimizer and an exchange keep beside them, are more than that."""
    runner, hyper = config.runner, config.hyper_parameters
    users, items = hyper.num_users or 0, hyper.num_items or 0
    # A worker has its own users' rows, or everybody's.
    own = runner.private_params != () and runner.sync_mode == "geo" and runner.split_file_list
    rows = items * workers + users * (1 if own else workers)
    needed, there = 4 * rows * _least_width(config), psutil.virtual_memory().total
    if needed > there:
        raise ConfigError(
            f"The embeddings of all workers must fit into this machine's memory, {there / _GB:.0f} GB. Received: "
            f"hyper_parameters.num_users={users}, num_items={items}, which take {needed / _GB:.0f} GB in {workers} "
            "workers. Number users and items from 0 up without wide gaps, start fewer workers, or make the embeddings "
            "narrower."
        )


def _least_width(config: Config) -> int:
    """Numbers that the net has at least for a user, or an item."""
    hyper: HyperParameters = config.hyper_parameters
    if config.runner.model_path != environment.shipped("models/ncf/static_model.py"):
        return 1
    gmf, mlp = hyper.mf_dim, hyper.fc_layers[0] // 2
    return {"NCF_GMF": gmf, "NCF_MLP": mlp}.get(hyper.mode, gmf + mlp)
