"""One configuration key as Kafka defines it: type, default, bounds, and how its text is parsed and judged.

Follows `org.apache.kafka.common.config.ConfigDef` of Kafka 4.3; the error texts are Kafka's, byte for byte.
The tables are in config_defs_topic.py and config_defs_broker.py, their documentation in config_docs.py, what
is done with them in configs.py.
"""

from __future__ import annotations

import math
import re
from enum import IntEnum, StrEnum
from typing import NamedTuple, TypeAlias

Value: TypeAlias = bool | int | float | str | list[str]


class ConfigError(ValueError):
    """A value or a name is not acceptable; the text is what Kafka would say."""


class ConfigType(IntEnum):
    """Numbers as in DescribeConfigs v3+."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Importance(StrEnum):
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Update(StrEnum):
    """Whether a running broker takes a new value, and for whom it can be set."""

    READ_ONLY = "read-only"
    PER_BROKER = "per-broker"
    CLUSTER_WIDE = "cluster-wide"


class Rule(StrEnum):
    """Checks beyond bounds and choices."""

    NONE = ""
    LIST_NOT_EMPTY = "list-not-empty"
    UNIQUE_LIST = "unique-list"
    NOT_EMPTY = "not-empty"
    ANY_CASE = "any-case"
    GZIP_LEVEL = "gzip-level"
    THROTTLED_REPLICAS = "throttled-replicas"


class ConfigDef(NamedTuple):
    """A key. `default` is text as a properties file would hold it, None where Kafka's default is null."""

    name: str
    type: ConfigType
    default: str | None
    importance: Importance = Importance.MEDIUM
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    rule: Rule = Rule.NONE
    internal: bool = False

    @property
    def sensitive(self) -> bool:
        return self.type is ConfigType.PASSWORD


def define(
    name: str,
    kind: ConfigType,
    default: Value | None,
    importance: Importance = Importance.MEDIUM,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    rule: Rule = Rule.NONE,
    internal: bool = False,
) -> ConfigDef:
    """A row of the tables."""
    text = None if default is None else render(default)
    return ConfigDef(name, kind, text, importance, low, high, choices, rule, internal)


_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DECIMAL = re.compile(
    r"([+-]?)(NaN|Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fFdD]?", re.ASCII
)
_INTEGER_BITS = {ConfigType.SHORT: 15, ConfigType.INT: 31, ConfigType.LONG: 63}
_COMMA = re.compile(r"\s*,\s*")
_REPLICA = re.compile(r"[0-9]+:[0-9]+", re.ASCII)


def invalid(name: str, value: object, why: str) -> ConfigError:
    return ConfigError(f"Invalid value {value} for configuration {name}: {why}")


def parse(definition: ConfigDef, text: str) -> Value:
    """The typed, checked value. ConfigError with Kafka's text."""
    value = _convert(definition, text.strip() if definition.type is not ConfigType.PASSWORD else text)
    return _check(definition, value)


def canonical(definition: ConfigDef, text: str) -> str:
    """The text Kafka shows for a value: trimmed, numbers normalised, lists without blanks. ConfigError if
    invalid.
    """
    return render(parse(definition, text))


def render(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return java_double(value)
    if isinstance(value, list):
        return ",".join(value)
    return str(value)


def java_double(value: float) -> str:
    """`Double.toString`: plain from 1e-3 to 1e7, else with an exponent as in 1.0E-4."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    power = int(exponent or 0) + len(whole) - 1 - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{power}"


def _convert(definition: ConfigDef, text: str) -> Value:
    name, kind = definition.name, definition.type
    match kind:
        case ConfigType.BOOLEAN:
            if text.lower() not in ("true", "false"):
                raise invalid(name, text, "Expected value to be either true or false")
            return text.lower() == "true"
        case ConfigType.INT | ConfigType.LONG | ConfigType.SHORT:
            # The length bound keeps a hostile value from costing a quadratic conversion.
            number = int(text) if len(text) <= 32 and _INTEGER.fullmatch(text) else None
            limit = 1 << _INTEGER_BITS[kind]
            if number is None or not -limit <= number < limit:
                raise invalid(name, text, f"Not a number of type {kind.name}")
            return number
        case ConfigType.DOUBLE:
            found = _DECIMAL.fullmatch(text)
            if found is None:
                raise invalid(name, text, "Not a number of type DOUBLE")
            return float(found[1] + found[2])
        case ConfigType.LIST:
            return _COMMA.split(text) if text else []
        case _:
            return text


def _check(definition: ConfigDef, value: Value) -> Value:
    if isinstance(value, list):
        return _check_list(definition, value)
    if isinstance(value, str):
        _check_string(definition, value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(definition, value)
    return value


def _check_number(definition: ConfigDef, value: float) -> None:
    name, shown = definition.name, render(value)
    if definition.rule is Rule.GZIP_LEVEL and value != -1 and not 1 <= value <= 9:
        raise invalid(name, shown, "Value must be between 1 and 9 or equal to -1")
    if definition.low is not None and value < definition.low:
        raise invalid(name, shown, f"Value must be at least {definition.low}")
    if definition.high is not None and value > definition.high:
        raise invalid(name, shown, f"Value must be no more than {definition.high}")


def _check_string(definition: ConfigDef, value: str) -> None:
    if definition.rule is Rule.NOT_EMPTY and not value:
        raise invalid(definition.name, value, "String must be non-empty")
    if definition.choices and value not in definition.choices:
        if definition.rule is Rule.ANY_CASE and value.upper() in definition.choices:
            return
        hint = " (case insensitive)" if definition.rule is Rule.ANY_CASE else ""
        choices = ", ".join(definition.choices)
        raise invalid(definition.name, value, f"String must be one of{hint}: {choices}")


def _check_list(definition: ConfigDef, values: list[str]) -> list[str]:
    name, rule = definition.name, definition.rule
    if rule is Rule.THROTTLED_REPLICAS:
        return _check_throttled(name, values)
    if rule is Rule.LIST_NOT_EMPTY and not values:
        allowed = f"[{', '.join(definition.choices)}]" if definition.choices else "any non-empty value"
        raise ConfigError(f"Configuration '{name}' must not be empty. Valid values include: {allowed}")
    if not definition.choices and rule is Rule.NONE:
        return values
    if "" in values:
        raise ConfigError(f"Configuration '{name}' values must not be empty.")
    for value in values:
        if definition.choices and value not in definition.choices:
            raise invalid(name, value, f"String must be one of: {', '.join(definition.choices)}")
    return list(dict.fromkeys(values))


def _check_throttled(name: str, values: list[str]) -> list[str]:
    if values == ["*"] or all(_REPLICA.fullmatch(value.strip()) for value in values):
        return values
    shown = f"[{', '.join(values)}]"
    form = "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
    raise invalid(
        name, shown, f"{name} must be the literal '*' or a list of replicas in the following format: {form}"
    )
