"""What `fl-rec evaluate` prints; what it measures is in tests/integration/test_export.py."""

from __future__ import annotations

from fl_rec.serving.evaluate import to_table


def test_figures_of_several_models() -> None:
    best = {"model": "runs/a/model/19", "epoch": 19, "client": "all", "test_users": 6040, "top_k": 10}
    best.update(test_auc=0.91388, hr=0.71921, ndcg=0.44443)
    other = {
        **best,
        "model": "c",
        "epoch": None,
        "client": 3,
        "test_users": 0,
        "test_auc": None,
        "hr": None,
        "ndcg": None,
    }
    assert to_table([best, other]).splitlines() == [
        "model            epoch  client  users   K  test AUC    HR@K  NDCG@K",
        "-------------------------------------------------------------------",
        "runs/a/model/19     19     all  6,040  10    0.9139  0.7192  0.4444",
        "c                    -       3      0  10         -       -       -",
    ]
