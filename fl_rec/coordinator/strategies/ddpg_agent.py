"""The actor and the critics of the strategy ddpg, and what they learn from. Paddle is imported when one is made."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec.errors import ConfigError, DataError
from fl_rec.files import read_arrays, write_arrays
from fl_rec.typed import Fraction, Keys, PositiveFloat, PositiveInt, key

# Raise it when a feature or an action changes its meaning; a policy of another version is refused.
VERSION = 1


# What the actor knows of a client, in order; the projection of a dense field follows.
FEATURES = (
    "loss",
    "loss_change",
    "metric",
    "metric_gain",
    "row_share",
    "seconds_per_row",
    "epoch_seconds",
    "staleness",
    "times_joined",
    "last_work",
    "progress",
    "present",
)


EPOCH_SECONDS, ROW_SHARE = FEATURES.index("epoch_seconds"), FEATURES.index("row_share")


SCORE, AMOUNT = 0, 1


ACTIONS = 2


OUTCOMES = 3


class Options(Keys):
    policy: Path | None = key(None, "a saved policy to start from; null: an untrained one")
    learn: bool = key(True, "go on learning from the reports")
    explore: bool = key(True, "try actions beside the policy's own")
    time_weight: PositiveFloat = key(1.0, "points of the metric (0.01) that the time of one round of join_all is worth")
    min_local_epochs: PositiveFloat = key(0.1, "least that a client trains when it joins")
    max_local_epochs: PositiveFloat = key(2.0, "most that a client trains in a round")
    noise: PositiveFloat = key(0.1, "standard deviation of exploration in round 0; actions are from -1 to 1")
    noise_decay: Fraction = key(0.9, "factor on it each round")
    updates: PositiveInt = key(4, "steps of learning in a round")
    batch_size: PositiveInt = key(16, "rounds in a step; learning starts when so many are remembered")
    memory: PositiveInt = key(20000, "rounds that are remembered at most")
    hidden: PositiveInt = key(32, "width of the networks' layers")
    discount: Fraction = key(0.9, "worth of a reward that comes one round of join_all later")
    actor_learning_rate: PositiveFloat = key(5e-4, "step size of the actor (Adam)")
    critic_learning_rate: PositiveFloat = key(1e-3, "step size of the critic (Adam)")
    soft_update: Fraction = key(0.02, "how far the target networks follow in a step")
    dense_field: str | None = key(None, "a declared report field that the actor sees, projected")
    dense_size: PositiveInt = key(8, "numbers that the field is projected to, at random")

    def local_epochs(self, amount: Any, needed: Any) -> Any:
        """What a client trains: as long as the others of the same amount, within the limits.

        Args:
            amount: the action, an array or tensor from -1 to 1. The slowest client trains min_local_epochs at -1 and
                max_local_epochs at 1, in equal ratios between.
            needed: seconds of one local epoch, by those of the slowest client; likewise.
        """
        least, most = self.min_local_epochs, self.max_local_epochs
        return (least * (most / least) ** ((amount + 1) / 2) / needed).clip(least, most)


@dataclass(frozen=True, eq=False)
class Transition:
    """A round.

    Attributes:
        state, next_state: float32[clients, features] before and after it.
        action: float32[clients, 2].
        reward: its own.
        discount: what the rewards of the rounds after it are worth, by its length; 0 if it was the last.
    """

    state: np.ndarray
    action: np.ndarray
    reward: float
    discount: float
    next_state: np.ndarray


def read_policy(path: Path) -> dict[str, np.ndarray]:
    """The weights of a saved policy by name, float32. ConfigError if it can't be read, or is none."""
    try:
        saved = read_arrays(path, "options.policy must be a policy that ddpg or tools/pretrain_ddpg.py wrote.")
    except DataError as err:
        raise ConfigError(f"{err} Name another, or leave the key out to start untrained.") from err
    version, features = (saved.pop(name, np.array([])).tolist() for name in ("version", "features"))
    if version != VERSION or features != list(FEATURES):
        raise ConfigError(
            f"A policy must be of version {VERSION} and of the features {', '.join(FEATURES)}. Received: {path}, "
            f"version {version!r:.80}, {features!r:.300}. Make it anew with tools/pretrain_ddpg.py."
        )
    damaged = sorted(name for name, each in saved.items() if each.dtype != np.float32 or not np.isfinite(each).all())
    if damaged:
        raise ConfigError(
            f"A policy's weights must be finite float32. Received: {path}, {damaged[0]}. Name another policy, or leave "
            "the key out to start untrained."
        )
    return saved


