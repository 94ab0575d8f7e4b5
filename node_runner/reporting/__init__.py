"""Reporting: what a run leaves behind, and what a person sees of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node_runner.registry import Registry


if TYPE_CHECKING:
    from node_runner.reporting.logger import Logger

LOGGERS: Registry[Logger] = Registry("logger", "node_runner.reporting.loggers", "LOGGERS")
