"""What can be known to be wrong with a job's coordinator before it starts. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Iterable

from fl_rec import plugins
from fl_rec.config import Config
from fl_rec.coordinator.strategies import Fleet, new_strategy
from fl_rec.data.check import Facts
from fl_rec.errors import ConfigError
from fl_rec.secure import Tls
from fl_rec.typed import to_plain


def check_files(config: Config, clients: Iterable[int]) -> None:
    """Raises ConfigError if there is none of this host's clients' certificates, or the first ones here won't do; each
    role looks at its own."""
    own = [f"client-{number}" for number in clients]
    files = [tls for name in ("coordinator", *own) if (tls := Tls.of(config.tls, name))]
    here = [tls for tls in files if tls.cert.exists()]
    for tls in (here or (files[-1:] if own else []))[:2]:
        tls.check()


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
    check_files(config, range(job.workers) if job.own is None else sorted(job.own))
    fleet = Fleet(job.workers, config.runner.epochs, config.runner.seed, config=config)
    strategy = new_strategy(settings.strategy, settings.options, fleet, folder)
    return config.replace(
        **{
            "coordinator.strategy": plugins.absolute(settings.strategy, folder),
            "coordinator.options": to_plain(strategy.options),
            "coordinator.report_fields": {**settings.report_fields, **strategy.report_fields},
        }
    )
