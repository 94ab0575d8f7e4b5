"""One line for each mistake that a user can make on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from node_runner.errors import NodeRunnerError, did_you_mean


def explain(error: Exception, commands: Sequence[str] = ()) -> str | None:
    """What went wrong and how to mend it, in one line; None for a bug of ours."""
    if isinstance(error, NodeRunnerError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return _not_an_override(error, commands)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _bad_value(cause)
    if isinstance(error, ConfigCompositionException) and "Ambiguous value" in str(error):
        return f"{_first_line(error)} (add -m to run one job for each value)"
    if isinstance(error, HydraException):
        return _first_line(error)
    if isinstance(error, OSError):
        return f"cannot write the run's folder: {error}"
    return None


def _missing_option(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
    if not group:
        return _first_line(error)
    return f"{group}={name}: no such option; {did_you_mean(name, error.options or [])}"


def _not_an_override(error: OverrideParseException, commands: Sequence[str]) -> str:
    if error.override and "=" not in error.override and not error.override.startswith(("~", "+")):
        return f"'{error.override}' is neither a command nor an override (key=value); {did_you_mean(error.override, commands)}"
    reason = str(error).splitlines()[0].removeprefix("Error parsing override").strip()
    return f"{error.override}: not a valid override ({reason}); quote values that hold = , [ or {{"


def _bad_value(cause: OmegaConfBaseException) -> str:
    key = cause.full_key or ""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return f"{key}: no such setting; {_nearest_key(cause, key)}"
    if isinstance(cause, ValidationError):
        return f"{key}: {_first_line(cause)}"
    return f"{key}: {_first_line(cause)}" if key else _first_line(cause)


def _nearest_key(cause: OmegaConfBaseException, key: str) -> str:
    parent, _, name = key.rpartition(".")
    node = cause.parent_node
    root = node._get_root() if node is not None else None
    place = OmegaConf.select(root, parent) if parent and root is not None else root
    known = [str(option) for option in place] if place is not None else []
    prefix = f"{parent}." if parent else ""
    return did_you_mean(key, [prefix + option for option in known if option != "hydra"])


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
