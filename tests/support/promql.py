"""The metrics that an expression of Prometheus' reads, with the labels that it expects them to have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

# Of the language; what else is a name in an expression is a metric's.
AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile"}
FUNCTIONS = {"rate", "increase", "histogram_quantile", "time", "delta", "clamp_min", "absent", "changes"}
KEYWORDS = {"by", "without", "and", "or", "unless", "on", "ignoring", "group_left", "group_right", "offset", "bool"}
OF_TARGETS = {"instance", "job"}  # the labels that Prometheus adds to whatever it scrapes
OF_PROMETHEUS = {"up"}  # what it measures itself

_TOKEN = re.compile(
    r"""(?P<text>"[^"]*") | (?P<range>\[[^\]]*\]) | (?P<name>[a-zA-Z_:][\w:]*) | (?P<number>\d+(?:\.\d+)?[smhd]?)
      | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},]) | \s+""",
    re.VERBOSE,
)
_DURATION = re.compile(r"\[\d+[smhd]\]")
_PAIRS = {")": "(", "}": "{"}


@dataclass(frozen=True, slots=True)
class Selected:
    """A metric in an expression. matchers: label, operator and value."""

    name: str
    matchers: Sequence[tuple[str, str, str]]


class BadExpression(Exception):
    """The text is no expression, or says what this module cannot read."""


def selected(expression: str) -> list[Selected]:
    """The metrics that are read. Raises `BadExpression`."""
    tokens = list(_tokens(expression))
    _check_brackets(tokens)
    found = []
    for index, (kind, text) in enumerate(tokens):
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        if kind != "name" or _is_inside(tokens, index):
            continue
        if following == "(" or text in AGGREGATIONS or text in KEYWORDS:
            if text not in AGGREGATIONS | FUNCTIONS | KEYWORDS:
                raise BadExpression(f"no function {text}")
            continue
        found.append(Selected(text, _matchers(tokens, index + 1) if following == "{" else ()))
    if not found:
        raise BadExpression("it reads no metric")
    return found


def grouped_by(expression: str) -> set[str]:
    """The labels of all its `by (…)`."""
    lists: list[str] = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return {label.strip() for each in lists for label in each.split(",")}


def labels_of_result(expression: str) -> set[str] | None:
    """The labels that are left of its aggregations; None: it has none, and those of the metric are left."""
    groups = grouped_by(expression)
    return groups - {"le"} if groups or re.match(rf"({'|'.join(AGGREGATIONS)})\s*\(", expression) else None


def series_of(exposition: str) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """The labels of all series of a server's `/metrics`, by the names of the samples."""
    series: dict[str, list[Mapping[str, str]]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def problems(expression: str, series: Mapping[str, Sequence[Mapping[str, str]]]) -> list[str]:
    """What the expression reads and no series has: metrics, labels, values of labels."""
    try:
        metrics = [each for each in selected(expression) if each.name not in OF_PROMETHEUS]
    except BadExpression as error:
        return [str(error)]
    found = [f"no metric {each.name}" for each in metrics if each.name not in series]
    known = [each for each in metrics if each.name in series]
    found += [problem for each in known for problem in _matcher_problems(each, series[each.name])]
    for label in grouped_by(expression) - OF_TARGETS:
        found += [f"{each.name} has no label {label}" for each in known if label not in series[each.name][0]]
    return found


def _matcher_problems(metric: Selected, series: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for label, operator, value in metric.matchers:
        if label in OF_TARGETS:
            continue
        values = {each[label] for each in series if label in each}
        wanted = value.split("|") if operator in ("=~", "!~") else [value]
        yield from (f"{metric.name} has no {label} {each}" for each in wanted if each not in values)


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        token = _TOKEN.match(expression, at)
        if token is None:
            raise BadExpression(f"what is {expression[at:]!r:.40}?")
        at = token.end()
        if token.lastgroup == "range" and not _DURATION.fullmatch(token[0]):
            raise BadExpression(f"no duration: {token[0]}")
        if token.lastgroup is not None:
            yield token.lastgroup, token[0]


def _check_brackets(tokens: Sequence[tuple[str, str]]) -> None:
    opened: list[str] = []
    for kind, text in tokens:
        if kind == "sign" and text in _PAIRS.values():
            opened.append(text)
        elif kind == "sign" and text in _PAIRS and (not opened or opened.pop() != _PAIRS[text]):
            raise BadExpression(f"a {text} too many")
    if opened:
        raise BadExpression(f"{opened[-1]} is not closed")


def _is_inside(tokens: Sequence[tuple[str, str]], index: int) -> bool:
    """Whether a name is a label's: between braces, or in the list of `by`."""
    for before in range(index - 1, -1, -1):
        text = tokens[before][1]
        if text == "{":
            return True
        if text == "(":
            return before > 0 and tokens[before - 1][1] in KEYWORDS - {"and", "or", "unless", "bool", "offset"}
        if text in (")", "}"):
            return False
    return False


def _matchers(tokens: Sequence[tuple[str, str]], brace: int) -> list[tuple[str, str, str]]:
    texts = [text for _, text in tokens[brace + 1 :]]
    inside = [text for text in texts[: texts.index("}")] if text != ","]
    if len(inside) % 3:
        raise BadExpression(f"no matchers: {' '.join(inside)}")
    return [(inside[at], inside[at + 1], inside[at + 2].strip('"')) for at in range(0, len(inside), 3)]
