"""Plain PyTorch: FedAvg (arXiv:1602.05629) of the task's clients, in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

import numpy as np
from task import Task
from torch_client import Client, initial, shared_of

from fl_rec.evaluation.metrics import Evaluation


def work(task: Task, numbers: Sequence[int], pipe: Connection) -> None:
    """A process: trains or evaluates its clients whenever it is told to, until there is nobody to tell it."""
    clients = [Client(task, number) for number in numbers]
    while True:
        try:
            shared, at = pipe.recv()
        except EOFError:
            return
        for client in clients:
            client.load(shared)
        if at is None:
            pipe.send(Evaluation.total(client.evaluate() for client in clients))
            continue
        counts = np.sum([client.train(*at) for client in clients], axis=0)
        change = {name: np.zeros_like(values) for name, values in shared.items()}
        for client in clients:
            for name, values in shared_of(client.net).items():
                change[name] += task.shares[client.number] * (values - shared[name])
        pipe.send((counts, change))


def main() -> None:
    task = Task.read(sys.argv[1])
    context = multiprocessing.get_context("spawn")
    pipes = []
    for numbers in task.deal():
        pipe, other = context.Pipe()
        context.Process(target=work, args=(task, numbers, other), daemon=True).start()
        other.close()
        pipes.append(pipe)

    def ask(shared: Mapping[str, np.ndarray], at: tuple[int, int] | None) -> list:
        for pipe in pipes:
            pipe.send((shared, at))
        return [pipe.recv() for pipe in pipes]

    shared = initial(task)
    ask(shared, None)  # every process is ready
    for epoch in range(task.epochs):
        start, trained = time.perf_counter(), np.zeros(2, np.int64)
        for part in range(task.exchanges):
            for counts, change in ask(shared, (epoch, part)):
                trained += counts
                for name, values in change.items():
                    shared[name] += values
        seconds = time.perf_counter() - start
        task.tell(epoch, int(trained[0]), int(trained[1]), seconds, Evaluation.total(ask(shared, None)))


if __name__ == "__main__":
    main()
