"""NCF as a static program; the contract of a net is in fl_rec/models.py."""

import paddle
from net import build
from paddle.nn import functional as F


class StaticModel:
    """NCF_MLP, NCF_GMF or NCF_NeuMF with a log loss, by `hyper_parameters.mode`."""

    def __init__(self, config):
        self.config = config

    def create_feeds(self, is_infer=False):
        return [paddle.static.data(name, [-1, 1], "int64") for name in ("user_input", "item_input", "label")]

    def score(self, user, item):
        """Scores in (0, 1), float32 [batch, 1]; a net of your own may replace just this."""
        sizes = ("mode", "num_users", "num_items", "mf_dim", "fc_layers")
        return build(*(self.config.get(f"hyper_parameters.{name}") for name in sizes))(user, item)

    def net(self, feeds, is_infer=False):
        user, item, label = feeds
        self.inference_target_var = self.score(user, item)
        if is_infer:
            return {"prediction": self.inference_target_var}
        self._cost = paddle.mean(F.log_loss(self.inference_target_var, paddle.cast(label, "float32")))
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
