"""Damaged and hostile inputs for every reader of outside data; `tests/fuzz.py` runs them."""
