"""The task as a Flower app: FedAvg over clients of torch_client.py, whose users' embeddings stay in their node.

flower.py deploys it. A ClientApp is a process of its own for each message, so that a node keeps its users in its
context, and its rows in a file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from task import Task
from torch_client import Client, initial, shared_of

from fl_rec.evaluation.metrics import Evaluation

SECONDS = 600.0  # for all clients' replies in a round


def to_record(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(values) for name, values in arrays.items()})


def from_record(record: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in record.items()}


class Rounds(FedAvg):
    """FedAvg, or the sum of what the clients have changed; and it keeps the time. An epoch is `exchanges` rounds."""

    def __init__(self, task: Task) -> None:
        clients = len(task.train)
        super().__init__(min_train_nodes=clients, min_evaluate_nodes=clients, min_available_nodes=clients)
        self.task = task
        self._new_epoch()

    def _new_epoch(self) -> None:
        self._seconds, self._trained = 0.0, np.zeros(2, np.int64)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._shared = from_record(arrays)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._start = time.perf_counter()
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        valid, failed = self._check_and_log_replies(replies, is_train=True)
        if failed or len(valid) != len(self.task.train):
            raise RuntimeError(f"{len(valid)} of {len(self.task.train)} clients have trained in round {server_round}.")
        shared = {name: values.copy() for name, values in self._shared.items()}
        for reply in valid:
            share = self.task.shares[int(reply.content["metrics"]["client"])]
            for name, values in from_record(reply.content["arrays"]).items():
                shared[name] += share * (values - self._shared[name])
            self._trained += [int(reply.content["metrics"][name]) for name in ("num-examples", "items")]
        self._seconds += time.perf_counter() - self._start
        return to_record(shared), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        if server_round % self.task.exchanges:
            return []
        return super().configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        valid, _ = self._check_and_log_replies(replies, is_train=False)
        if valid:
            metrics = [reply.content["metrics"] for reply in valid]
            ranked = Evaluation.total(Evaluation(each["users"], each["hits"], each["ndcg_sum"]) for each in metrics)
            epoch = server_round // self.task.exchanges - 1
            self.task.tell(epoch, int(self._trained[0]), int(self._trained[1]), self._seconds, ranked)
            self._new_epoch()
        return None


server = ServerApp()
client = ClientApp()


@server.main()
def serve(grid: Grid, context: Context) -> None:
    task = Task.read(str(context.run_config["task"]))
    Rounds(task).start(grid, to_record(initial(task)), num_rounds=task.epochs * task.exchanges, timeout=SECONDS)


def open_client(message: Message, context: Context) -> Client:
    """The node's client with the shared parameters of a message, and its own users."""
    task = Task.read(str(context.run_config["task"]))
    opened = Client(task, int(context.node_config["partition-id"]), Path(task.record).parent)
    opened.load(from_record(message.content["arrays"]))
    if "users" in context.state:
        opened.users = from_record(context.state["users"])["users"]
    return opened


def answer(message: Message, opened: Client, metrics: dict[str, float], arrays: bool) -> Message:
    content = RecordDict({"metrics": MetricRecord({"client": opened.number, **metrics})})
    if arrays:
        content["arrays"] = to_record(shared_of(opened.net))
    return Message(content, reply_to=message)


@client.train()
def train(message: Message, context: Context) -> Message:
    opened = open_client(message, context)
    epoch, part = divmod(int(message.content["config"]["server-round"]) - 1, opened.task.exchanges)
    rows, items = opened.train(epoch, part)
    context.state["users"] = to_record({"users": opened.users})
    return answer(message, opened, {"num-examples": rows, "items": items}, arrays=True)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    opened = open_client(message, context)
    ranked = opened.evaluate()
    metrics = {"num-examples": ranked.users, "users": ranked.users, "hits": ranked.hits, "ndcg_sum": ranked.ndcg_sum}
    return answer(message, opened, metrics, arrays=False)
