"""What a net says of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fl_rec.nets.structure import Layer, Structure, Tables, factorisation, structure_of

MF = factorisation("users", "items", "bias")


class Net:
    def __init__(self) -> None:
        self.config = {}

    def logits(self) -> None: ...

    def create_optimizer(self) -> None: ...

    def structure(self) -> Any:
        return MF


class Told(Net):
    def logits(self) -> None: ...

    def structure(self) -> Any:
        return factorisation("users", "items")


class OtherLogits(Net):
    def logits(self) -> None: ...


class OtherStart(Told):
    def __init__(self) -> None: ...

    def create_optimizer(self) -> None: ...


class More(Net):
    """Says nothing else."""

    def helper(self) -> None: ...


class Odd(Net):
    def structure(self) -> Any:
        return "MF"


def test_a_net_and_who_inherits_all_of_it() -> None:
    assert structure_of(Net()) == structure_of(More()) == MF
    assert structure_of(Told()) == factorisation("users", "items")


def test_who_overrides_a_part_says_what_it_is_or_has_no_structure() -> None:
    inherits = "of its own and no structure() to go with it: the one it inherits describes another net"
    assert structure_of(OtherLogits()) == f"OtherLogits has a logits {inherits}"
    assert structure_of(OtherStart()) == f"OtherStart has a __init__, create_optimizer {inherits}"
    patched = Net()
    patched.logits = lambda: None  # type: ignore[method-assign]
    assert structure_of(patched) == f"Net has a logits {inherits}"


def test_no_structure_and_a_wrong_one() -> None:
    assert structure_of(object()) == "object has no method structure(), by which a net says what it is"
    assert structure_of(Odd()) == "Odd.structure() gave a str, not a fl_rec.nets.structure.Structure"


def test_parts() -> None:
    layers, last = (Layer("w0", "b0"), Layer("w1", "b1")), Layer("w", "b")
    both = Structure(Tables("u", "v"), Tables("x", "y"), layers, last)
    assert both.tables == {"user": "u", "item": "v", "mlp_user": "x", "mlp_item": "y", "bias": None}
    assert both.dense == ["w0", "b0", "w1", "b1", "w", "b"]
    assert MF.names == {"users", "items", "bias"}
    for parts, text in [
        ((), "Received: neither"),
        ((None, Tables("x", "y"), layers), "mlp without prediction"),
        ((Tables("u", "v"), None, layers), "one without the other"),
    ]:
        with pytest.raises(ValueError, match=text):
            Structure(*parts)


NEUMF = Structure(Tables("u", "i"), Tables("mu", "mi"), (Layer("w", "b"), Layer("x", "c")), Layer("p", "q"))


@pytest.mark.parametrize("structure", [MF, NEUMF, factorisation("users", "items")])
def test_it_comes_back_from_json(structure: Structure) -> None:
    assert Structure.from_record(json.loads(json.dumps(structure.to_record()))) == structure
