"""One network on every runtime: the same answers, numbers that hold together, refusals before anything is measured."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from convarium import describe, evaluate, export, load_run
from convarium.cli import main
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.evaluation.machine import INT8_PRODUCTS
from convarium.runs import save_run
from convarium.speed import variants
from convarium.speed.benchmark import benchmark

QUICK = dict(rounds=3, seconds=0.0, batch=4, threads=1)


@pytest.fixture(scope="module")
def measured(run, images):
    pytest.importorskip("nncf")
    return benchmark([str(run)], runtimes="torch,onnxruntime,openvino", int8=True, data=str(images), **QUICK)


@pytest.mark.long
def test_every_runtime_has_a_row_in_each_of_its_forms(measured, run):
    forms = [(row.runtime, row.form) for row in measured.rows]
    assert forms == [
        *(("torch", "float32"), ("onnxruntime", "float32"), ("onnxruntime", "int8")),
        *(("openvino", "float32"), ("openvino", "int8")),
    ]
    assert {row.network for row in measured.rows} == {str(run)} and measured.batch == 4 and measured.rounds == 3
    assert measured.rows[0].ratio == 1.0


@pytest.mark.long
def test_the_numbers_hold_together(measured):
    for row in measured.rows:
        assert 0 < row.p50_ms <= row.p99_ms
        assert row.percent_of_limit > 0 and row.macs == measured.rows[0].macs > 0
        assert row.mib > 0 and (row.memory_mib is None or row.memory_mib > row.mib)
    floats, int8 = ([row for row in measured.rows[1:] if row.form == form] for form in ("float32", "int8"))
    assert all(few.mib < many.mib for few, many in zip(int8, floats, strict=True))
    assert measured.limits["float32"].side >= 512 and measured.limits["int8"].gmacs_per_second > 0


@pytest.mark.long
def test_float_errs_as_evaluate_says_on_every_runtime(measured, run, images):
    told = evaluate(run, data=str(images)).top1_error_percent
    for row in measured.rows:
        low, high = row.interval_percent
        assert low <= row.error_percent <= high
        if row.form == "float32":
            assert row.error_percent == pytest.approx(told)


@pytest.mark.long
def test_the_table_shows_every_row(run, capsys):
    options = ["--runtimes", "torch,onnxruntime", "--rounds", "1", "--seconds", "0", "--batch", "2"]
    assert main(["benchmark", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert "the machine's limit, a matrix product:" in said and "GMAC/s in int8" in said and "2 at once" in said
    assert [line.split()[1:3] for line in said.splitlines() if line.startswith(str(run))] == [
        ["torch", "float32"], ["onnxruntime", "float32"],
    ]  # fmt: skip
    assert main(["benchmark", str(run), *options, "--json"]) == 0
    assert {row["runtime"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"torch", "onnxruntime"}


@pytest.mark.long
def test_compiled_it_answers_the_same(run):
    if not variants._compiler():
        pytest.skip("there is no C++ compiler")
    made = {runtime: answers_of(run, runtime) for runtime in ("torch", "compile")}
    np.testing.assert_allclose(made["compile"], made["torch"], atol=1e-5)


def answers_of(run, runtime):
    folder = run.parent / f"of-{runtime}"
    found = list(variants.find_variants(str(run), [runtime], int8=False, image_size=None, dataset=None, folder=folder))
    shutil.rmtree(folder)
    assert [each.runtime for each in found] == [runtime]
    return found[0].logits(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))


@pytest.mark.long
def test_a_catalogue_name_needs_no_run_and_has_no_error(images):
    measured = benchmark(["lenet5_modern"], runtimes="onnxruntime", int8=True, **QUICK)
    assert [(row.form, row.error_percent) for row in measured.rows] == [("float32", None), ("int8", None)]
    assert measured.rows[0].macs == describe("lenet5_modern").macs


@pytest.mark.long
def test_an_exported_file_is_measured_as_it_is(run, tmp_path):
    file = Path(export(run, output=tmp_path / "model.onnx").path)
    measured = benchmark([str(file)], runtimes="all", **QUICK)
    assert {(row.runtime, row.form, row.percent_of_limit) for row in measured.rows} == {
        ("onnxruntime", "as exported", None),
        ("openvino", "as exported", None),
    }
    assert measured.rows[0].mib == file.stat().st_size / 2**20
    with pytest.raises(UsageError, match=r"opens in onnxruntime, openvino: add that to --runtimes"):
        benchmark([str(file)], runtimes="torch", **QUICK)
    with pytest.raises(UsageError, match=r"the image size of .* is fixed"):
        benchmark([str(file)], runtimes="all", image_size=32, **QUICK)


@pytest.mark.long
def test_a_batch_that_memory_does_not_hold_is_one_line():
    with pytest.raises(ConvariumError, match="the memory does not hold a batch of 100000000 images: give a smaller"):
        benchmark(["lenet5"], runtimes="torch", rounds=1, batch=10**8)


def test_refusals(run, images, tmp_path):
    for options, said in (
        (dict(runtimes="tensorrt"), "--runtimes must be one of torch, compile, onnxruntime, openvino; got 'tensorrt'"),
        (dict(runtimes="torch", int8=True), "--int8 is of onnxruntime and openvino; the runtimes are torch"),
        (dict(runtimes="torch", batch=0), "--batch must be 1 or more; got 0"),
    ):
        with pytest.raises(UsageError, match=said.replace("(", r"\(")):
            benchmark([str(run)], **options)
    loaded, other = load_run(run), tmp_path / "other"
    other.mkdir()
    save_run(other, loaded.model, loaded.preprocessing, ["x", "y", "z"], data=loaded.own["data"])
    with pytest.raises(DataError, match="class"):
        benchmark([str(other)], runtimes="torch", data=str(images), **QUICK)


def test_without_a_compiler_compile_is_left_out_or_refused(monkeypatch):
    monkeypatch.setattr(variants, "_compiler", lambda: None)
    assert "compile" not in variants.choose_runtimes("all", int8=False)
    with pytest.raises(UsageError, match=r"torch.compile needs a C\+\+ compiler"):
        variants.choose_runtimes("compile", int8=False)


@pytest.mark.parametrize("make", INT8_PRODUCTS)
def test_every_product_of_int8_can_be_worked_on_a_processor_alone(make):
    product = make(64, torch.device("cpu"))
    assert product is None or product.side == 64
    if product:
        product.work()
    assert make(64, torch.device("cuda")) is None
