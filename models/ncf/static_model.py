"""NCF as a static program; the contract of a net is in fl_rec/nets/contract.py."""

import paddle
from net import build, structure

from fl_rec.nets.losses import find_loss


class StaticModel:
    """NCF_MLP, NCF_GMF or NCF_NeuMF by `hyper_parameters.mode`, with the configured loss."""

    def __init__(self, config):
        self.config = config

    def create_feeds(self, is_infer=False):
        group = 1 if is_infer else self.config.get("hyper_parameters.group_size", 1)
        widths = {"user_input": 1, "item_input": group, "label": group}
        return [paddle.static.data(name, [-1, width], "int64") for name, width in widths.items()]

    def logits(self, user, item):
        """Scores before the sigmoid, float32 [batch, group]; a net of your own may replace just this.

        user: int64 [batch, 1]. item: int64 [batch, group], of which group is 1 in inference.
        """
        sizes = ("mode", "num_users", "num_items", "mf_dim", "fc_layers")
        return build(*(self.config.get(f"hyper_parameters.{name}") for name in sizes))(user, item)

    def structure(self):
        """What the logits are made of, which is what compiled kernels go by; other logits need another, or none."""
        return structure(self.config.get("hyper_parameters.mode"), self.config.get("hyper_parameters.fc_layers"))

    def net(self, feeds, is_infer=False):
        user, item, label = feeds
        logits = self.logits(user, item)
        self.inference_target_var = paddle.nn.functional.sigmoid(logits)
        if is_infer:
            return {"prediction": self.inference_target_var}
        self._cost = find_loss(self.config)(logits, paddle.cast(label, "float32"))
        return {"Loss": self._cost}

    def infer_net(self, feeds):
        return self.net(feeds, is_infer=True)

    def create_optimizer(self, strategy=None):
        rate = self.config.get("hyper_parameters.optimizer.learning_rate")
        if self.config.get("hyper_parameters.optimizer.class") == "adam":
            optimizer = paddle.optimizer.Adam(learning_rate=rate, lazy_mode=True)
        else:
            optimizer = paddle.optimizer.SGD(learning_rate=rate)
        if strategy is not None:
            from paddle.distributed import fleet

            optimizer = fleet.distributed_optimizer(optimizer, strategy)
        optimizer.minimize(self._cost)
