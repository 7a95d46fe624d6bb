"""Loading a user's net: a Python file with a class `StaticModel`, as in PaddleRec, or `file.py:Class`.

The contract, with feeds int64 [-1, 1] unless the net says otherwise:

    StaticModel(config)                   config.get("hyper_parameters.mf_dim") and the like
    create_feeds(is_infer=False) -> list  of feeds; the first is the user's id, the last one the label; all but the
                                          first are [-1, group_size] in training, if hyper_parameters.group_size is
                                          above 1
    net(feeds, is_infer=False) -> dict    of name to variable; sets `_cost`, the scalar loss to minimise, and
                                          `inference_target_var`, float32 as the label, scores in [0, 1]
    infer_net(feeds) -> dict              the same without a loss
    create_optimizer(strategy)            fleet.distributed_optimizer(optimizer, strategy).minimize(self._cost)
    structure()                           optional: a fl_rec.nets.structure.Structure, by which compiled kernels train
                                          and score the net, several times as fast as Paddle's graph does
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fl_rec import environment, plugins
from fl_rec.config import Config
from fl_rec.errors import ConfigError

METHODS = ("create_feeds", "net", "infer_net", "create_optimizer")


def locate_net(model_path: Path) -> tuple[Path, str]:
    """The file of `runner.model_path`, and its class's name: that after a colon, or else StaticModel.

    Raises:
        ConfigError: there is no such file.
    """
    file, _, name = str(model_path).rpartition(":")
    path, name = (Path(file), name) if file.endswith(".py") else (model_path, "StaticModel")
    if not path.is_file():
        raise ConfigError(
            f"runner.model_path must name a Python file with a class {name}. Received: {path}, which is not a file."
        )
    if path.suffix != ".py":
        raise ConfigError(
            f"runner.model_path must name a Python file. Received: {path}, whose name does not end in .py"
        )
    return path, name


def check_net(model_path: Path, *folders: Path) -> None:
    """Looks whether a net can be imported, without Paddle.

    Args:
        folders: where the process that trains will look for modules besides.

    Raises:
        ConfigError: no such file, or it can't be imported.
    """
    path, _ = locate_net(model_path)
    plugins.check_imports(path, "the net", (*folders, _shipped()))


def load_model_class(model_path: Path) -> type:
    """The class of a net, whose file can import its neighbours, and what is in models/ncf.

    Raises:
        ConfigError: no such file, it can't be imported, or it breaks the contract.
    """
    path, name = locate_net(model_path)
    plugins.import_from(_shipped(), first=False)
    try:
        module = plugins.load_file(path)
    except Exception as err:
        raise ConfigError(f"The net {path} can't be imported: {type(err).__name__}: {err}") from err
    model = getattr(module, name, None)
    if not isinstance(model, type):
        raise ConfigError(f"{path} must define a class {name}. Received a file without one.")
    missing = [method for method in METHODS if not callable(getattr(model, method, None))]
    if missing:
        raise ConfigError(f"{path}: {name} must have the methods {', '.join(METHODS)}. Missing: {', '.join(missing)}.")
    return model


def _shipped() -> Path:
    return environment.shipped("models/ncf")


def attribute(model: Any, name: str, path: Path) -> Any:
    """A variable that `net` or `infer_net` must have set on the model.

    Raises:
        ConfigError: if it did not.
    """
    value = getattr(model, name, None)
    if value is None:
        raise ConfigError(
            f"{path}: StaticModel.net must set self.{name}; see fl_rec/nets/contract.py for the contract."
        )
    return value


def new_model(config: Config) -> Any:
    """An instance of the configured net's class."""
    return load_model_class(config.runner.model_path)(config)
