"""A model from Caffe as a run: the configuration that train, predict and export go on from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pixelnet_tf.config import (
    Config,
    Precision,
    Prior,
    config_from_dict,
    config_to_dict,
    config_to_yaml,
)
from pixelnet_tf.errors import RunError
from pixelnet_tf.io.files import begin_folder, write_text
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder

#: Of a model whose study nobody named.
_NAME = "pixelnet"


def imported_config(model: PixelNet, new_layers: Collection[str], caffemodel: Path, out: Path,
                    given: Config | None = None, *, training: dict[str, Any] | None = None,
                    overrides: Sequence[str] = ()) -> Config | None:
    """Configuration of an imported model; None for a single score, which makes no segmentation.

    Without `given`, the study has modalities channel1, channel2, ... and classes background,
    class1, ..., its scores are taken as they are and every pixel is classified. Class frequencies
    are unknown, so the prior is `sampled`. A training starts from the imported model; from the
    caffemodel itself where the head is new, since its kernels are then adapted to normalised
    images.

    Args:
        model: the network with the imported weights.
        new_layers: names of its layers that keep random start weights.
        caffemodel, out: where they come from and go to.
        given: study, prepare and the rest; its `model` section is replaced by the model's.
        training: section `training`, as `training_section` reads it off a solver.
        overrides: strings of the form `section.key=value`.

    Raises:
        ConfigError: a value outside the allowed set. ModelError: modalities or labels are not as
            many as the model's channels and classes.
    """
    if model.classes < 2:
        return None
    tree = config_to_dict(given) if given is not None else _plain_study(model)
    tree["model"] = config_to_dict(model.config)
    section = tree.setdefault("training", {})
    solver = {**section.get("solver", {}), **(training or {}).get("solver", {})}
    new_head = model.architecture.head_names[0] in new_layers
    section |= {**(training or {}), "solver": solver,
                "initial_weights": str(caffemodel if new_head
                                       else RunFolder(str(out)).file("model.keras"))}
    tree.setdefault("prediction", {})["prior"] = Prior.SAMPLED.value
    if tree["prediction"].get("precision", Precision.AUTO.value) == Precision.AUTO.value:
        # As Caffe computes.
        tree["prediction"]["precision"] = Precision.FLOAT32.value
    config = config_from_dict(tree, source="the imported model", overrides=overrides)
    model.check_study(config.study)
    return config


def write_imported(out: Path, model: PixelNet, config: Config | None) -> list[str]:
    """Write a run folder, or a .keras file with its configuration beside; returns the files.

    Raises:
        RunError: the folder holds a training.
    """
    run = RunFolder(str(out))
    if Path(run.file("checkpoints")).exists():
        raise RunError("holds a training", file=out, hint="give a new --out")
    begin_folder(out.parent if run.path.endswith(".keras") else out)
    run.save_model(model)
    if config is None:
        return [run.file("model.keras")]
    write_text(run.file("config.yaml"), config_to_yaml(config))
    return [run.file("model.keras"), run.file("config.yaml")]


def _plain_study(model: PixelNet) -> dict[str, Any]:
    lesions = {value: f"class{value}" for value in range(1, model.classes)}
    return {
        "study": {"name": _NAME,
                  "modalities": [f"channel{i}" for i in range(1, model.channels + 1)],
                  "labels": {0: "background", **lesions},
                  "regions": {name: [value] for value, name in lesions.items()},
                  "skull_stripped": False},
        "prediction": {"brain_only": "no"},
    }
