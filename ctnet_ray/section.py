"""What all parts of the configuration share: values are converted, and what can't be is one line."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from ctnet_ray.errors import CtnetError

Config = TypeVar("Config")
_LIMITED = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")


@dataclass(frozen=True)
class Section:
    """A part of the configuration. Values are converted to the types of their fields.

    Raises:
        CtnetError: A value can't be; the message names the first one, as training.batch_size.
    """

    section: ClassVar[str] = ""
    """Dotted name of the section, with the dot behind it."""
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", allow_inf_nan=False, validate_default=True
    )

    def __init_subclass__(cls, section: str) -> None:
        cls.section = f"{section}." if section else ""

    @model_validator(mode="wrap")
    @classmethod
    def _named(cls, values: Any, make: ModelWrapValidatorHandler["Section"]) -> "Section":
        try:
            return make(values)
        except ValidationError as error:
            raise CtnetError(_reason(cls, error.errors()[0])) from error


def override(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a section with some values changed.

    Args:
        config: The section: a whole configuration, mostly.
        settings: Values by dotted name, as `training.batch_size`.

    Raises:
        CtnetError: A name is not known, or a value can't be.
    """
    for name, value in settings.items():
        config = _with(config, name.split("."), value, name)
    return config


def _with(config: Any, path: list[str], value: Any, name: str) -> Any:
    known = [entry.name for entry in fields(config)] if isinstance(config, Section) else []
    if path[0] not in known:
        raise CtnetError(f"unknown setting {name!r}; {path[0]!r} is none of {', '.join(known)}")
    if path[1:]:
        value = _with(getattr(config, path[0]), path[1:], value, name)
    return replace(config, **{path[0]: value})


def _limits(bounds: tuple[Any, ...]) -> str:
    match bounds:
        case (Gt(gt=low),):
            return f"above {low}"
        case (Ge(ge=low),):
            return f"at least {low}"
        case (Ge(ge=low), Le(le=high)):
            return f"between {low} and {high}"
        case (Ge(ge=low), Lt(lt=high)):
            return f"at least {low} and below {high}"
    raise AssertionError(bounds)


def _reason(section: type[Section], error: ErrorDetails) -> str:
    field_name, *indices = error["loc"]
    name = f"{section.section}{field_name}{''.join(f'[{index}]' for index in indices)}"
    value = error["input"]
    bounds = getattr(get_type_hints(section, include_extras=True).get(str(field_name)), "__metadata__", ())
    if error["type"] in _LIMITED:
        return f"{name} must be {_limits(bounds)}, not {value}"
    if error["type"] == "missing":
        return f"setting {name}: missing"
    if error["type"] == "unexpected_keyword_argument":
        known = ", ".join(entry.name for entry in fields(section))
        return f"unknown setting {name!r}; {field_name!r} is none of {known}"
    return f"setting {name}: {value!r}: {error['msg']}"
