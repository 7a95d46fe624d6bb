"""The training program's counters."""

from __future__ import annotations

from typing import Any

AUC_BUCKETS = 4096


# Variables of the training program that add up over an epoch.
LOSS_SUM, ROWS = "fl_rec_loss_sum", "fl_rec_rows"


def find_auc(program: Any) -> Any:
    """The last of a program's operators that count in `AUC_BUCKETS` buckets, or None."""
    operators = reversed(program.global_block().ops)
    return next((op for op in operators if op.type == "auc" and op.attr("num_thresholds") == AUC_BUCKETS), None)
