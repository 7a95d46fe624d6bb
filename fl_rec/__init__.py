"""Federated training of recommenders on PaddlePaddle's own parameter server.

    import fl_rec

    columns = {"user": "customer", "item": "sku", "time": "ts"}
    tables = {"users": "customers.csv", "items": "goods.csv"}
    fl_rec.prepare("clicks.csv", "shop", columns=columns, **tables, client_column="region")
    run = fl_rec.train("shop/job.yaml", {"runner.epochs": 8}, on_epoch=lambda epoch: print(epoch.epoch, epoch.hr))
    print(run.metrics[-1])
    model = run.recommender()
    for each in model.recommend("u-00a", top=5):
        print(each.rank, each.item, each.title, each.score)

What a program needs is here: `prepare`, `train`, `Run`, `EpochRecord`, `Recommender`, `Recommendation`, and the errors.
"""

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from fl_rec.api import Run, prepare, train
    from fl_rec.errors import ConfigError, DataError, FLRecError, JobFailed, RunError
    from fl_rec.evaluation.records import EpochRecord
    from fl_rec.serving.recommend import Recommendation, Recommender

# Paddle 3.0.0 runs static programs through PIR unless told otherwise before it is first imported: its auc then returns
# other values, the parameter server's passes fail, and saved programs can't be read. Where Paddle was imported first,
# as in a notebook, jobs are other processes, and `fl_rec.environment.static_paddle` is for what is done in this one.
_os.environ["FLAGS_enable_pir_api"] = "0"


def one_thread_each() -> None:
    """Has libraries that are yet to be loaded compute in one thread, unless the user says otherwise.

    A job is ten processes, each of which would start as many threads as there are cores; and sums don't depend on how
    many there are.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        _os.environ.setdefault(name, "1")


# A process of a job, started by our launcher or a bare fleetrun. What imports the package otherwise keeps its threads.
if {"FL_REC_RUN_DIR", "TRAINING_ROLE"} & _os.environ.keys():
    one_thread_each()

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "DataError",
    "EpochRecord",
    "FLRecError",
    "JobFailed",
    "Recommendation",
    "Recommender",
    "Run",
    "RunError",
    "prepare",
    "train",
]

# Imported when they are first asked for: some need pydantic or numpy.
_PLACES = {
    **dict.fromkeys(("Run", "prepare", "train"), "fl_rec.api"),
    **dict.fromkeys(("ConfigError", "DataError", "FLRecError", "JobFailed", "RunError"), "fl_rec.errors"),
    "EpochRecord": "fl_rec.evaluation.records",
    **dict.fromkeys(("Recommendation", "Recommender"), "fl_rec.serving.recommend"),
}


def __getattr__(name: str) -> _Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
