"""A user's own net, as an example: matrix factorisation, the sigmoid of a dot product.

Chosen by `runner.model_path: ../models/ncf/fl_mf.py`. Its own key is `hyper_parameters.extra.bias`.
"""

import paddle
from net import embedding, look_up
from static_model import StaticModel as NCF


class StaticModel(NCF):
    """NCF's feeds, loss and optimizer around another score."""

    def score(self, user, item):
        num_users, num_items, width = (
            self.config.get(f"hyper_parameters.{name}") for name in ("num_users", "num_items", "mf_dim")
        )
        users, items = embedding(num_users, width), embedding(num_items, width)
        score = paddle.sum(look_up(users, user) * look_up(items, item), axis=-1, keepdim=True)
        if self.config.get("hyper_parameters.extra.bias", True):
            score = score + look_up(embedding(num_items, 1), item)
        return paddle.nn.functional.sigmoid(score)