class Agent:
    """Actor, critic, their targets and the replay memory, for any number of clients.

    Args:
        options: sizes and rates.
        seed: of the initial weights.

    Attributes:
        options: the same.
        features: numbers that the actor knows of a client.
    """

    def __init__(self, options: Options, seed: int) -> None:
        import paddle
        from paddle import nn

        paddle.disable_static()
        paddle.seed(seed)
        width = options.hidden

        def mlp(inputs: int, outputs: int) -> Any:
            layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
            return nn.Sequential(*layers, nn.Linear(width, outputs))

        self._paddle, self.options = paddle, options
        self.features = features = len(FEATURES) + (options.dense_size if options.dense_field else 0)
        actor = mlp(2 * features, ACTIONS)
        # Two of them, each a net of single clients and one of what is pooled.
        critic = nn.LayerList([mlp(*sizes) for sizes in 2 * [(features + ACTIONS, width), (2 * width + OUTCOMES, 1)]])
        # Untrained, it lets nearly everyone train.
        actor[-1].weight.set_value(0.1 * actor[-1].weight)
        actor[-1].bias.set_value(np.array([0.5, 0.0], np.float32))
        self._nets = {"actor": actor, "critic": critic}
        self._targets = {name: copy.deepcopy(net) for name, net in self._nets.items()}
        rates = {"actor": options.actor_learning_rate, "critic": options.critic_learning_rate}
        self._optimizers = {
            name: paddle.optimizer.Adam(rates[name], parameters=net.parameters()) for name, net in self._nets.items()
        }
        self._steps = 0
        # By the number of clients, since a batch is one array.
        self._memory: dict[int, deque[Transition]] = {}

    def act(self, state: np.ndarray) -> np.ndarray:
        """float64[clients, 2] in (-1, 1): the actions for float32[clients, features]."""
        with self._paddle.no_grad():
            actions = self._actions(self._nets["actor"], self._paddle.to_tensor(state[None]))[0]
        return np.asarray(actions.numpy()[0], np.float64)

    def remember(self, transition: Transition) -> None:
        memory = self._memory.setdefault(len(transition.state), deque(maxlen=self.options.memory))
        memory.append(transition)

    def learn(self, clients: int, random: np.random.Generator) -> None:
        """Takes `options.updates` steps, on what is remembered of fleets of so many clients."""
        memory = self._memory.get(clients, ())
        if len(memory) < self.options.batch_size:
            return
        for _ in range(self.options.updates):
            self._step([memory[index] for index in random.integers(len(memory), size=self.options.batch_size)], random)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights of actor and critic by name, float32."""
        return {
            f"{name}.{part}": weight.numpy()
            for name, net in self._nets.items()
            for part, weight in net.state_dict().items()
        }

    def save(self, path: Path) -> None:
        """Writes the policy as a whole or not at all."""
        write_arrays(path, {"version": VERSION, "features": np.array(FEATURES), **self.arrays()})

    def load(self, path: Path) -> None:
        """Takes a saved policy over.

        Raises:
            ConfigError: it can't be read, is of another version, or has other features or layers.
        """
        self.set_arrays(read_policy(path), str(path))

    def set_arrays(self, arrays: Mapping[str, np.ndarray], source: str) -> None:
        """The inverse of `arrays`. Raises `ConfigError`."""
        wanted = {name: list(each.shape) for name, each in self.arrays().items()}
        received = {name: list(each.shape) for name, each in arrays.items()}
        strange = sorted(name for name in wanted.keys() | received.keys() if wanted.get(name) != received.get(name))
        if strange:
            name = strange[0]
            raise ConfigError(
                f"A policy's layers must have the shapes of the options hidden, dense_field and dense_size: {name} "
                f"{wanted.get(name)}. Received: {source}, {received.get(name)}. Set them as they were when it was "
                "learned, or make one with tools/pretrain_ddpg.py."
            )
        for nets in (self._nets, self._targets):
            for name, net in nets.items():
                for part, weight in net.state_dict().items():
                    weight.set_value(arrays[f"{name}.{part}"])

    def _actions(self, actor: Any, states: Any) -> tuple[Any, Any]:
        """[batch, clients, 2]: actions in (-1, 1), and the same before tanh."""
        mean = states.mean(1, keepdim=True).expand_as(states)
        raw = actor(self._paddle.concat([states, mean], -1))
        return self._paddle.tanh(raw), raw

    def _values(self, critic: Any, states: Any, actions: Any) -> tuple[Any, Any]:
        """[batch, 1]: expected discounted rewards, by either critic."""
        needed, size = (states[:, :, at : at + 1].exp() for at in (EPOCH_SECONDS, ROW_SHARE))
        joins = self._paddle.nn.functional.sigmoid(8 * actions[:, :, SCORE:AMOUNT])
        work = joins * self.options.local_epochs(actions[:, :, AMOUNT:], needed)
        inputs = self._paddle.concat([states, actions], -1)
        # What the reward hangs on is spelt out: the time of the slowest, the rows trained, and whose they are.
        outcome = [(needed * work).max(1), (size * work).mean(1), (size * joins).mean(1)]

        def value(each: Any, pooled: Any) -> Any:
            hidden = each(inputs)
            return pooled(self._paddle.concat([hidden.mean(1), hidden.max(1), *outcome], -1))

        return value(critic[0], critic[1]), value(critic[2], critic[3])

    def _step(self, batch: list[Transition], random: np.random.Generator) -> None:
        paddle, nets, targets = self._paddle, self._nets, self._targets
        states, actions, after = (
            paddle.to_tensor(np.stack([getattr(each, name) for each in batch]))
            for name in ("state", "action", "next_state")
        )
        rewards, discounts = (
            paddle.to_tensor(np.array([[getattr(each, name)] for each in batch], np.float32))
            for name in ("reward", "discount")
        )
        with paddle.no_grad():
            smoothed = self._actions(targets["actor"], after)[0] + paddle.to_tensor(
                np.clip(0.1 * random.standard_normal(actions.shape), -0.3, 0.3).astype(np.float32)
            )
            # The lower of two critics' values: one alone, maximised by the actor, comes out ever higher.
            value = paddle.minimum(*self._values(targets["critic"], after, smoothed.clip(-1, 1)))
            wanted = rewards + discounts * value
        loss = paddle.nn.functional.smooth_l1_loss
        self._descend("critic", sum(loss(each, wanted) for each in self._values(nets["critic"], states, actions)))
        self._steps += 1
        if self._steps % 2:
            return
        chosen, raw = self._actions(nets["actor"], states)
        # Without the second term tanh saturates, and the actor stops learning.
        self._descend("actor", -self._values(nets["critic"], states, chosen)[0].mean() + 1e-2 * (raw**2).mean())
        with paddle.no_grad():
            for name, target in targets.items():
                for old, new in zip(target.parameters(), nets[name].parameters()):
                    old.set_value(old + self.options.soft_update * (new - old))

    def _descend(self, name: str, loss: Any) -> None:
        loss.backward()
        self._optimizers[name].step()
        for optimizer in self._optimizers.values():
            optimizer.clear_grad()
