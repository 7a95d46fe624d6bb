"""What can be known to be wrong with a job's coordinator before it starts. No Paddle is imported here."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fl_rec import plugins
from fl_rec.config import Config
from fl_rec.coordinator.strategies import Fleet, new_strategy
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.privacy.secure_sum.clients import least_of
from fl_rec.secure import Tls
from fl_rec.typed import to_plain


def check_files(config: Config, clients: Iterable[int], coordinator: bool) -> None:
    """Looks at the certificates of this host's part of a coordinator's job, before a process of it starts.

    Args:
        clients: this host's.
        coordinator: whether it is on this host.

    Raises:
        ConfigError: one is missing or won't do, or is another client's.
    """
    known: dict[Tls, frozenset[str]] = {}
    for name in (*(["coordinator"] if coordinator else []), *(f"client-{number}" for number in clients)):
        tls = Tls.of(config.tls, name)
        if tls is None:
            return
        if tls not in known:  # one for all is looked at once
            known[tls] = tls.check()
        others = {each for each in known[tls] if re.fullmatch(r"client-\d+", each)}
        if name != "coordinator" and others and name not in others:
            raise ConfigError(
                f"tls.cert of a client must be its own. Received: {tls.cert}, of {', '.join(sorted(others))}, for "
                f"{name}. fl-rec certs DIR makes one for each; {{name}} in the path stands for the client."
            )


def check(config: Config, job: Facts) -> Config:
    """The configuration with the strategy's options and paths filled in, so that it can be read elsewhere.

    Raises:
        ConfigError: there is no such strategy, an option is refused, or there are fewer clients than configured.
    """
    if not job.coordinators:
        return config
    settings, folder = config.coordinator, config.yaml_path.parent
    if job.coordinators > 1:
        raise ConfigError(f"A job has one coordinator at most. Received: --coordinator_num={job.coordinators}.")
    unknown = [client for client in settings.clients if client != "*" and int(client) >= job.workers]
    if unknown:
        raise ConfigError(
            f"coordinator.clients must name clients 0 to {job.workers - 1}. Received: {', '.join(unknown)}."
        )
    fleet = Fleet(job.workers, config.runner.epochs, config.runner.seed, config=config)
    strategy = new_strategy(settings.strategy, settings.options, fleet, folder)
    if config.runner.secure_aggregation and strategy.most < (least := least_of(config, job.workers)):
        raise ConfigError(
            f"runner.secure_aggregation needs {least} clients or more that train at once: a sum of fewer tells what "
            f"each has changed{', or has too little noise' * (config.privacy.clip is not None)}. Received: "
            f"coordinator.strategy={settings.strategy}, which has {strategy.most} train in a round. Let it have more "
            "(coordinator.options.k), or leave runner.secure_aggregation out."
        )
    return config.replace(
        **{
            "coordinator.strategy": plugins.absolute(settings.strategy, folder),
            "coordinator.options": to_plain(strategy.options),
            "coordinator.report_fields": {**settings.report_fields, **strategy.report_fields},
        }
    )
