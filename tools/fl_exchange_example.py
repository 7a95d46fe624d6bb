"""An exchange of one's own, as an example: a client counts by the root of its rows.

    ./fl_run.sh -m configs/ml1m_best.yaml -o runner.exchange=../tools/fl_exchange_example.py:RootOfRows

Between `mean`, by which a client of few rows weighs as much as one of many, and `weighted`, by which it is hardly
heard. What else an exchange may do is in fl_rec/ps/exchange.py.
"""

from __future__ import annotations

import numpy as np

from fl_rec.ps.exchange import SynchronousGeo


class RootOfRows(SynchronousGeo):
    """`runner.exchanges_per_epoch` must be set."""

    def share(self, rows: int, everyone: np.ndarray) -> float:
        return float(np.sqrt(rows) / np.sqrt(everyone).sum())
