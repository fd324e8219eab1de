"""File and environment become one frozen Settings, or everything wrong with them at once.

Knows neither the command line nor `os.environ`: the environment comes in as a mapping.
"""

from etl.settings.checks import BODY_TAG
from etl.settings.ids import parse_ids
from etl.settings.keys import Key, known_keys, section_models
from etl.settings.load import load_settings, settings_file
from etl.settings.model import Settings
from etl.settings.sources import API_KEY_VARIABLE, CONFIG_NAME, CONFIG_VARIABLE

__all__ = [
    "API_KEY_VARIABLE",
    "BODY_TAG",
    "CONFIG_NAME",
    "CONFIG_VARIABLE",
    "Key",
    "Settings",
    "known_keys",
    "load_settings",
    "parse_ids",
    "section_models",
    "settings_file",
]
