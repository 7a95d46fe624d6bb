"""Starting from saved models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fl_rec.config import Config
from fl_rec.errors import DataError
from fl_rec.nets.neumf import neumf_parameters
from fl_rec.nets.own_users import AllUsers
from fl_rec.nets.program import TrainingProgram
from fl_rec.runs.models import load_parameters
from fl_rec.trainer.private_params import PrivateParams


def warm_start(config: Config, client: int, program: TrainingProgram, private: PrivateParams) -> None:
    """Sets the parameters to those of the saved models that the configuration names, if any.

    Args:
        client: this worker, for its private part.
        program: initialised.

    Raises:
        DataError: a model can't be read, or is another net's.
    """
    runner, hyper = config.runner, config.hyper_parameters
    if runner.warmup_model_path is not None:
        saved, source = load_parameters(runner.warmup_model_path, client), "the warm start"
    elif hyper.pretrained_gmf is not None and hyper.pretrained_mlp is not None:
        gmf, mlp = (load_parameters(path, client) for path in (hyper.pretrained_gmf, hyper.pretrained_mlp))
        saved, source = neumf_parameters(gmf, mlp, hyper.pretrain_alpha), "the pretrained nets"
    else:
        return
    _require_all(saved, program, private.users, source)
    for name in program.names:
        program.set_value(name, private.take_over(name, saved[name]) if name in private else saved[name])


def _require_all(saved: Mapping[str, np.ndarray], program: TrainingProgram, users: AllUsers, source: str) -> None:
    for name in program.names:
        shape = list(users.whole(name, program.value(name).shape))
        if name not in saved or list(saved[name].shape) != shape:
            found = f"of shape {list(saved[name].shape)}" if name in saved else "missing"
            raise DataError(
                f"A warm start needs every parameter of the net, in its shape. Received from {source}: {name} "
                f"{found}, and the net's is of shape {shape}. Check mode, num_users, num_items, mf_dim and "
                "fc_layers against those of the saved model."
            )
