"""The exchanges that `runner.exchange` may name. No Paddle is imported here."""

from __future__ import annotations

from typing import Any

from fl_rec.config import Config
from fl_rec.plugins import Registry

# Subclasses of fl_rec.ps.exchange.Exchange.
EXCHANGES: Registry[Any] = Registry(
    "an exchange",
    "runner.exchange",
    {
        "geo": "fl_rec.ps.exchange:Geo",
        "synchronous_geo": "fl_rec.ps.exchange:SynchronousGeo",
        "async": "fl_rec.ps.exchange:Async",
    },
    base="fl_rec.ps.exchange:Exchange",
)


def exchange_name(config: Config) -> str:
    """The configured exchange: `runner.exchange`, or else what `sync_mode` and `exchanges_per_epoch` say."""
    runner = config.runner
    geo = "synchronous_geo" if runner.exchanges_per_epoch else "geo"
    return runner.exchange or ("async" if runner.sync_mode == "async" else geo)


def check(config: Config) -> None:
    """ConfigError if there is no exchange of the configured name; a user's own is not imported yet."""
    EXCHANGES.locate(exchange_name(config), config.yaml_path.parent)
