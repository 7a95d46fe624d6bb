"""Jobs that stay at what they begin to do, so that it is not over when something is done to them."""

from __future__ import annotations

from pathlib import Path

NAME = "held.py"
_SCRIPT = """\
import sys, time
from pathlib import Path
from {module} import {trainer}
from fl_rec.runs import activity
from fl_rec.trainer import main
tell = activity.doing
def held():
    try:
        return Path(__file__).with_name("held").read_text()
    except FileNotFoundError:
        return None
def doing(what):
    tell(what)
    while held() == what:
        time.sleep(0.02)
activity.doing = doing
sys.exit(main({trainer}))
"""


def script(folder: Path, trainer: str = "fl_rec.trainer.FLTrainer") -> Path:
    """The training script to start a job with that is to be held; it is needed to resume the job too."""
    path = folder / NAME
    module, _, name = trainer.rpartition(".")
    path.write_text(_SCRIPT.format(module=module, trainer=name))
    return path


def hold(folder: Path, doing: str) -> Path:
    """Has the workers whose script is there wait as soon as they do that, such as "training epoch 2"; they go on when
    the file is removed that this returns."""
    path = folder / "held"
    path.write_text(doing)
    return path
