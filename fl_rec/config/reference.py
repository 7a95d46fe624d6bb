"""What every key of a configuration is: `fl-rec config`, docs/configuration.md and the JSON Schema come from here."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from fl_rec.config.schema import RENAMED, Sections
from fl_rec.config.written import KEYS, SECTIONS, by_last_part, unknown_key
from fl_rec.errors import ConfigError
from fl_rec.typed import inner_keys, rule_of, to_plain


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        name: dotted; N is any client's number.
        type: what it accepts, in words.
        default: as YAML writes it; None of a key that is required.
        unit: of its number; "" without one.
        meaning: one line.
        renamed: its old name, which still works; "" without one.
    """

    name: str
    type: str
    default: str | None
    unit: str
    meaning: str
    renamed: str = ""

    @property
    def section(self) -> str:
        return self.name.partition(".")[0]


def every_key() -> list[Key]:
    """Every key, section by section, as they are declared."""
    return [each for name, item in KEYS.items() for each in _explained(name, item)]


def find(name: str) -> list[Key]:
    """The keys of a name, or of its last part: one, or those of a section. ConfigError if there is none."""
    name = RENAMED.get(name, name)
    name = {last: known for last, known in by_last_part().items() if known not in SECTIONS}.get(name, name)
    found = [each for each in every_key() if f"{each.name}.".startswith(f"{name}.")]
    if not found:
        raise ConfigError(unknown_key(name, SECTIONS))
    return found


def meaning_of(section: str) -> str:
    """What a section is for, a sentence."""
    kind: Any = Sections.model_fields[section].annotation
    return str(kind.__doc__)


def to_text(found: Sequence[Key], width: int) -> str:
    """Keys for a terminal, `width` columns wide."""
    lines: list[str] = []
    for each in found:
        value = "" if each.default is None else f"={each.default}"
        told = "; ".join(filter(None, (each.type, each.unit, "" if value else "required")))
        head = f"{each.name}{value}  ({told})"
        lines += textwrap.wrap(head, width, subsequent_indent="      ", break_on_hyphens=False)
        lines += textwrap.wrap(each.meaning, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def explain(each: Key, width: int) -> str:
    """One key at length, for a terminal."""
    *above, last = each.name.split(".")
    value = each.default or "..."
    shown = " ".join(f"{name}: {{" for name in above[1:]) + f"{last}: {value}" + "}" * len(above[1:])
    rows = {
        "meaning": each.meaning,
        "type": each.type,
        "default": "none: it is required" if each.default is None else each.default,
        "unit": each.unit,
        "old name": each.renamed,
        "in YAML": f"{above[0]}:\n  {shown}",
        "or": f"-o {each.name}={value}",
    }
    lines = [each.name]
    for title, text in rows.items():
        for number, line in enumerate(text.splitlines()):
            indent = " " * (12 + len(line) - len(line.lstrip()))
            first = f"  {title if number == 0 else '':<10}" + indent[12:]
            lines += textwrap.wrap(line.strip(), width, initial_indent=first, subsequent_indent=indent)
    return "\n".join(lines)


def to_markdown(
    section: str,
    titles: Sequence[str] = ("key", "type", "default", "unit", "meaning"),
    say: Callable[[str], str] = str,
) -> str:
    """A section's keys as a table for the documentation, by their names in the section; `say` has another language."""
    rows = [list(titles), ["---"] * len(titles)]
    for each in every_key():
        if each.section == section:
            name = f"`{each.name.removeprefix(f'{section}.')}`"
            default = "" if each.default is None else f"`{each.default}`"
            rows.append([name, say(each.type), default, each.unit and say(each.unit), say(each.meaning)])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a configuration, for editors. It is stricter than `Config.load`, which converts types."""
    schema = Sections.model_json_schema()
    for old, new in RENAMED.items():
        section, name = old.split(".")
        kind: Any = Sections.model_fields[section].annotation
        properties = schema["$defs"][kind.__name__]["properties"]
        properties[name] = {**properties[new.rpartition(".")[2]], "deprecated": True, "description": f"now {new}"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "fl_rec configuration"}


def _explained(name: str, item: FieldInfo) -> Iterator[Key]:
    default = None if item.is_required() else json.dumps(to_plain(item.default), ensure_ascii=False)
    renamed = next((old for old, new in RENAMED.items() if new == name), "")
    extra: Any = item.json_schema_extra or {}
    yield Key(name, rule_of(item).accepts, default, extra.get("unit", ""), item.description or "", renamed)
    for inner, each in inner_keys(item).items():
        yield from _explained(f"{name}.N.{inner}", each)
