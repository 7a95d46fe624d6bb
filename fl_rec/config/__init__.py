"""Configuration: a YAML file and overrides become one frozen, typed, checked `Config`."""

from fl_rec.config.loading import Config, load_from_args
from fl_rec.config.reference import json_schema
from fl_rec.config.schema import (
    ClientConfig,
    CoordinatorConfig,
    DistillationConfig,
    HyperParameters,
    OptimizerConfig,
    PrivacyConfig,
    RunnerConfig,
    TlsConfig,
)

__all__ = [
    "ClientConfig",
    "Config",
    "CoordinatorConfig",
    "DistillationConfig",
    "HyperParameters",
    "OptimizerConfig",
    "PrivacyConfig",
    "RunnerConfig",
    "TlsConfig",
    "json_schema",
    "load_from_args",
]
