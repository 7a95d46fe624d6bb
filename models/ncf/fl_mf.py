"""A user's own net, as an example: matrix factorisation, the dot product of the embeddings.

Chosen by `runner.model_path: ../models/ncf/fl_mf.py`; a copy of it works wherever it lies. Its own keys are
`hyper_parameters.extra.bias`, whether an item has a bias (default true), and `extra.std`, the standard deviation that
embeddings are drawn with (default 0.05).
"""

import paddle

from fl_rec.nets.ncf import NCF, embedding
from fl_rec.nets.structure import factorisation


class StaticModel(NCF):
    """NCF's feeds, loss and optimizer around other logits."""

    def logits(self, user, item):
        num_users, num_items, width = (
            self.config.get(f"hyper_parameters.{name}") for name in ("num_users", "num_items", "mf_dim")
        )
        std = self.config.get("hyper_parameters.extra.std", 0.05)
        users = embedding(num_users, width, "mf_user_embedding", std)
        items = embedding(num_items, width, "mf_item_embedding", std)
        # [batch, 1, width] by [batch, group, width]
        logits = paddle.squeeze(paddle.matmul(users(user), items(item), transpose_y=True), axis=1)
        if self.config.get("hyper_parameters.extra.bias", True):
            bias = embedding(num_items, 1, "mf_item_bias", std)
            logits = paddle.add(logits, paddle.squeeze(bias(item), axis=-1))
        return logits

    def structure(self):
        bias = "mf_item_bias" if self.config.get("hyper_parameters.extra.bias", True) else None
        return factorisation("mf_user_embedding", "mf_item_embedding", bias)
