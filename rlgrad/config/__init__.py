"""The settings of a run as one record, and the config.yaml that holds them."""

from rlgrad.config.names import agent_class, agent_name, update_class
from rlgrad.config.reading import from_mapping, shipped
from rlgrad.config.settings_record import Config
from rlgrad.config.settings_record import Memory as Memory
from rlgrad.config.settings_record import VectorizationMode as VectorizationMode
from rlgrad.config.written import NOTES, to_yaml

__all__ = [
    "NOTES",
    "Config",
    "agent_class",
    "agent_name",
    "from_mapping",
    "shipped",
    "to_yaml",
    "update_class",
]
