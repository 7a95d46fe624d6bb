"""Whether there are the configured net and loss. No Paddle is imported here."""

from __future__ import annotations

from fl_rec import environment
from fl_rec.config import Config
from fl_rec.nets.contract import locate_net
from fl_rec.nets.losses import find_loss
from fl_rec.plugins import absolute


def check(config: Config, _job: object) -> Config:
    """The configuration with the file of a user's loss found from anywhere.

    Raises:
        ConfigError: there is no such net or loss; see `find_loss`.
    """
    with environment.importing():  # a user's file may import Paddle
        find_loss(config)
    locate_net(config.runner.model_path)
    return config.replace(**{"hyper_parameters.loss": absolute(config.hyper_parameters.loss, config.yaml_path.parent)})
