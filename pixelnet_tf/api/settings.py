"""Configurations in the forms that people hold them in."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pixelnet_tf.config import Config, config_from_dict, config_to_dict, load_config


def as_config(config: Config | str | os.PathLike[str] | None, overrides: Sequence[str] = ()
              ) -> Config:
    """A configuration from an object, a YAML file or a built-in name, with overrides on top.

    None stands for the defaults, which are BraTS'.
    """
    if isinstance(config, Config):
        return config_from_dict(config_to_dict(config), overrides=overrides)
    return load_config(None if config is None else os.fspath(config), overrides)
