"""A net as users of PaddleRec write one, with no regard for fleet."""

import paddle


class DotLayer(paddle.nn.Layer):
    def __init__(self, num_users, num_items, mf_dim):
        super().__init__()
        normal = paddle.nn.initializer.Normal(mean=0.0, std=0.1)
        attr = paddle.ParamAttr(initializer=normal, regularizer=paddle.regularizer.L2Decay(coeff=0))
        self.user_emb = paddle.nn.Embedding(num_users, mf_dim, sparse=True, weight_attr=attr)
        self.item_emb = paddle.nn.Embedding(num_items, mf_dim, sparse=True, weight_attr=attr)
        self.prediction = paddle.nn.Linear(in_features=mf_dim, out_features=1, name="prediction")

    def forward(self, input_data):
        user = paddle.flatten(self.user_emb(input_data[0]), start_axis=1, stop_axis=2)
        item = paddle.flatten(self.item_emb(input_data[1]), start_axis=1, stop_axis=2)
        return paddle.nn.functional.sigmoid(self.prediction(paddle.multiply(user, item)))
