"""What the verbs that score, compare and picture predictions share."""

from __future__ import annotations

from pathlib import Path

from pixelnet_tf.cli.options import print_and_leave, read_config
from pixelnet_tf.config import Config, config_from_json
from pixelnet_tf.errors import ModelError
from pixelnet_tf.evaluation.matching import PREDICTION_FILE, read_prediction_file
from pixelnet_tf.io.files import file_digest


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


def check_predicted_by(run_dir: Path, predictions_dir: Path) -> None:
    """Raise `ModelError` where predictions are known to be of another model than a run's."""
    networks = read_prediction_file(predictions_dir).get("networks", [])
    files = {network.get("file") for network in networks}
    model = run_dir / "model.keras"
    if files and None not in files and model.is_file() and file_digest(model) not in files:
        raise ModelError(f"{predictions_dir}: was predicted by {networks[0]['model']}, whose "
                         f"model.keras is not that of {run_dir}; give its own run, or predict "
                         "again")
