"""What the verbs that score, compare and picture predictions share."""

from __future__ import annotations

from pathlib import Path

from pixelnet_tf.cli.options import print_and_leave, read_config
from pixelnet_tf.config import Config, config_from_json
from pixelnet_tf.evaluation.matching import PREDICTION_FILE, read_prediction_file


def read_scoring_config(
    predictions_dir: Path, config_path: str | None, overrides: tuple[str, ...] = (),
    print_config: bool = False, run_dir: Path | None = None,
) -> tuple[Config, bool]:
    """Find the configuration that labels and regions come from, and apply overrides.

    It is `--config`, else what `prediction.json` holds, else `config.yaml` beside the
    predictions, else that of the run, else the defaults (BraTS).

    Returns:
        The configuration, and whether anything names the study's labels; without, they are BraTS'.
    """
    named = any(override.startswith("study.labels") for override in overrides)
    beside = Path(predictions_dir) / "config.yaml"
    if config_path is None:
        stored = read_prediction_file(predictions_dir).get("config")
        if stored is not None:
            config = config_from_json(stored, overrides=overrides,
                                      source=str(Path(predictions_dir) / PREDICTION_FILE))
            print_and_leave(config, print_config)
            return config, True
        for path in (beside, *([Path(run_dir) / "config.yaml"] if run_dir else [])):
            if path.is_file():
                config_path = str(path)
                break
    return read_config(config_path, overrides, print_config), named or config_path is not None
