"""A trainer that stands still in one phase for a moment, so that benchmarks/faults.py can strike just then."""

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.trainer import FLTrainer, main
from fl_rec.trainer.coordinated import CoordinatedTrainer

# Seconds that it waits for the strike, which may never come.
LONGEST = 20.0


def hold() -> None:
    """Says that the phase has come, and goes on when it may."""
    folder = Path(os.environ["FAULTS_FOLDER"])
    (folder / "reached").touch()
    deadline = time.monotonic() + LONGEST
    while not (folder / "struck").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class Held:
    """Mixed into a trainer: the role and the phase are the environment's."""

    def build_network(self: Any) -> None:
        if self._is_held("start"):
            hold()
        super().build_network()  # type: ignore[misc]

    def start_worker(self: Any) -> None:
        super().start_worker()  # type: ignore[misc]
        places = {
            "training": (self.local, "train"),
            "exchange": (self.exchange, "merge"),
            "evaluation": (self, "pull_model"),
            "save": (self.saving, "save_shared"),
            "report": (self.runtime, "gather"),
            "finish": (self.exchange, "stop"),
        }
        for phase, (owner, name) in places.items():
            if self._is_held(phase):
                setattr(owner, name, _held_once(getattr(owner, name), "figures" if phase == "report" else ""))

    def _is_held(self: Any, phase: str) -> bool:
        return (self.role.name, phase) == (os.environ["FAULTS_ROLE"], os.environ["FAULTS_PHASE"])


def _held_once(call: Any, what: str) -> Any:
    held: list[bool] = []

    def wrapped(*arguments: Any) -> Any:
        if not held and (not what or str(arguments[-1]).startswith(what)):
            held.append(True)
            hold()
        return call(*arguments)

    return wrapped


class HeldTrainer(Held, FLTrainer):
    """Without a coordinator."""


class HeldCoordinated(Held, CoordinatedTrainer):
    """With one."""


if __name__ == "__main__":
    sys.exit(main(HeldCoordinated if os.environ.get("PADDLE_COORDINATOR_ENDPOINTS") else HeldTrainer))
