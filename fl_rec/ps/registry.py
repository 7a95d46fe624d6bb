"""The exchanges that `runner.exchange` may name. No Paddle is imported here."""

from __future__ import annotations

from typing import Any

from fl_rec import plugins
from fl_rec.config import Config
from fl_rec.data.check import Facts
from fl_rec.plugins import Registry

# Subclasses of fl_rec.ps.exchange.Exchange.
EXCHANGES: Registry[Any] = Registry(
    "an exchange",
    "runner.exchange",
    {
        "geo": "fl_rec.ps.exchange:Geo",
        "synchronous_geo": "fl_rec.ps.exchange:SynchronousGeo",
        "robust_geo": "fl_rec.ps.robust:RobustGeo",
        "secure_geo": "fl_rec.ps.secure:SecureGeo",
        "async": "fl_rec.ps.exchange:Async",
    },
    base="fl_rec.ps.exchange:Exchange",
)


def exchange_name(config: Config) -> str:
    """The configured exchange: `runner.exchange`, or else what the other keys of `runner` say."""
    runner = config.runner
    robust = "robust_geo" if runner.aggregation in ("trimmed_mean", "median") else "synchronous_geo"
    synchronous = "secure_geo" if runner.secure_aggregation else robust
    geo = synchronous if runner.exchanges_per_epoch else "geo"
    return runner.exchange or ("async" if runner.sync_mode == "async" else geo)


def check(config: Config, _job: Facts) -> Config:
    """The configuration with the file of a user's exchange found from anywhere; it is not imported yet.

    Raises:
        ConfigError: there is no exchange of the configured name.
    """
    folder, own = config.yaml_path.parent, config.runner.exchange
    EXCHANGES.locate(exchange_name(config), folder)
    return config.replace(**{"runner.exchange": plugins.absolute(own, folder)}) if own else config
