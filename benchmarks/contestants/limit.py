"""The compiled kernel with nothing around it: no Paddle, no exchange, no evaluation, rows drawn once before.

Each process trains its clients' shards, one set of parameters for each shard, on one core.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Sequence

import numpy as np
from task import ClientRows, Task

from fl_rec.kernels import compile_all, load_all
from fl_rec.kernels.training import Adam, Trained, Training
from fl_rec.nets.structure import Layer, Structure, Tables, factorisation

SECONDS = 120.0  # for all to be ready, and for an epoch


def structure_of(task: Task) -> tuple[Structure, dict[str, tuple[int, int]]]:
    """The net, and the shapes of its parameters but for the users'."""
    if task.net == "mf":
        shapes = {"item": (task.num_items, task.width), "bias": (task.num_items, 1)}
        return factorisation("user", "item", "bias"), shapes
    widths = (*task.fc_layers, 1)
    layers = [Layer(f"w{k}", f"b{k}") for k in range(len(widths) - 1)]
    shapes = {"item": (task.num_items, widths[0] // 2)}
    for k, layer in enumerate(layers):
        shapes |= {layer.weight: (widths[k], widths[k + 1]), layer.bias: (widths[k + 1],)}
    return Structure(mlp=Tables("user", "item"), layers=tuple(layers[:-1]), prediction=layers[-1]), shapes


def parameters_of(task: Task, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, Trained]:
    found = {}
    for name, shape in shapes.items():
        std = task.std if name in ("user", "item", "bias") else 1 / np.sqrt(shape[0])
        values = rng.normal(0.0, std, shape).astype(np.float32)
        moments = (np.zeros_like(values), np.zeros_like(values)) if task.adam else ()
        powers = tuple(np.array([beta], np.float32) for beta in (0.9, 0.999)) if task.adam else ()
        found[name] = Trained(values, task.learning_rate, moments, powers)
    return found


def work(task: Task, numbers: Sequence[int], ready: multiprocessing.Barrier, told: multiprocessing.Queue) -> None:
    """A process: tells rows, items and seconds of each epoch."""
    structure, shapes = structure_of(task)
    rng = np.random.default_rng(task.seed)
    clients = []
    for number in numbers:
        # As our own workers hold them.
        rows = tuple(map(np.asarray, ClientRows(task, number).epoch(0), (np.int32, np.int32, np.uint8)))
        users = {"user": (int(rows[0].max()) + 1, shapes["item"][1])}
        clients.append((rows, parameters_of(task, users | shapes, rng)))
    l2 = dict(zip(("user", "item"), task.l2)) if task.net == "mf" else {}
    adam = Adam(0.9, 0.999, 1e-8) if task.adam else None
    trainings = [Training(structure, "log_loss", {}, l2, task.batch, adam) for _ in clients]
    buckets = np.zeros((2, 4097), np.int64)
    load_all()  # before the clock runs
    ready.wait(SECONDS)
    for epoch in range(task.epochs):
        start = time.perf_counter()
        for training, (rows, parameters) in zip(trainings, clients):
            training.train(parameters, rows, *buckets)
        counts = [sum(each[0][part].size for each in clients) for part in (0, 1)]
        told.put((epoch, counts, time.perf_counter() - start))


def main() -> None:
    task = Task.read(sys.argv[1])
    compile_all()
    context = multiprocessing.get_context("spawn")
    hands = task.deal()
    ready, told = context.Barrier(len(hands)), context.Queue()
    processes = [context.Process(target=work, args=(task, hand, ready, told), daemon=True) for hand in hands]
    for process in processes:
        process.start()
    epochs: dict[int, list] = {}
    for _ in range(task.epochs * len(hands)):
        epoch, counts, seconds = told.get(timeout=SECONDS)
        epochs.setdefault(epoch, []).append((counts, seconds))
        if len(epochs[epoch]) == len(hands):
            rows, items = np.sum([counts for counts, _ in epochs[epoch]], axis=0)
            task.tell(epoch, int(rows), int(items), max(seconds for _, seconds in epochs[epoch]), None)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
