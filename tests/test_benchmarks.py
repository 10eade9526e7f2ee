"""The benchmark's plain methods give the results of the kit's fast ones. No time is asserted."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import engine_scores, first_paint, gpu, loop
from benchmarks.compressed import FORMATS, of_wav, write_sound
from benchmarks.end_to_end import Taken, by_engines, config, linked, over_bare, projected, sections, write_run
from benchmarks.extraction import CFG, store_of, torchaudio_way
from benchmarks.loading import ClipFiles, write_files
from benchmarks.loop import CPU, Step, make_tagger, seconds_in_loop
from benchmarks.measure import Row, by_turns, cpu_times, quotient, separate
from benchmarks.run import cells_of, read, write
from benchmarks.scoring import greedy_by_scikit_learn, greedy_recomputed, map_at_3_by_sorting, map_at_3_in_a_loop
from benchmarks.starting import HELP, imported, python
from benchmarks.synthetic import RATE, make_store, write_clips
from blending.greedy import greedy_weights
from blending.metric_greedy import metric_greedy_path
from configs.paths import Paths
from configs.schema import PredictConfig
from console.errors import UserError
from features.batches import Batches
from input.competition import load_competition
from metrics.map_at_3 import map_at_3
from metrics.metric import find_metric
from metrics.roc_auc import macro_roc_auc
from models.inference import predict_clips


def test_the_store_equals_the_plain_extraction(tmp_path: Path) -> None:
    files = write_clips(tmp_path / "wav", 2)
    store = store_of(files, tmp_path)
    torchaudio_way(files, tmp_path)
    for i, file in enumerate(files):
        plain = np.load(tmp_path / Path(file).with_suffix(".npy").name).T  # (n_frames, n_mels)
        ours = store.frames[store.start[i] : store.start[i] + store.length[i]]
        assert ours.shape == plain.shape == (501, CFG.n_mels)
        np.testing.assert_allclose(ours, plain, atol=1e-3 + 4e-3)  # front-end, float16 between 4 and 8
        np.testing.assert_allclose(store.mean[i], plain.mean(axis=0), atol=1e-3)
        np.testing.assert_allclose(store.mean_square[i], np.square(plain).mean(axis=0), rtol=1e-3)


def test_batches_equal_the_clip_files(tmp_path: Path) -> None:
    store = make_store(3, 500)
    write_files(store, tmp_path)
    files = ClipFiles(tmp_path, 3)
    batch = Batches(store).crop(np.array([2, 0]), 500, np.random.default_rng(0))  # 500 of 500: no choice
    assert torch.equal(batch, torch.stack([files[2], files[0]]))


def test_windows_outside_a_clip_show_silence() -> None:
    store = make_store(2, 6, n_mels=2)
    batch = Batches(store).at(np.array([1, 1, 0]), np.array([-2, 4, 1]), 4)
    clips = torch.from_numpy(store.frames.astype(np.float32)).view(2, 6, 2).transpose(1, 2)
    hush = torch.full((2, 2), store.silence)
    assert torch.equal(batch[0, 0], torch.cat([hush, clips[1][:, :2]], dim=1))
    assert torch.equal(batch[1, 0], torch.cat([clips[1][:, 4:], hush], dim=1))
    assert torch.equal(batch[2, 0], clips[0][:, 1:5])


def test_prediction_is_the_mean_over_windows_one_by_one() -> None:
    batches = Batches(make_store(3, 65))
    tagger = make_tagger("resnetish10", width=8).eval()
    found = predict_clips(tagger, batches, np.arange(3), PredictConfig(window_seconds=0.32, batch_size=4), "fp32")
    with torch.inference_mode():
        for clip in range(3):  # ceil(64 / 32) = 2 windows each, at frames 0 and 33
            probs = [tagger(batches.at(np.array([clip]), np.array([f]), 32)).softmax(dim=1)[0] for f in (0, 33)]
            np.testing.assert_allclose(found[clip], torch.stack(probs).mean(dim=0), atol=1e-5)


@pytest.mark.parametrize("plain", [map_at_3_by_sorting, map_at_3_in_a_loop])
@pytest.mark.parametrize("levels", [3, 1000])  # few levels make many ties
def test_map_at_3_by_counting_equals_the_plain_ways(plain, levels: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(levels)
    probs, truth = rng.integers(0, levels, (200, 7)) / levels, rng.integers(0, 7, 200)
    assert map_at_3(probs, truth) == pytest.approx(plain(probs, truth), abs=1e-12)


def test_greedy_weights_equal_those_of_recomputed_blends() -> None:
    rng = np.random.default_rng(0)
    stack, truth = rng.integers(0, 64, (4, 60, 5)) / 64.0, rng.integers(0, 5, 60)  # sums without rounding
    np.testing.assert_allclose(greedy_weights(stack, truth, np.ones(len(truth)), 8), greedy_recomputed(stack, truth, 8))


def test_channels_last_and_fused_adamw_train_as_the_defaults_do() -> None:
    taggers = [make_tagger("resnetish10", channels_last, width=8) for channels_last in (True, False)]
    taggers[1].load_state_dict(taggers[0].state_dict())
    steps = [Step(taggers[0], 32, 4, "fp32"), Step(taggers[1], 32, 4, "fp32", fused=False)]
    steps[1].x = steps[0].x
    for step in steps:
        step()
    gradients = [
        torch.cat([step.optimizer.state[p]["exp_avg"].flatten() for p in step.tagger.parameters()]) for step in steps
    ]  # Adam's first step itself is lr times the sign, whatever the gradient
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()
    moved = [(one - other).abs().max() for one, other in zip(*(t.parameters() for t in taggers), strict=True)]
    assert max(moved) < 2.1e-3


def test_gpu_rows_with_the_cpu_as_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpu, loop):
        monkeypatch.setattr(module, "make_tagger", lambda name: make_tagger(name, width=8))
    rows = gpu.on_device(CPU, ["resnetish10"], n_frames=32, batch=2, steps=2, rounds=1, matrix=16)
    assert [row.point for row in rows] == [4, 4] and all(row.ratio.endswith("%") for row in rows)
    monkeypatch.setattr(gpu, "whole_loop", lambda *args: (0.5, 0.45))
    row = gpu.on_device(CPU, ["resnetish10"], n_frames=32, batch=2, steps=1, rounds=1, matrix=16)[0]
    assert (row.ours, row.peer, row.ratio, row.met) == ("4/s", "4/s", "90.0%", True)


def test_the_first_paint_is_of_the_page_with_all_clips(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(first_paint.report_of(100))
    assert 0 < first_paint.seconds_to_paint(chromium, tmp_path / "page.html") < 600
    assert chromium.find_element("id", "count").text == "100 of 100 clips"


def test_a_page_that_stays_empty_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_paint, "PATIENCE", 0.01)
    blank = SimpleNamespace(get=lambda address: None, execute_script=lambda script: None)
    with pytest.raises(UserError, match="drawn no clip within"):
        first_paint.seconds_to_paint(blank, tmp_path / "page.html")


def test_without_a_browser_point_9_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    (row,) = first_paint.measure(quick=True)
    assert row.ours == "not measured: no chromium with its chromedriver: apt install chromium chromium-driver"
    assert row.met is None


def test_without_a_gpu_point_4_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [row.ours for row in gpu.measure(quick=True)] == ["not measured: no GPU"]


def test_a_product_rate_is_flop_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "per_call", lambda *args: 0.5)
    assert gpu.product_rate(CPU, 10, torch.float32) == 2 * 10**3 / 0.5


def test_the_whole_loop_runs_on_the_device_given() -> None:
    assert seconds_in_loop(make_tagger("resnetish10", width=8), 32, 2, 2, CPU, "fp32") > 0


def note_process(into: Path) -> Callable[[], None]:
    return lambda: into.open("a").write(f"{os.getpid()}\n") and None


def test_separate_work_keeps_its_process(tmp_path: Path) -> None:
    with separate(note_process, tmp_path / "seen") as work:
        work()
        work()
    first, second = (tmp_path / "seen").read_text().split()
    assert first == second != str(os.getpid())


def test_by_turns_counts_every_round_but_the_first() -> None:
    calls: list[str] = []
    ticks = iter(range(100))
    times = by_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, clock=lambda: next(ticks))
    assert calls == ["a", "b"] * 3
    assert times == {"a": [1, 1], "b": [1, 1]}
    assert quotient({"a": [2.0, 8.0, 9.0], "b": [1.0, 2.0, 1.0]}, "a", "b") == 4.0


def note(file: Path) -> None:
    """In a child: who it is and how many threads its libraries may use."""
    with file.open("a") as out:
        print(os.getpid(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads(), file=out)


def note_too(file: Path) -> None:
    note(file)


def test_cpu_time_is_taken_in_processes_of_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    times = cpu_times({"a": note, "b": note_too}, 2, tmp_path / "notes")
    assert [len(times[name]) for name in ("a", "b")] == [2, 2], "the first round does not count"
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert [line[1:] for line in notes] == [["1", "1"]] * 6
    workers = [line[0] for line in notes]
    assert workers == workers[:2] * 3 and len({*workers, str(os.getpid())}) == 3, "each its own, in turn"


def test_a_child_returns_its_result_and_its_peak_memory() -> None:
    code = """
