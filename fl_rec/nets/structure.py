"""What a net says of itself, so that compiled kernels can train and score it. No Paddle is imported here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from fl_rec.outside import as_typed


class Tables(NamedTuple):
    """Names of the embeddings of users and items, float32 [users, width] and [items, width] with one width."""

    user: str
    item: str


class Layer(NamedTuple):
    """Names of a fully connected layer's parameters, float32 [fan_in, fan_out] and [fan_out]."""

    weight: str
    bias: str


@dataclass(frozen=True)
class Structure:
    """A net of user and item: its logit is that of `prediction` over what its towers give, plus the item's bias.

    One tower multiplies two embeddings, number by number; the other sends two, side by side with the user's first,
    through fully connected layers, each with a ReLU. With both it is NeuMF, eq. 12 of arXiv:1708.05031, the products
    first. Without a predicting layer the products are added up, which is matrix factorisation.

    A net that has a method `structure()`, which returns this, also says that its loss is the configured one of its
    logits, its scores their sigmoid, its optimizer the configured one, and that it has no other parameters.

    Attributes:
        product: the embeddings that are multiplied.
        mlp: those that lie side by side.
        layers: what they go through.
        prediction: of one output; its fan_in is the width of `product` plus that of the last layer.
        bias: name of the items' biases, an embedding float32 [items, 1].
    """

    product: Tables | None = None
    mlp: Tables | None = None
    layers: tuple[Layer, ...] = ()
    prediction: Layer | None = None
    bias: str | None = None

    def __post_init__(self) -> None:
        if self.product is None and self.mlp is None:
            raise ValueError("A net's structure has product or mlp. Received: neither.")
        if self.mlp is not None and self.prediction is None:
            raise ValueError("What goes through layers needs a layer that predicts. Received: mlp without prediction.")
        if bool(self.layers) != (self.mlp is not None):
            raise ValueError("Layers are those of mlp. Received: one without the other.")

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Structure:
        """The inverse of `to_record`. DataError if it is none."""
        return as_typed(cls, record, "A model's structure names its parameters by their parts.", "another")

    def to_record(self) -> dict[str, Any]:
        """For JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def tables(self) -> dict[str, str | None]:
        """The embeddings by their part; None where there is none."""
        (user, item), (mlp_user, mlp_item) = self.product or (None, None), self.mlp or (None, None)
        return {"user": user, "item": item, "mlp_user": mlp_user, "mlp_item": mlp_item, "bias": self.bias}

    @property
    def dense(self) -> list[str]:
        """The other parameters: weight and bias of each layer, the predicting one last."""
        return [name for layer in self._all_layers() for name in layer]

    def _all_layers(self) -> Iterator[Layer]:
        yield from self.layers
        if self.prediction is not None:
            yield self.prediction

    @property
    def names(self) -> set[str]:
        """All parameters."""
        return {name for name in self.tables.values() if name is not None} | set(self.dense)


def factorisation(user: str, item: str, bias: str | None = None) -> Structure:
    """The dot product of a user's and an item's embedding, plus the item's bias."""
    return Structure(product=Tables(user, item), bias=bias)


def structure_of(model: Any) -> Structure | str:
    """What a net says of itself, or in words why it says nothing that holds.

    A class that overrides a method of the one that defines `structure` has another net, and must say itself which.

    Args:
        model: an instance of a StaticModel.
    """
    kind = type(model)
    teller = next((each for each in kind.__mro__ if "structure" in vars(each)), None)
    if teller is None:
        return f"{kind.__name__} has no method structure(), by which a net says what it is"
    below = [vars(each) for each in kind.__mro__[: kind.__mro__.index(teller)]]
    changed = sorted(
        {
            name
            for names in (vars(model), *below)
            for name in names
            if hasattr(teller, name) and (name == "__init__" or not name.startswith("__"))
        }
    )
    if changed:
        return (
            f"{kind.__name__} has a {', '.join(changed)} of its own and no structure() to go with it: the one it "
            "inherits describes another net"
        )
    structure = model.structure()
    if not isinstance(structure, Structure):
        return f"{kind.__name__}.structure() gave a {type(structure).__name__}, not a fl_rec.nets.structure.Structure"
    return structure
