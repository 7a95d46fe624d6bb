"""Paddle's parameter server. Only here is its inside known."""
