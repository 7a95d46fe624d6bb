"""Federated training of recommenders on PaddlePaddle's parameter server."""

__version__ = "0.1.0"
