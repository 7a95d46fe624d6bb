"""Errors that fl_rec raises on purpose; a command line turns each into one message and exit code 2."""

from __future__ import annotations


class FLRecError(Exception):
    """Base of every error whose message is written for the user: the rule, the value received, the remedy."""


class ConfigError(FLRecError):
    """A setting is missing, unknown, of the wrong type or out of range."""


class DataError(FLRecError):
    """A data file is missing, malformed or inconsistent with what the caller declared."""


class RunError(FLRecError):
    """A training or evaluation run could not start, stopped early or produced something unusable."""
