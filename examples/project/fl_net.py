"""The net, named by runner.model_path: a user's vector times an item's, plus how much everybody likes the item."""

import paddle

from fl_rec.nets.ncf import NCF, embedding
from fl_rec.nets.structure import factorisation


class StaticModel(NCF):
    """NCF's inputs, loss and optimizer around other logits; fl_rec/nets/contract.py has all that a net may change."""

    def logits(self, user, item):
        """Scores before the sigmoid, [batch, group]; user is int64 [batch, 1], item int64 [batch, group]."""
        users, items, width = (
            self.config.get(f"hyper_parameters.{key}") for key in ("num_users", "num_items", "mf_dim")
        )
        user = embedding(users, width, "user")(user)  # [batch, 1, width]; the users' stay with their client
        vector = embedding(items, width, "item")(item)  # [batch, group, width]; the items' are exchanged
        liking = embedding(items, 1, "liking")(item)  # [batch, group, 1]; so is this
        product = paddle.matmul(user, vector, transpose_y=True)  # [batch, 1, group]
        return paddle.squeeze(product, axis=1) + paddle.squeeze(liking, axis=-1)

    def structure(self):
        """The same in names, for compiled kernels; without this method Paddle's graph does it all, and takes longer."""
        return factorisation("user", "item", "liking")
