"""A run's network converted by OpenVINO, in files that travel with a bundle: <run>/converted/<frames>.xml and .bin.

One file for each length of windows; any.xml for all of them where the network allows it.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from console.errors import UserError
from console.output import muted
from models.engine_openvino import Files
from models.inference import first_batches, window_frames
from models.openvino_conversion import (
    ConversionError,
    check_equal,
    compile_network,
    convert,
    import_openvino,
    read_network,
)
from models.quantised import LEAST, WINDOWS, check_near, quantise, split
from models.tagger import Tagger, load_tagger
from runs.provenance import file_sha256
from runs.run_folder import Trained

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from configs.schema import Config

FOLDER, ANY = "converted", "any"


def write_converted(run: Trained, folder: Path, sample: "pd.DataFrame | None" = None) -> None:
    """Write the network of a run for every length of its windows into the new folder `folder`, weights in float32.

    sample: clips (fname, path); then in eight bits, but for a head on embeddings. Raises ConversionError where it
    cannot be converted or answers otherwise than PyTorch, UserError without OpenVINO.
    """
    tagger = load_tagger(run.config, run.weights, run.manifest.task)
    lengths = sorted(set(frames_of_windows(run.config)), reverse=True)
    folder.mkdir(parents=True)
    if sample is not None and run.config.model.frozen is None:
        windows = _windows_of(run, sample)
        if not windows or min(len(x) for x in windows) < LEAST:
            fact = f"the sound of {len(sample)} test clips has fewer than {LEAST} windows to round a network by"
            raise ConversionError(fact)
        for x in windows:
            _write_in_eight_bits(tagger, x, folder / f"{x.shape[-1]}.xml")
        return
    if len(lengths) > 1:
        try:
            _write(tagger, lengths, folder / f"{ANY}.xml", True)
            return
        except ConversionError:  # some fix a size to that of the example
            for file in folder.iterdir():
                file.unlink()
    for n_frames in lengths:
        _write(tagger, [n_frames], folder / f"{n_frames}.xml", False)


def frames_of_windows(cfg: "Config") -> list[int]:
    """The lengths of windows that a run predicts, in frames of its store."""
    embeddings = cfg.model.frozen is not None  # one frame for each window
    rate = 1 / cfg.predict.window_seconds if embeddings else cfg.features.sample_rate / cfg.features.hop_length
    return window_frames(cfg.predict, rate)


def _write(tagger: Tagger, lengths: list[int], file: Path, any_length: bool) -> None:
    import torch

    n_mels, rng = len(tagger.mean), torch.Generator().manual_seed(0)
    import_openvino().save_model(convert(tagger, lengths[0], any_length), file, compress_to_fp16=False)
    for n_frames in lengths:
        x = tagger.mean.view(-1, 1) + tagger.std.view(-1, 1) * torch.randn(3, 1, n_mels, n_frames, generator=rng)
        check_equal(tagger, compile_network(read_network(str(file), n_mels, n_frames), "fp32"), x)


def _windows_of(run: Trained, clips: "pd.DataFrame") -> list["Tensor"]:
    """Windows of each length, as the run hears them."""
    import numpy as np

    from features.batches import Batches
    from runs.clips import open_clips

    with tempfile.TemporaryDirectory(prefix="windows-") as scratch, muted():
        batches = Batches(open_clips(run.config, clips, Path(scratch), None), padding=run.config.input.padding)
        cfg = replace(run.config.predict, batch_size=WINDOWS)
        return first_batches(batches, np.arange(len(clips)), cfg)[0]


def _write_in_eight_bits(tagger: Tagger, x: "Tensor", file: Path) -> None:
    model = convert(tagger, x.shape[-1])
    check_equal(tagger, compile_network(model, "fp32"), x[:3])
    fit, kept = split(x)
    import_openvino().save_model(quantise(model, fit), file, compress_to_fp16=False)
    check_near(tagger, compile_network(read_network(str(file), *x.shape[-2:]), "fp32"), kept)


def find_converted(bundle: Path, sha256: Mapping[str, str], remedy: str) -> dict[Path, Files]:
    """The converted networks of each run folder in a bundle. sha256: by its manifest, of files relative to it.

    Raises UserError where one is missing or has other bytes; files that are not listed are not used.
    """
    found: dict[Path, dict[int | None, str]] = {}
    for name, digest in sha256.items():
        file = bundle / name
        if file.parent.name != FOLDER:
            continue
        if not file.is_file() or file_sha256(file) != digest:
            raise UserError(f"{file}: {'changed' if file.is_file() else 'missing'} since it was bundled: {remedy}")
        if file.suffix == ".xml":
            found.setdefault(file.parents[1], {})[None if file.stem == ANY else int(file.stem)] = str(file)
    return dict(found)
