"""Neural collaborative filtering (He et al., arXiv:1708.05031), with sparse embeddings: `NCF`, and what it is made of.

A net of one's own is a file that builds on it, wherever it lies; models/ncf/fl_mf.py is an example. The contract of a
net is in fl_rec/nets/contract.py.

All layers take user ids, int64 [batch, 1], and item ids, int64 [batch, group], and give one number per item. A user is
looked up once for all items of a row. The parameters' names say what they are: fl_rec/nets/neumf.py goes by them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import paddle
from paddle import ParamAttr, nn

from fl_rec.config import Config
from fl_rec.nets.losses import find_loss
from fl_rec.nets.structure import Layer, Structure, Tables


def embedding(rows: int, width: int, name: str, std: float = 0.05) -> Any:
    """A table float32 [rows, width] whose gradient holds only the rows of a batch, as GEO needs it.

    The paper draws from N(0, 0.01), from which an MLP takes longer to learn more than the items' popularity.
    """
    initializer = nn.initializer.Normal(mean=0.0, std=std)
    return nn.Embedding(rows, width, sparse=True, weight_attr=ParamAttr(name=name, initializer=initializer))


def linear(fan_in: int, fan_out: int, name: str, initializer: Any) -> Any:
    """A fully connected layer: float32 [fan_in, fan_out] NAME.w and [fan_out] NAME.b."""
    weight = ParamAttr(name=f"{name}.w", initializer=initializer)
    return nn.Linear(fan_in, fan_out, weight_attr=weight, bias_attr=ParamAttr(name=f"{name}.b"))


class GMF(nn.Layer):  # type: ignore[misc]
    """Generalised matrix factorisation, eq. 9 of the paper: the embeddings' product, [batch, group, mf_dim]."""

    def __init__(self, num_users: int, num_items: int, mf_dim: int) -> None:
        super().__init__()
        self.users = embedding(num_users, mf_dim, "gmf_user_embedding")
        self.items = embedding(num_items, mf_dim, "gmf_item_embedding")
        self.width = mf_dim

    def forward(self, user: Any, item: Any) -> Any:
        return paddle.multiply(self.users(user), self.items(item))


class MLP(nn.Layer):  # type: ignore[misc]
    """Eq. 10: the embeddings side by side through fully connected layers, [batch, group, fc_layers[-1]]."""

    def __init__(self, num_users: int, num_items: int, fc_layers: Sequence[int]) -> None:
        super().__init__()
        self.users = embedding(num_users, fc_layers[0] // 2, "mlp_user_embedding")
        self.items = embedding(num_items, fc_layers[0] // 2, "mlp_item_embedding")
        self.layers = nn.LayerList(
            linear(fan_in, fan_out, f"mlp_fc_{number}", nn.initializer.TruncatedNormal(0.0, 1.0 / math.sqrt(fan_in)))
            for number, (fan_in, fan_out) in enumerate(itertools.pairwise(fc_layers))
        )
        self.width = fc_layers[-1]

    def forward(self, user: Any, item: Any) -> Any:
        users = self.users(user)
        if item.shape[1] != 1:
            users = paddle.expand(users, [-1, item.shape[1], -1])
        x = paddle.concat([users, self.items(item)], axis=-1)
        for layer in self.layers:
            x = nn.functional.relu(layer(x))
        return x


class Towers(nn.Layer):  # type: ignore[misc]
    """One or both of the above, and the predicting layer; with both it is NeuMF, eq. 12. Logits, [batch, group]."""

    def __init__(self, towers: Sequence[GMF | MLP]) -> None:
        super().__init__()
        self.towers = nn.LayerList(towers)
        width = sum(tower.width for tower in towers)
        self.prediction = linear(width, 1, "prediction", nn.initializer.KaimingUniform())

    def forward(self, user: Any, item: Any) -> Any:
        features = [tower(user, item) for tower in self.towers]
        x = paddle.concat(features, axis=-1) if len(features) > 1 else features[0]
        return paddle.squeeze(self.prediction(x), axis=-1)


def build(mode: str, num_users: int, num_items: int, mf_dim: int, fc_layers: Sequence[int]) -> Towers:
    """The net of a mode: NCF_GMF, NCF_MLP or NCF_NeuMF."""
    gmf = [GMF(num_users, num_items, mf_dim)] if mode in ("NCF_GMF", "NCF_NeuMF") else []
    mlp = [MLP(num_users, num_items, fc_layers)] if mode in ("NCF_MLP", "NCF_NeuMF") else []
    return Towers([*gmf, *mlp])


def structure(mode: str, fc_layers: Sequence[int]) -> Structure:
    """What `build` makes, in names: with it, compiled kernels train and score the net."""
    gmf = Tables("gmf_user_embedding", "gmf_item_embedding") if mode in ("NCF_GMF", "NCF_NeuMF") else None
    mlp = Tables("mlp_user_embedding", "mlp_item_embedding") if mode in ("NCF_MLP", "NCF_NeuMF") else None
    layers = [Layer(f"mlp_fc_{number}.w", f"mlp_fc_{number}.b") for number in range(len(fc_layers) - 1)] if mlp else ()
    return Structure(gmf, mlp, tuple(layers), Layer("prediction.w", "prediction.b"))


class NCF:
    """NCF_MLP, NCF_GMF or NCF_NeuMF by `hyper_parameters.mode`, with the configured loss, as a static program."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def create_feeds(self, is_infer: bool = False) -> list[Any]:
        group = 1 if is_infer else self.config.get("hyper_parameters.group_size", 1)
        widths = {"user_input": 1, "item_input": group, "label": group}
        return [paddle.static.data(name, [-1, width], "int64") for name, width in widths.items()]

    def logits(self, user: Any, item: Any) -> Any:
        """Scores before the sigmoid, float32 [batch, group]; a net of your own may replace just this.

        user: int64 [batch, 1]. item: int64 [batch, group], of which group is 1 in inference.
        """
        sizes = ("mode", "num_users", "num_items", "mf_dim", "fc_layers")
        return build(*(self.config.get(f"hyper_parameters.{name}") for name in sizes))(user, item)

    def structure(self) -> Structure:
        """What the logits are made of, which is what compiled kernels go by; other logits need another, or none."""
        return structure(self.config.get("hyper_parameters.mode"), self.config.get("hyper_parameters.fc_layers"))

    def net(self, feeds: Sequence[Any], is_infer: bool = False) -> dict[str, Any]:
        user, item, label = feeds
        logits = self.logits(user, item)
        self.inference_target_var = paddle.nn.functional.sigmoid(logits)
        if is_infer:
            return {"prediction": self.inference_target_var}
        self._cost = find_loss(self.config)(logits, paddle.cast(label, "float32"))
        return {"Loss": self._cost}

    def infer_net(self, feeds: Sequence[Any]) -> dict[str, Any]:
        return self.net(feeds, is_infer=True)

    def create_optimizer(self, strategy: Any = None) -> None:
        rate = self.config.get("hyper_parameters.optimizer.learning_rate")
        if self.config.get("hyper_parameters.optimizer.class") == "adam":
            optimizer = paddle.optimizer.Adam(learning_rate=rate, lazy_mode=True)
        else:
            optimizer = paddle.optimizer.SGD(learning_rate=rate)
        if strategy is not None:
            from paddle.distributed import fleet  # noqa: TID251 - the contract of a net

            optimizer = fleet.distributed_optimizer(optimizer, strategy)
        optimizer.minimize(self._cost)
