"""The schemas of all components, as a place that Hydra reads configs from.

`/schema/dataset/spiral` is the dataclass derived from the signature of that data set. It is made when
a config asks for it: making all of them would take a tenth of a second at every start. Listings of
the groups (`--info`, help, shell completion) do not show these, since nobody types them.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from node_runner.registry import Registry


class SchemaSource(ConfigSource):
    """Serves `schema/GROUP/NAME`."""

    registries: dict[str, Registry[Any]] = {}  # noqa: RUF012 - Hydra makes the instances, so the class holds them
    """By config group; set before Hydra starts."""

    @staticmethod
    def scheme() -> str:
        """The word before `://` in a search path."""
        return "components"

    def load_config(self, config_path: str) -> ConfigResult:
        """The schema of one component."""
        if not self.is_config(config_path):
            raise ConfigLoadError(f"no component has the schema '{config_path}'")
        _, group, name = config_path.removesuffix(".yaml").split("/")
        schema = OmegaConf.structured(self.registries[group].schema(name))
        return ConfigResult(self.provider, f"{self.scheme()}://", schema, {"package": None})

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether this is `schema/GROUP`."""
        parts = config_path.strip("/").split("/")
        return len(parts) == 2 and parts[0] == "schema" and parts[1] in self.registries

    def is_config(self, config_path: str) -> bool:
        """Whether this is `schema/GROUP/NAME` of a component."""
        parts = config_path.strip("/").removesuffix(".yaml").split("/")
        if len(parts) != 3 or parts[0] != "schema" or parts[1] not in self.registries:
            return False
        return parts[2] in self.registries[parts[1]].signatures

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The components of `schema/GROUP`, for an error's choices; nothing elsewhere."""
        if not self.is_group(config_path) or results_filter is ObjectType.GROUP:
            return []
        return self.registries[config_path.strip("/").split("/")[1]].names()


class SchemaPath(SearchPathPlugin):
    """Puts the schemas on the search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append them: they have names of their own, so the order does not matter."""
        search_path.append("node_runner", f"{SchemaSource.scheme()}://")
