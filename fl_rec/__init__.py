"""Federated training of recommenders on PaddlePaddle's own parameter server."""

import os as _os
import sys as _sys

# Paddle 3.0.0 runs static programs through PIR unless told otherwise before it is first imported: its auc then returns
# other values, the parameter server's passes fail, and saved programs can't be read. And a job is ten processes, each
# of which would start as many threads as there are cores.
if "paddle" in _sys.modules and _os.environ.get("FLAGS_enable_pir_api") != "0":
    raise ImportError(
        "fl_rec must be imported before paddle, which reads FLAGS_enable_pir_api once. Put `import fl_rec` first, or "
        "set FLAGS_enable_pir_api=0 in the environment."
    )
_os.environ["FLAGS_enable_pir_api"] = "0"
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    _os.environ.setdefault(_name, "1")

__version__ = "0.1.0"
