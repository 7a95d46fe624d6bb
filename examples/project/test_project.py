"""One epoch of all that is in this folder, in a temporary one: python -m unittest"""

import tempfile
import unittest
from pathlib import Path

import fl_rec

HERE = Path(__file__).resolve().parent


class Project(unittest.TestCase):
    def test_all_of_it(self):
        with tempfile.TemporaryDirectory() as folder:
            tables = {"users": HERE / "customers.csv", "items": HERE / "goods.csv"}
            own = {"partitioner": f"{HERE}/fl_partitioner.py:by_region", "num_shards": 3}
            data = fl_rec.prepare(HERE / "clicks.csv", Path(folder) / "data", **tables, **own)
            settings = {
                "runner.train_data_dir": str(data / "fl_data" / "fl_train_data"),
                "runner.test_data_dir": str(data / "fl_data" / "fl_test_data"),
                "runner.run_dir": str(Path(folder) / "run"),
                "hyper_parameters.extra": {"enough": 0.0},
            }
            script = HERE / "fl_trainer.py"
            run = fl_rec.train(HERE / "job.yaml", settings, coordinator=True, script=script, verbose=False)
            *clients, everyone = run.metrics  # of one epoch: fl_trainer.py has had enough
            self.assertEqual([each.rows > 0 for each in clients], [False, True, True])  # by fl_strategy.py
            self.assertGreater(everyone.train_loss, 0.75)  # by fl_loss.py; the log loss begins with 0.69
            self.assertTrue((run.model() / "tables" / "liking").exists())  # of fl_net.py
            self.assertEqual(len(run.recommender().recommend("c07", top=3)), 3)


if __name__ == "__main__":
    unittest.main()
