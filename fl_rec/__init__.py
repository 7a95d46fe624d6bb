"""Federated training of recommenders on PaddlePaddle's own parameter server."""

import os as _os

# Paddle 3.0.0 runs static programs through PIR unless told otherwise before it is first imported: its auc then returns
# other values, the parameter server's passes fail, and saved programs can't be read. And a job is ten processes, each
# of which would start as many threads as there are cores.
_os.environ["FLAGS_enable_pir_api"] = "0"
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    _os.environ.setdefault(_name, "1")

__version__ = "0.1.0"
