"""Relations between keys of a trial, such as `pdrs.rho_task <= pdrs.rho_shared`: what breaks one is never proposed.

A relation compares terms of keys and numbers. Python's own parser reads it, and only the nodes that are listed here are
evaluated.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from faar_ray.config.null_values import AS_OTHER, effective
from faar_ray.config.quoting import quote_value
from faar_ray.config.validation_messages import Issue, unknown_key
from faar_ray.tune.space.conditions import Base, Parameters, Sample, possible_values, trial_values, unmet_condition
from faar_ray.tune.space.parameter import DEFAULTS

LONGEST = 300
"""Characters of a relation."""
COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.LtE: operator.le,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
}
ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FORM = "must compare keys and numbers by <=, <, >= or > (+ - * / and brackets are allowed)"


@dataclass(frozen=True)
class Relation:
    """One relation."""

    text: str
    tree: ast.Compare
    keys: tuple[str, ...]
    """That it names, in order."""

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether it holds for values of its keys; a division by zero breaks it."""
        try:
            sides = [_evaluated(node, values) for node in (self.tree.left, *self.tree.comparators)]
        except (ZeroDivisionError, OverflowError):
            return False
        return all(COMPARISONS[type(op)](*pair) for op, pair in zip(self.tree.ops, pairwise(sides), strict=True))


@dataclass(frozen=True)
class Relations:
    """All relations of a search space.

    Args:
        relations: each valid for the parameters and the base.
        parameters: of the space.
        base: a raw trial config.
        leftovers: whether a parameter that a sample leaves out has the base's value (sampler `points`); else it is not
            known yet, or not searched there.
    """

    relations: tuple[Relation, ...]
    parameters: Parameters
    base: Base
    leftovers: bool = False

    def broken(self, sample: Sample) -> Relation | None:
        """The first relation that a sample breaks.

        A relation is not judged where the sample has no value of a parameter that it names.
        """
        config: Mapping[str, Any] = sample
        for relation in self.relations:
            keys = {*relation.keys, *(AS_OTHER[key] for key in relation.keys if key in AS_OTHER)}
            if not keys <= config.keys() and self._judges(relation, sample):
                config = self._values(sample)
            if self._judges(relation, sample) and config:
                values = {key: effective(config, key) for key in relation.keys}
                if all(map(_is_number, values.values())) and not relation.holds(values):
                    return relation
        return None

    def keep(self, sample: Sample) -> bool:
        """Whether a sample breaks none."""
        return self.broken(sample) is None

    def fault(self, sample: Sample) -> str:
        """Which relation a sample breaks, in words with its values; "" for none."""
        if (relation := self.broken(sample)) is None:
            return ""
        config = self._values(sample)
        values = " and ".join(f"{key} is {quote_value(effective(config, key))}" for key in dict.fromkeys(relation.keys))
        return f"must keep the relation {relation.text}, but {values}"

    def _values(self, sample: Sample) -> dict[str, Any]:
        """The trial config of a sample; values that do not fit together stand over the base's."""
        return trial_values(self.base, sample) or {**trial_values(self.base, {}), **sample}

    def _judges(self, relation: Relation, sample: Sample) -> bool:
        null = (AS_OTHER[key] for key in relation.keys if key in AS_OTHER and sample.get(key, "") is None)
        absent = [key for key in (*relation.keys, *null) if key in self.parameters and key not in sample]
        if not self.leftovers:
            return not absent
        return not any(unmet_condition(self.parameters[key], self.base, sample) for key in absent)


@lru_cache(maxsize=256)
def parse_relation(text: str) -> Relation:
    """The relation that a text states.

    Raises:
        ValueError: it is none, in words that follow the key.
    """
    tree = _tree(text)
    if not isinstance(tree, ast.Compare):
        raise ValueError(f"{FORM}, got {quote_value(text)}")
    if wrong := [op for op in tree.ops if type(op) not in COMPARISONS]:
        raise ValueError(f"{FORM}, not by {_symbol(wrong[0])}, got {quote_value(text)}")
    keys = tuple(key for node in (tree.left, *tree.comparators) for key in _keys(node, text))
    return Relation(text, tree, keys)


def relates_keys(text: str) -> bool:
    """Whether a text is a relation that names keys of a trial config only."""
    try:
        keys = parse_relation(text).keys
    except ValueError:
        return False
    return bool(keys) and all(key in DEFAULTS for key in keys)


def relation_faults(texts: Sequence[str], parameters: Parameters, base: Base) -> Iterator[Issue]:
    """What is wrong with relations, each at its number."""
    values = trial_values(base, {})
    for index, text in enumerate(texts):
        try:
            relation = parse_relation(text)
        except ValueError as error:
            yield Issue((index,), str(error))
            continue
        if fault := next(_key_faults(relation, parameters, values), ""):
            yield Issue((index,), fault)
        elif not {*relation.keys, *(AS_OTHER.get(key) for key in relation.keys)} & parameters.keys():
            yield Issue((index,), f"must name a searched parameter, got {quote_value(text)}")


def _key_faults(relation: Relation, parameters: Parameters, values: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys(relation.keys):
        if key not in DEFAULTS:
            metrics = "; limits of metrics stand under constraints" if "." not in key else ""
            yield f"{key}: {unknown_key(key, DEFAULTS)}{metrics}"
        elif key == "seed":
            yield "seed: is no part of a configuration, so nothing can be related to it"
        elif values and key not in values and key not in parameters:
            yield f"{key}: must be one number, but it is a number for each stage"
        else:
            numbers = _is_number_or_null if key in AS_OTHER else _is_number
            possible = possible_values(parameters, key, values.get(key, DEFAULTS[key]))
            wrong = [value for value in possible if not numbers(value)]
            if wrong:
                yield f"{key}: must be a number in every trial, but may be {quote_value(wrong[0])}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number_or_null(value: Any) -> bool:
    return value is None or _is_number(value)


def _tree(text: str) -> ast.expr | None:
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters, got {len(text)}")
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _keys(node: ast.expr, text: str) -> Iterator[str]:
    """The keys of a term.

    Raises:
        ValueError: something in it is neither a key, a number nor arithmetic.
    """
    if isinstance(node, ast.Constant) and _is_number(node.value):
        return
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        yield from _keys(node.operand, text)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield from _keys(node.left, text)
        yield from _keys(node.right, text)
    elif key := _dotted(node):
        yield key
    else:
        raise ValueError(f"{FORM}, not {quote_value(ast.unparse(node))}, got {quote_value(text)}")


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    above = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{above}.{node.attr}" if isinstance(node, ast.Attribute) and above else ""


def _evaluated(node: ast.expr, values: Mapping[str, float]) -> float:
    if isinstance(node, ast.BinOp):
        return ARITHMETIC[type(node.op)](_evaluated(node.left, values), _evaluated(node.right, values))
    if isinstance(node, ast.UnaryOp):
        value = _evaluated(node.operand, values)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Constant):
        number: float = node.value  # type: ignore[assignment]  # `_keys` has looked at it
        return number
    return values[_dotted(node)]


def _symbol(op: ast.cmpop) -> str:
    names = {ast.Eq: "==", ast.NotEq: "!=", ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not"}
    return names[type(op)]
