"""A client of federated training as one writes it in PyTorch: torch_fedavg.py and flower_app have ten of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from task import ClientRows, Task, rank, read_shard
from torch import nn
from torch.nn import functional as F

from fl_rec.evaluation.metrics import Evaluation

TEST_BATCH = 1 << 16
USERS = "users.weight"


def embedding(rows: int, width: int, std: float, sparse: bool) -> nn.Embedding:
    table = nn.Embedding(rows, width, sparse=sparse)
    nn.init.normal_(table.weight, 0.0, std)
    return table


class MLP(nn.Module):
    """As fl_rec/nets/ncf.py. Fused Adam over whole tables takes two thirds of the time that SparseAdam takes."""

    def __init__(self, task: Task, users: int) -> None:
        super().__init__()
        width = task.fc_layers[0] // 2
        self.items = embedding(task.num_items, width, task.std, sparse=False)
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(task.fc_layers, task.fc_layers[1:]):
            layer = nn.Linear(fan_in, fan_out)
            nn.init.trunc_normal_(layer.weight, std=1 / math.sqrt(fan_in))
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(task.fc_layers[-1], 1))
        self.users = embedding(users, width, task.std, sparse=False)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Logits [batch, group] of users [batch] and items [batch, group]."""
        items = self.items(item)
        users = self.users(user).unsqueeze(1).expand_as(items)
        return self.layers(torch.cat([users, items], -1)).squeeze(-1)

    def loss(self, user: torch.Tensor, item: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(self(user, item), label)


class MF(nn.Module):
    """As models/ncf/fl_mf.py. With sparse gradients a step of SGD changes a batch's rows only."""

    def __init__(self, task: Task, users: int) -> None:
        super().__init__()
        self.l2 = task.l2
        self.items = embedding(task.num_items, task.width, task.std, sparse=True)
        self.bias = embedding(task.num_items, 1, task.std, sparse=True)
        self.users = embedding(users, task.width, task.std, sparse=True)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Logits [batch, group] of users [batch] and items [batch, group]."""
        return self._logits(self.users(user), self.items(item), item)

    def _logits(self, users: torch.Tensor, items: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return torch.bmm(items, users.unsqueeze(2)).squeeze(2) + self.bias(item).squeeze(2)

    def loss(self, user: torch.Tensor, item: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        users, items = self.users(user), self.items(item)
        loss = F.binary_cross_entropy_with_logits(self._logits(users, items, item), label)
        penalty = self.l2[0] * users.square().sum() + self.l2[1] * items.square().sum()
        return loss + penalty / len(user)

    @torch.no_grad()
    def step_by_hand(self, user: torch.Tensor, item: torch.Tensor, label: torch.Tensor, rate: float) -> None:
        """A step of SGD without autograd: the gradients of the rows that were looked up, added in place."""
        flat, (batch, group) = item.reshape(-1), item.shape
        users = self.users.weight.index_select(0, user)
        items = self.items.weight.index_select(0, flat).view(batch, group, -1)
        error = torch.sigmoid(self._logits(users, items, item)).sub_(label).div_(label.numel())
        of_users = torch.bmm(error.unsqueeze(1), items).squeeze(1).add_(users, alpha=2 * self.l2[0] / batch)
        of_items = items.mul_(2 * self.l2[1] / batch).addcmul_(error.unsqueeze(2), users.unsqueeze(1))
        self.users.weight.index_add_(0, user, of_users, alpha=-rate)
        self.items.weight.index_add_(0, flat, of_items.view(batch * group, -1), alpha=-rate)
        self.bias.weight.index_add_(0, flat, error.view(-1, 1), alpha=-rate)


NETS = {"mlp": MLP, "mf": MF}


def initial(task: Task) -> dict[str, np.ndarray]:
    """The shared parameters that all begin with."""
    torch.manual_seed(task.seed)
    return shared_of(NETS[task.net](task, 1))


def shared_of(net: nn.Module) -> dict[str, np.ndarray]:
    """Copies of all parameters but the users', which stay with their client."""
    return {name: each.detach().numpy().copy() for name, each in net.named_parameters() if name != USERS}


class Client:
    """One client: its rows in memory as index tensors, its users' embeddings under local ids, and its net.

    Args:
        task: see there.
        number: of the client, from 0.
        cache: see `read_shard`.
    """

    def __init__(self, task: Task, number: int, cache: Path | None = None) -> None:
        torch.set_num_threads(1)
        self.task, self.number = task, number
        self._cache = cache
        self._rows = ClientRows(task, number, cache)
        torch.manual_seed(task.seed + 1 + number)
        self.net = NETS[task.net](task, len(self._rows.ids))

    def load(self, shared: Mapping[str, np.ndarray]) -> None:
        """Takes the shared parameters over."""
        self.net.load_state_dict({name: torch.from_numpy(values) for name, values in shared.items()}, strict=False)

    @property
    def users(self) -> np.ndarray:
        """The users' embeddings, float32 [users, width], which are never sent."""
        return self.net.users.weight.detach().numpy()

    @users.setter
    def users(self, values: np.ndarray) -> None:
        self.net.users.weight.data.copy_(torch.from_numpy(values))

    def train(self, epoch: int, part: int) -> tuple[int, int]:
        """Trains a part of an epoch, of which there are `task.exchanges`; returns its rows and items."""
        task = self.task
        if part == 0 or not hasattr(self, "_epoch"):
            self._epoch = self._draw(epoch)
        total = len(self._epoch[0])
        begin, end = (total * each // task.exchanges for each in (part, part + 1))
        user, item, label = (each[begin:end] for each in self._epoch)
        rate = task.rate(epoch, part)
        kind = torch.optim.Adam if task.adam else torch.optim.SGD
        optimizer = kind(self.net.parameters(), rate, **({"fused": True} if task.adam else {}))
        for batch in zip(user.split(task.batch), item.split(task.batch), label.split(task.batch)):
            if task.by_hand:
                self.net.step_by_hand(*batch, rate)
                continue
            optimizer.zero_grad(set_to_none=True)
            self.net.loss(*batch).backward()
            optimizer.step()
        return end - begin, item.numel()

    def evaluate(self) -> Evaluation:
        """Ranks this client's test users."""
        users, items, labels = read_shard(self.task.test[self.number], self._cache)
        local = torch.from_numpy(np.searchsorted(self._rows.ids, users))
        with torch.no_grad():
            batches = zip(local.split(TEST_BATCH), torch.from_numpy(items)[:, None].split(TEST_BATCH))
            scores = torch.cat([self.net(user, item) for user, item in batches]).squeeze(1).numpy()
        return rank(users, items, labels, scores)

    def _draw(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        users, items, labels = map(torch.from_numpy, self._rows.epoch(epoch))
        # Look-ups by int64 are the faster ones.
        return users[:, 0].long(), items.long(), labels.float()
