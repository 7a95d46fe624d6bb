"""Nets, losses and the programs that Paddle makes of them."""
