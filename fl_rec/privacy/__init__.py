"""Differential privacy of what a worker shares."""
