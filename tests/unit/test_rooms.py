"""Who may know Paddle's inside: the modules of fl_rec.ps, and fl_rec.nets.graph."""

from __future__ import annotations

import re
from pathlib import Path

import fl_rec

PACKAGE = Path(fl_rec.__file__).parent
# Its core, operators and blocks, and whatever it keeps to itself. The probe of `environment` runs in another process.
INSIDE = re.compile(
    r"paddle\.base|\bcore\.[A-Z]|\.ops\b|\b(?:append|_prepend|_insert|_remove)_op\(|_remove_var|_fleet_opt|_set_pipe_command"
)


def test_paddles_inside_is_known_in_two_rooms() -> None:
    known = {
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if INSIDE.search(re.sub(r"_PROBE = .*", "", path.read_text(encoding="utf-8")))
    }
    assert {path for path in known if not path.startswith("ps/")} == {"nets/graph.py"}
