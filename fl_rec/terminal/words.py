"""Figures, settings and paths, as people say them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Where the data lies is said with the data, the run's folder with the run.
_SAID_ELSEWHERE = {f"runner.{name}_dir" for name in ("train_data", "test_data", "validation_data", "run")}
_SAID_ELSEWHERE |= {"runner.epochs", "runner.exchanges_per_epoch", "runner.sync_mode"}


def changed(settings: Mapping[str, Any]) -> str:
    """Settings: "geo_step=20, optimizer.learning_rate=0.01"."""
    short = {name: name.removeprefix("runner.").removeprefix("hyper_parameters.") for name in settings}
    return ", ".join(f"{short[name]}={shown(each)}" for name, each in settings.items() if name not in _SAID_ELSEWHERE)


def shown(value: Any) -> str:
    """A plain value, short."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {shown(each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, str) and os.sep in value:
        return Path(value).name
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def place(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def plural(count: int, word: str) -> str:
    """ "1 epoch", "20 epochs"."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def signed(value: float) -> str:
    """A difference of shares; "" if there is none."""
    return f"{value:+.3f}" if math.isfinite(value) else ""


def duration(seconds: float) -> str:
    """ "4.6 s", "1 min 34 s", "2 h 5 min"."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def compared(hr: float, popularity: float) -> str:
    """A hit rate against that of ranking by popularity, in a sentence."""
    gap = round(hr - popularity, 3)
    if gap > 0:
        return f"{gap:.3f} above popularity ({popularity:.3f}): a hit for {100 * gap:.1f} more of 100 users"
    if gap == 0:
        return f"as good as popularity ({popularity:.3f}), which needs no model"
    return f"{-gap:.3f} BELOW popularity ({popularity:.3f}): ranking by counts is better"
