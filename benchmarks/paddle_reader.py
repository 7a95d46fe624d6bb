"""A pipe reader as PaddleRec writes them: `user,item,label` lines in, MultiSlot text out, through Paddle's generator.

benchmarks/throughput.py measures what it costs; for a reader of your own take models/ncf/queuedataset_reader.py, which
imports no Paddle.
"""

import os

os.environ.setdefault("FLAGS_enable_pir_api", "0")  # Paddle 3.0.0 reads it once, when it is imported

from paddle.distributed.fleet import MultiSlotDataGenerator

SLOTS = ("user_input", "item_input", "label")


class Reader(MultiSlotDataGenerator):
    """Slots of one value each."""

    def generate_sample(self, line):
        """The generator of one line's samples, a list of (slot, values) each."""

        def samples():
            features = line.strip().split(",")
            output = [(slot, []) for slot in SLOTS]
            for (_, values), feature in zip(output, features):
                values.extend([int(feature)])
            yield output

        return samples


if __name__ == "__main__":
    Reader().run_from_stdin()
