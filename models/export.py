"""Write a run's network as a file for ONNX Runtime or OpenVINO: log-mel -> logits, any number of windows.

python -m models.export work/runs/resnetish18/fold0 --format onnx

The front end stays outside; about.json says what it must be: the input is (windows, 1, n_mels, n_frames) of log-mel as
features.log_mel makes it, not normalised. A probability is the logits' softmax, or their sigmoid where a clip may have
several labels; a clip's is the mean over its windows.
"""

import copy
import json
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.files import new_folder
from console.command_line import run_command
from console.errors import UserError
from console.options import FOLDER, command_parser, share
from console.output import say, warn

if TYPE_CHECKING:
    from models.tagger import Tagger
    from runs.run_folder import Trained

LONGER = (1.5, 0.5)  # of the window's frames: the lengths that an exported network is also compared at


def main() -> None:
    parser = command_parser(__doc__, prog="python -m models.export")
    parser.add_argument("run", **FOLDER, help="a finished fold: work/runs/NAME/fold0")
    parser.add_argument("--format", choices=["onnx", "openvino"], required=True)
    parser.add_argument("--output", **FOLDER, help="a new folder (work/exports/NAME-fold0-FORMAT)")
    share(parser, force="replace what lies there")
    args = parser.parse_args()
    name = f"{args.run.parent.name}-{args.run.name}-{args.format}"
    output = args.output or args.run.absolute().parents[2] / "exports" / name
    export(args.run, args.format, output, args.force)


def export(folder: Path, form: str, output: Path, replace: bool = False) -> None:
    """Write the folder `output` with the network and about.json, whole or not at all.

    Raises UserError where it exists, unless it is to be replaced and was made by this command, and where the network
    cannot be exported.
    """
    from models.openvino_conversion import ConversionError
    from models.tagger import load_tagger
    from runs.network_code import network_code
    from runs.run_folder import read_trained

    check_replaceable(output, replace)
    if not folder.name.startswith("fold"):
        raise UserError(f"{folder}: no folder of a fold: name one, such as {folder / 'fold0'}")
    run = read_trained(folder)
    network_code(run)  # refuses code that changed
    if run.config.model.frozen is not None:
        raise UserError(f"{folder}: a head on embeddings, not a network of log-mel: export another run")
    tagger = load_tagger(run.config, run.weights, run.manifest.task)
    cfg = run.config
    n_frames = round(cfg.predict.window_seconds * cfg.features.sample_rate / cfg.features.hop_length)
    with new_folder(output, lambda: check_replaceable(output, replace)) as partial:
        try:
            any_length = write_network(tagger, n_frames, form, partial)
        except ConversionError as error:
            remedy = ": try --format openvino" if form == "onnx" else ""
            raise UserError(f"{folder}: {cfg.model.name}: {error}{remedy}") from None
        about = describe(run, form) | {"n_frames": "any" if any_length else n_frames}
        (partial / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if not any_length:
        warn(f"{cfg.model.name}: converted for windows of {n_frames} frames alone")
    say(f"{cfg.model.name} -> {output}")


def check_replaceable(output: Path, replace: bool) -> None:
    """Raises UserError where something lies there that must not go."""
    if output.exists() and not (replace and (output / "about.json").exists()):
        remedy = "it is no exported network: choose another --output" if replace else "--force replaces it"
        raise UserError(f"{output}: exists: {remedy}")


def write_network(tagger: "Tagger", n_frames: int, form: str, folder: Path) -> bool:
    """Write network.onnx, or network.xml and network.bin, for windows of any length, else of n_frames; True: any.

    Raises ConversionError where neither answers as PyTorch does.
    """
    from models.openvino_conversion import ConversionError

    write_one = write_onnx if form == "onnx" else write_openvino
    try:
        write_one(tagger, n_frames, True, folder)
        return True
    except ConversionError:
        write_one(tagger, n_frames, False, folder)
        return False


def write_openvino(tagger: "Tagger", n_frames: int, any_length: bool, folder: Path) -> None:
    """network.xml and network.bin, weights in float32. Raises ConversionError."""
    from models.openvino_conversion import convert, import_openvino

    model = convert(tagger, n_frames, any_length)
    import_openvino().save_model(model, folder / "network.xml", compress_to_fp16=False)
    check_answers(tagger, folder / "network.xml", n_frames, any_length)


def write_onnx(tagger: "Tagger", n_frames: int, any_length: bool, folder: Path) -> None:
    """network.onnx with its weights. Raises ConversionError, UserError without the package."""
    import torch
    from torch.export import Dim

    from models.openvino_conversion import one_line

    example = torch.zeros(2, 1, len(tagger.mean), n_frames)
    sizes = {0: Dim.DYNAMIC} | ({3: Dim.DYNAMIC} if any_length else {})
    with one_line("ONNX", "export this network"), redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            with_onnx_operators(tagger).eval(),
            (example,),
            input_names=["log_mel"],
            output_names=["logits"],
            dynamic_shapes=(sizes,),
            dynamo=True,
            verbose=False,
        )
        program.save(folder / "network.onnx", external_data=False)  # type: ignore[union-attr]
    check_answers(tagger, folder / "network.onnx", n_frames, any_length)


def with_onnx_operators(tagger: "Tagger") -> "Tagger":
    """A copy whose poolings to a grid are made of what ONNX has: it lacks their maximum, and has their mean for the
    size of the example alone."""
    from torch import nn

    from models.pooling import GridPool

    new = copy.deepcopy(tagger)
    for module in list(new.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveMaxPool2d | nn.AdaptiveAvgPool2d):
                sizes = child.output_size if isinstance(child.output_size, tuple) else (child.output_size,) * 2
                mean = isinstance(child, nn.AdaptiveAvgPool2d)
                if isinstance(sizes[0], int) and isinstance(sizes[1], int) and not (mean and sizes == (1, 1)):
                    setattr(module, name, GridPool((sizes[0], sizes[1]), mean))
    return new


def check_answers(tagger: "Tagger", file: Path, n_frames: int, any_length: bool) -> None:
    """Raises ConversionError where OpenVINO, which reads both formats, answers otherwise than PyTorch by the file."""
    import torch

    from models.openvino_conversion import check_equal, compile_network, import_openvino, one_line

    with one_line("OpenVINO", "read this network"):
        compiled = compile_network(import_openvino().Core().read_model(file), "fp32")
    rng = torch.Generator().manual_seed(0)
    shape = tagger.mean.view(-1, 1), tagger.std.view(-1, 1)
    for factor in (1.0, *LONGER) if any_length else (1.0,):
        x = torch.randn(3, 1, len(tagger.mean), round(factor * n_frames), generator=rng)
        check_equal(tagger, compiled, shape[0] + shape[1] * x)


def describe(run: "Trained", form: str) -> dict[str, Any]:
    """What somebody needs to use the network elsewhere."""
    from configs.schema import to_dict

    cfg = to_dict(run.config)
    return {
        "format": form,
        "run": run.id,
        "experiment": run.manifest.experiment,
        "fold": run.manifest.fold,
        "task": run.manifest.task,
        "classes": run.classes,
        "features": cfg["features"],
        "predict": cfg["predict"],
    }


if __name__ == "__main__":
    run_command(main)
