"""The coordinator: reports of the clients in, decisions of a strategy out. No Paddle is imported here."""

from fl_rec.coordinator.messages import FINISH, JOIN, WAIT, ClientReport, Decision, Device
from fl_rec.coordinator.strategies.base import Fleet, Strategy

__all__ = ["FINISH", "JOIN", "WAIT", "ClientReport", "Decision", "Device", "Fleet", "Strategy"]
