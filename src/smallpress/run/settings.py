"""Settings: frozen, and unable to hold an unknown key; from defaults, then a TOML recipe, then `a.b=c` overrides."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from smallpress.run.errors import UserError, disk_error


class Settings(BaseModel):
    """Base of every settings type. Variants are types, not flags; NaN and infinity are not numbers here.

    `other_names`: what others call a setting -> what it is called here; either may be given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
    other_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _our_names(cls, tree: Any) -> Any:
        return {cls.other_names.get(key, key): value for key, value in tree.items()} if isinstance(tree, dict) else tree


AnySettings = TypeVar("AnySettings", bound=BaseModel)


def load_settings(cls: type[AnySettings], toml_path: str | Path | None, overrides: Sequence[str] = ()) -> AnySettings:
    """`cls` from its defaults, then the recipe at `toml_path`, then overrides such as "rl.group_size=8".

    An override's value is read as TOML (`3`, `true`, `[1, 2]`, `"x"`), and as a plain string where it is not.
    Raises UserError, naming the key and the nearest known one, for anything that does not fit.
    """
    tree: dict[str, Any] = {} if toml_path is None else read_toml(Path(toml_path))
    for override in overrides:
        _apply(tree, override)
    return settings_from(cls, tree, "settings" if toml_path is None else str(toml_path))


def settings_from(cls: type[AnySettings], tree: Mapping[str, Any], source: str) -> AnySettings:
    """`cls` from a nested mapping, as run.json holds it; `source` is named in the error."""
    try:
        return cls.model_validate(dict(tree))
    except ValidationError as error:
        raise _explain(cls, error, source) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy that names the known word nearest to `word`, or all of them when none is near.

    >>> nearest("pul", ["pull", "ls"])
    'did you mean pull?'
    >>> nearest("xyz", ["pull", "ls"])
    'known: ls, pull'
    """
    words = sorted(set(known))
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(words)}"


def read_toml(path: Path) -> dict[str, Any]:
    """Raises UserError where the file cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8", "save the recipe as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{path}: {error}", "mend the recipe's TOML") from error


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = (part.strip() for part in key.split("."))
    if not equals or not all([*parents, last]):
        raise UserError(f"override {override!r} is not of the form key.sub=value", "for example rl.group_size=8")
    branch = tree
    for depth, parent in enumerate(parents):
        branch = branch.setdefault(parent, {})
        if not isinstance(branch, dict):
            above = ".".join(parents[: depth + 1])
            raise UserError(f"override {override!r}: {above} is {branch!r}, not a table", "override it as a whole")
    branch[last] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return parsed["value"] if set(parsed) == {"value"} else text


def _explain(cls: type[BaseModel], error: ValidationError, source: str) -> UserError:
    # Unknown keys come first: a misspelt key is usually also the cause of the missing one.
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault, more = faults[0], len(faults) - 1
    key = ".".join(str(part) for part in fault["loc"]) or "the whole"
    also = f" (and {more} more)" if more else ""
    if fault["type"] == "extra_forbidden":
        return UserError(f"{source}: unknown setting {key}{also}", nearest(key, _dotted_keys(cls)))
    if fault["type"] == "missing":
        return UserError(f"{source}: {key} is missing{also}", f"set it, for example --set {key}=...")
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return UserError(f"{source}: {key} = {shown}{also}", fault["msg"][:1].lower() + fault["msg"][1:])


def _dotted_keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in cls.model_fields.items():
        inner = [key for model in _models_in(field.annotation) for key in _dotted_keys(model, f"{prefix}{name}.")]
        keys += inner or [prefix + name]
    return keys


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
