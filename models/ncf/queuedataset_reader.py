"""A reader, as an example: `user,item,label` lines in, MultiSlot text out, one value per slot.

Chosen by `runner.pipe_command: python queuedataset_reader.py`, for shards written with gen_heter_data.py --format csv.
One is started for each shard, before training, so that this script imports next to nothing: `import paddle` alone would
cost each start a second or more. The first argument is the path of the run's resolved configuration.
"""

import sys


def multislot(line):
    """The MultiSlot text of one CSV line: of each slot the number of values, then the values."""
    user, item, label = line.split(",")
    return f"1 {int(user)} 1 {int(item)} 1 {int(label)}\n"


def main():
    for number, line in enumerate(sys.stdin, 1):
        try:
            sys.stdout.write(multislot(line))
        except ValueError as err:
            sys.exit(f"line {number}: a row must be user,item,label. Received: {line.rstrip()!r} ({err})")


if __name__ == "__main__":
    main()
