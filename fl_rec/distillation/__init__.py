"""Federated distillation: what the clients and the coordinator's teacher learn from each other."""
