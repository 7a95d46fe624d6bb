"""A static model as users of PaddleRec write one: its own AUC, a config with dotted keys, an optional strategy."""

import paddle
import paddle.nn.functional as F
from net import DotLayer


class StaticModel:
    def __init__(self, config):
        self.cost = None
        self.config = config
        self._init_hyper_parameters()

    def _init_hyper_parameters(self):
        self.num_users = self.config.get("hyper_parameters.num_users")
        self.num_items = self.config.get("hyper_parameters.num_items")
        self.mf_dim = self.config.get("hyper_parameters.mf_dim")
        self.learning_rate = self.config.get("hyper_parameters.optimizer.learning_rate")

    def create_feeds(self, is_infer=False):
        user_input = paddle.static.data(name="user_input", shape=[-1, 1], dtype="int64")
        item_input = paddle.static.data(name="item_input", shape=[-1, 1], dtype="int64")
        label = paddle.static.data(name="label", shape=[-1, 1], dtype="int64")
        return [user_input, item_input, label]

    def net(self, input, is_infer=False):
        prediction = DotLayer(self.num_users, self.num_items, self.mf_dim).forward(input)
        predict_2d = paddle.concat(x=[1 - prediction, prediction], axis=1)
        auc, _, _ = paddle.static.auc(input=predict_2d, label=input[2], num_thresholds=2**12, slide_steps=0)
        self.inference_target_var = prediction
        if is_infer:
            return {"user": input[0], "prediction": prediction, "label": input[2], "auc": auc}
        cost = F.log_loss(input=prediction, label=paddle.cast(x=input[2], dtype="float32"))
        avg_cost = paddle.mean(x=cost)
        self._cost = avg_cost
        return {"Loss": avg_cost, "Auc": auc}

    def create_optimizer(self, strategy=None):
        optimizer = paddle.optimizer.Adam(learning_rate=self.learning_rate, lazy_mode=True)
        if strategy is not None:
            import paddle.distributed.fleet as fleet

            optimizer = fleet.distributed_optimizer(optimizer, strategy)
        optimizer.minimize(self._cost)

    def infer_net(self, input):
        return self.net(input, is_infer=True)
