"""PURE. Which nodes a pool serves: a label selector, as Kubernetes has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

IN, NOT_IN, EXISTS, DOES_NOT_EXIST = "In", "NotIn", "Exists", "DoesNotExist"


class SelectorError(ValueError):
    """A selector that means nothing; the message is for the operator."""


class Requirement(NamedTuple):
    """What one label has to be."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == EXISTS:
            return value is not None
        if self.operator == DOES_NOT_EXIST:
            return value is None
        # As Kubernetes has it, a label that is not there is in no list.
        return (value in self.values) == (self.operator == IN)


class Selector(NamedTuple):
    """All of the requirements; none of them selects every node."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(selector: Mapping[str, Any]) -> Selector:
    """Read `matchLabels` and `matchExpressions`. Raises SelectorError."""
    found = [Requirement(key, IN, frozenset([value])) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, operator, values = expression.get("key", ""), expression.get("operator", ""), frozenset(expression.get("values") or ())
        if operator in (IN, NOT_IN) and not values:
            raise SelectorError(f"nodeSelector: {operator} of label {key} needs values")
        if operator in (EXISTS, DOES_NOT_EXIST) and values:
            raise SelectorError(f"nodeSelector: {operator} of label {key} takes no values")
        if operator not in (IN, NOT_IN, EXISTS, DOES_NOT_EXIST):
            raise SelectorError(f"nodeSelector: label {key} has operator {operator!r}; there are In, NotIn, Exists and DoesNotExist")
        found.append(Requirement(key, operator, values))
    return Selector(tuple(found))
