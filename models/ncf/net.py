"""The nets of neural collaborative filtering (He et al., arXiv:1708.05031), with sparse embeddings.

All take user ids, int64 [batch, 1], and item ids, int64 [batch, group], and give one number per item. A user is looked
up once for all items of a row. The parameters' names say what they are: fl_rec/nets/neumf.py goes by them.
"""

import itertools
import math

import paddle
from paddle import ParamAttr, nn

from fl_rec.nets.structure import Layer, Structure, Tables


def embedding(rows, width, name, std=0.05):
    """A table float32 [rows, width] whose gradient holds only the rows of a batch, as GEO needs it.

    The paper draws from N(0, 0.01), from which an MLP takes longer to learn more than the items' popularity.
    """
    initializer = nn.initializer.Normal(mean=0.0, std=std)
    return nn.Embedding(rows, width, sparse=True, weight_attr=ParamAttr(name=name, initializer=initializer))


def linear(fan_in, fan_out, name, initializer):
    """A fully connected layer: float32 [fan_in, fan_out] NAME.w and [fan_out] NAME.b."""
    weight = ParamAttr(name=f"{name}.w", initializer=initializer)
    return nn.Linear(fan_in, fan_out, weight_attr=weight, bias_attr=ParamAttr(name=f"{name}.b"))


class GMF(nn.Layer):
    """Generalised matrix factorisation, eq. 9 of the paper: the embeddings' product, [batch, group, mf_dim]."""

    def __init__(self, num_users, num_items, mf_dim):
        super().__init__()
        self.users = embedding(num_users, mf_dim, "gmf_user_embedding")
        self.items = embedding(num_items, mf_dim, "gmf_item_embedding")
        self.width = mf_dim

    def forward(self, user, item):
        return paddle.multiply(self.users(user), self.items(item))


class MLP(nn.Layer):
    """Eq. 10: the embeddings side by side through fully connected layers, [batch, group, fc_layers[-1]]."""

    def __init__(self, num_users, num_items, fc_layers):
        super().__init__()
        self.users = embedding(num_users, fc_layers[0] // 2, "mlp_user_embedding")
        self.items = embedding(num_items, fc_layers[0] // 2, "mlp_item_embedding")
        self.layers = nn.LayerList(
            linear(fan_in, fan_out, f"mlp_fc_{number}", nn.initializer.TruncatedNormal(0.0, 1.0 / math.sqrt(fan_in)))
            for number, (fan_in, fan_out) in enumerate(itertools.pairwise(fc_layers))
        )
        self.width = fc_layers[-1]

    def forward(self, user, item):
        users = self.users(user)
        if item.shape[1] != 1:
            users = paddle.expand(users, [-1, item.shape[1], -1])
        x = paddle.concat([users, self.items(item)], axis=-1)
        for layer in self.layers:
            x = nn.functional.relu(layer(x))
        return x


class NCF(nn.Layer):
    """One or both of the above, and the predicting layer; with both it is NeuMF, eq. 12. Logits, [batch, group]."""

    def __init__(self, towers):
        super().__init__()
        self.towers = nn.LayerList(towers)
        width = sum(tower.width for tower in towers)
        self.prediction = linear(width, 1, "prediction", nn.initializer.KaimingUniform())

    def forward(self, user, item):
        features = [tower(user, item) for tower in self.towers]
        x = paddle.concat(features, axis=-1) if len(features) > 1 else features[0]
        return paddle.squeeze(self.prediction(x), axis=-1)


def build(mode, num_users, num_items, mf_dim, fc_layers):
    """The net of a mode: NCF_GMF, NCF_MLP or NCF_NeuMF."""
    gmf = [GMF(num_users, num_items, mf_dim)] if mode in ("NCF_GMF", "NCF_NeuMF") else []
    mlp = [MLP(num_users, num_items, fc_layers)] if mode in ("NCF_MLP", "NCF_NeuMF") else []
    return NCF(gmf + mlp)


def structure(mode, fc_layers):
    """What `build` makes, in names: with it, compiled kernels train and score the net."""
    gmf = Tables("gmf_user_embedding", "gmf_item_embedding") if mode in ("NCF_GMF", "NCF_NeuMF") else None
    mlp = Tables("mlp_user_embedding", "mlp_item_embedding") if mode in ("NCF_MLP", "NCF_NeuMF") else None
    layers = [Layer(f"mlp_fc_{number}.w", f"mlp_fc_{number}.b") for number in range(len(fc_layers) - 1)] if mlp else ()
    return Structure(gmf, mlp, tuple(layers), Layer("prediction.w", "prediction.b"))
