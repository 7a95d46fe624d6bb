"""The nets of neural collaborative filtering (He et al., arXiv:1708.05031), with sparse embeddings.

All take user and item ids, int64 [batch, 1], and give scores in (0, 1), float32 [batch, 1].
"""

import math

import paddle
from paddle import nn


def embedding(rows, width):
    """A table float32 [rows, width] whose gradient holds only the rows of a batch, as GEO needs it.

    The paper draws from N(0, 0.01), from which an MLP takes longer to learn more than the items' popularity.
    """
    return nn.Embedding(
        rows,
        width,
        sparse=True,
        weight_attr=nn.initializer.Normal(mean=0.0, std=0.05),
    )


def look_up(table, ids):
    """float32 [batch, width] of int64 [batch, 1]."""
    return paddle.flatten(table(ids), start_axis=1, stop_axis=2)


class GMF(nn.Layer):
    """Generalised matrix factorisation, eq. 9 of the paper: the product of the embeddings, [batch, mf_dim]."""

    def __init__(self, num_users, num_items, mf_dim):
        super().__init__()
        self.users = embedding(num_users, mf_dim)
        self.items = embedding(num_items, mf_dim)
        self.width = mf_dim

    def forward(self, user, item):
        return look_up(self.users, user) * look_up(self.items, item)


class MLP(nn.Layer):
    """Eq. 10: the concatenated embeddings through fully connected layers, [batch, fc_layers[-1]]."""

    def __init__(self, num_users, num_items, fc_layers):
        super().__init__()
        self.users = embedding(num_users, fc_layers[0] // 2)
        self.items = embedding(num_items, fc_layers[0] // 2)
        self.layers = nn.LayerList(
            nn.Linear(
                fan_in,
                fan_out,
                weight_attr=nn.initializer.TruncatedNormal(mean=0.0, std=1.0 / math.sqrt(fan_in)),
            )
            for fan_in, fan_out in zip(fc_layers, fc_layers[1:])
        )
        self.width = fc_layers[-1]

    def forward(self, user, item):
        x = paddle.concat([look_up(self.users, user), look_up(self.items, item)], axis=-1)
        for layer in self.layers:
            x = nn.functional.relu(layer(x))
        return x


class NCF(nn.Layer):
    """One or both of the above, and the predicting layer; with both it is NeuMF, eq. 12."""

    def __init__(self, towers):
        super().__init__()
        self.towers = nn.LayerList(towers)
        self.prediction = nn.Linear(
            sum(tower.width for tower in towers), 1, weight_attr=nn.initializer.KaimingUniform()
        )

    def forward(self, user, item):
        x = paddle.concat([tower(user, item) for tower in self.towers], axis=-1)
        return nn.functional.sigmoid(self.prediction(x))


def build(mode, num_users, num_items, mf_dim, fc_layers):
    """The net of a mode: NCF_GMF, NCF_MLP or NCF_NeuMF."""
    gmf = [GMF(num_users, num_items, mf_dim)] if mode in ("NCF_GMF", "NCF_NeuMF") else []
    mlp = [MLP(num_users, num_items, fc_layers)] if mode in ("NCF_MLP", "NCF_NeuMF") else []
    return NCF(gmf + mlp)
