"""What the coordinator and the workers know of each client before it says anything."""

from __future__ import annotations

import math
from collections.abc import Callable

from fl_rec.config import Config
from fl_rec.coordinator.claims import Limits, limits_of
from fl_rec.evaluation.claims import Known
from fl_rec.job.check import check_job


def test_the_manifest_says_what_a_client_has(load_job: Callable[..., Config]) -> None:
    config = load_job()
    assert limits_of(config, 2) == [Limits(2, 1), Limits(3, 1)]
    assert limits_of(config, 3) == [Limits()] * 3, "of other clients nothing is known"
    assert check_job(config, 2).known == (Known(1, 2, 0),) * 2


def test_without_one_there_are_the_nets_users(load_job: Callable[..., Config]) -> None:
    sizes = "hyper_parameters.num_users=7", "hyper_parameters.num_items=9"
    config = load_job(*sizes, manifest=False)
    assert limits_of(config, 2) == [Limits(math.inf, math.inf)] * 2
    assert check_job(config, 2).known == (Known(7, None, 0),) * 2


def test_each_row_of_a_group_may_be_one(load_job: Callable[..., Config]) -> None:
    assert limits_of(load_job(group_size=3, test=False), 2) == [Limits(6, math.inf), Limits(9, math.inf)]