from benchmarks.measure import in_child
for n in (1, 300):
    print(*in_child(eval, f"len(b'x' * ({n} << 20))"))
"""
    (small, little), (large, much) = (line.split() for line in python("-c", code).splitlines())
    assert (int(small), int(large)) == (1 << 20, 300 << 20)
    assert 250 < float(much) - float(little) < 350


def test_help_imports_nothing_heavy() -> None:
    assert imported(python("-c", HELP, "submit.py")) == ""


def test_results_are_a_table(tmp_path: Path) -> None:
    rows = [Row(1, "this", "1 s", "3 s", "3.0x", "at least 2x", True), Row(4, "that", "not measured: no GPU")]
    write(tmp_path / "RESULTS.md", "Here.", [cells_of(row) for row in rows])
    text = (tmp_path / "RESULTS.md").read_text()
    assert (
        "| 1 | this | 1 s | 3 s | 3.0x | at least 2x | yes |\n| 4 | that | not measured: no GPU |  |  |  |  |\n" in text
    )


def test_greedy_on_macro_roc_auc_takes_the_models_that_scikit_learn_would() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((150, 6)) < 0.1
    stack = ((rng.integers(0, 48, (4, 150, 6)) + 16 * truth) / 64).astype(np.float32)  # with ties
    path, scores = metric_greedy_path(find_metric("macro_roc_auc"), stack, truth, np.ones(150), 8)
    assert len(set(path)) > 1
    assert path == greedy_by_scikit_learn(stack, truth, 8)
    assert scores[-1] == pytest.approx(macro_roc_auc(stack[path].mean(axis=0), truth), abs=1e-12)


def test_the_rows_of_some_points_are_measured_anew_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    before = [["1", "a", "", "", "", "", ""], ["5", "b", "2", "", "", "", "yes"], ["8", "c", "", "", "", "", ""]]
    write(file, "All.\nOn a machine.", before)
    write(file, "Points 5 anew: once.", [["5", "d", "3", "", "", "", ""]], [5])
    assert read(file) == (
        ["All.\nOn a machine.", "Points 5 anew: once."],
        [before[0], ["5", "d", "3", *[""] * 4], before[2]],
    )
    write(file, "Points 5 anew: twice.", before[1:2], [5])
    assert read(file) == (["All.\nOn a machine.", "Points 5 anew: twice."], before)
    write(file, "All again.", before)
    assert read(file) == (["All again."], before)


def test_the_way_of_a_submission_is_timed_with_the_code_that_it_takes(tmp_path: Path) -> None:
    files = linked(write_clips(tmp_path / "wav", 2), tmp_path / "clips", 8)
    cfg = config("resnetish10", "fp32", "model.width=8", "predict.batch_size=4")
    runs = [write_run(tmp_path, cfg, fold, 2) for fold in range(2)]
    rows = by_engines(cfg, runs, files, tmp_path, ["torch"])
    assert [row.goal for row in rows] == ["at most +5%", "", "within 10%", ""]
    assert len(list((tmp_path / "torch" / "predictions").glob("*.npz"))) == 2, "each fold predicted"
    (row,) = sections(runs, tmp_path, 12)
    assert row.ours.endswith("sections/s and core")


def test_what_is_projected_grows_with_the_clips_alone() -> None:
    cores = torch.get_num_threads()
    whole, part = Taken(10 + 1000 * 0.4 / cores, 0), Taken(10 + 250 * 0.4 / cores, 0)
    row = projected("", whole, part, 1000, 250, folds=5)
    minutes = [(10 + clips * 0.4 / 4) / 60 for clips in (9_400, 8_400)]
    assert row.ours == "; ".join(f"{each:.1f} min" for each in minutes) and "2.0 s a fold" in row.what
    assert over_bare("", Taken(10.4, 20), Taken(2, 4), 1000, 5).ratio == "+4.0% (CPU +0.0%)"


def test_compressed_sound_is_read_whole(tmp_path: Path) -> None:
    for kind, (form, subtype) in FORMATS.items():
        file, again = write_sound(tmp_path / kind, form, subtype, 2)
        assert len(soundfile.read(file)[0]) == RATE * 5 and Path(file).samefile(again)
    row = of_wav(tmp_path, 2, 1)
    assert row.ours.count(" ms") == 3 and row.goal == "at most 1.2 ms"


def test_engines_are_compared_by_the_score_of_finished_folds(blended: Paths, tmp_path: Path) -> None:
    """In fp32 the same order of classes; a fold of other clips is refused."""
    paths = Paths(blended.input, tmp_path)
    competition = load_competition(paths.input)
    found = dict(engine_scores.of_fold(blended.run("demo_vggish", 0), competition, paths))
    assert {"as stored", "torch fp32"} <= set(found)
    assert found["torch fp32"] == pytest.approx(found["as stored"], abs=0.1)  # stored in bf16 where the CPU has it
    if "openvino fp32" in found:
        assert found["openvino fp32"] == pytest.approx(found["torch fp32"], abs=1e-6)
    few = replace(competition, train=competition.train[:5], targets=competition.targets[:5])
    with pytest.raises(UserError, match="was trained on other clips"):
        next(engine_scores.of_fold(blended.run("demo_vggish", 0), few, paths))
