"""The model of benchmarks/growth.py, fitted to costs that are made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def growth(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("growth_model")


def costs(p: Any) -> dict[str, float]:
    """Those of a job on two cores, whose servers take a second for each worker and exchange."""
    worker_cpu = 1e-6 * p.workers * p.rows + 0.1 * p.workers * p.times
    server_cpu = 1.0 * p.workers * p.times
    return {
        "worker_cpu": worker_cpu,
        "server_cpu": server_cpu,
        "sent": p.workers * p.times * p.touched() * p.row_bytes,
        "received": p.workers * p.times * p.items * 4 * p.width,
        "worker_memory": 3e8 + 1000 * p.users / p.workers,
        "server_memory": 2e8 + 10 * 4 * p.width * p.items / p.servers,
        "start": 5 + 0.5 * (p.workers + p.servers) + 1e-6 * p.workers * p.items,
        "gather": 1e-3 * p.workers,
        "seconds": (worker_cpu + server_cpu) / 2 + 0.2 * p.times,
    }


@pytest.fixture
def model(growth: Any) -> Any:
    points = [
        growth.Point(workers, servers, items=items, width=width, exchanges=exchanges)
        for workers, servers, items, width, exchanges in (
            (2, 1, 4_000, 32, 1),
            (3, 2, 30_000, 8, 5),
            (10, 1, 100_000, 32, 3),
            (20, 4, 4_000, 16, 2),
            (6, 2, 300_000, 8, 1),
        )
    ]
    wrong = growth.Point(workers=5, exchanges=4, checks=True)  # nothing is fitted to it
    return growth.fit([*((each, costs(each)) for each in points), (wrong, dict.fromkeys(costs(wrong), 1e9))], cores=2)


def test_predicts_what_it_was_not_fitted_to(growth: Any, model: Any) -> None:
    point = growth.Point(workers=40, servers=2, users=10**6, items=10**6, rows=10**5, exchanges=7, checks=True)
    for quantity, cost in costs(point).items():
        assert model(quantity, point) == pytest.approx(cost, rel=1e-3), quantity
    assert np.isnan(model("sent", growth.Point()))  # of plain GEO there was none


def test_names_what_saturates_first_in_a_cluster(growth: Any, model: Any) -> None:
    def spent(**changes: int) -> dict[str, float]:
        point = growth.Point(**{"workers": 10, "rows": 10**6, "exchanges": 2, **changes})
        return dict(model.cluster(point, server_cores=10, bandwidth=1e9, latency=0.01))

    few = spent()
    assert few == pytest.approx(
        {
            "training": 1.0,
            "workers' exchange": 0.2,
            "servers' processors": 2.0,
            "servers' network": 10 * 2 * 4_000 * 136 / 1e9,
            "waiting": 0.4,
        },
        rel=1e-3,
    )
    assert spent(servers=4)["servers' processors"] == pytest.approx(0.5, rel=1e-3)
    assert growth.cluster_seconds(few, "synchronous") == pytest.approx(1.0 + 0.2 + 2.0 + 0.4, rel=1e-3)
    assert growth.cluster_seconds(few, "geo") == pytest.approx(2.0, rel=1e-3)
    assert growth.cluster_seconds(spent(servers=4), "geo") == pytest.approx(1.2, rel=1e-3)


def test_no_cost_is_below_zero(growth: Any) -> None:
    # Without the rule it would be 2 of the first and -1 of the second.
    matrix = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert growth.non_negative_least_squares(matrix, np.array([1.0, 2.0, -1.0])) == pytest.approx([1.5, 0.0])


def test_items_that_are_touched(growth: Any) -> None:
    point = growth.Point(items=1000, rows=50_000, exchanges=50)
    assert point.touched() == pytest.approx(1000 * (1 - np.exp(-1)))
    assert growth.Point(items=10**7, rows=100, exchanges=1).touched(2) == pytest.approx(200, rel=1e-3)
    assert growth.Point(rows=512 * 401, geo_step=200).times == 3
