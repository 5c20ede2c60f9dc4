"""Measuring in turns by a clock that the test winds; rates and percentages by hand; the counts against torch's."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import count

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from convarium import create_model, describe
from convarium.cli import main
from convarium.errors import ConvariumError, UsageError
from convarium.evaluation.latency import in_turns, on_threads, one_by_one
from convarium.evaluation.machine import SIDES, Product, quickest_product
from convarium.speed.benchmark import benchmark
from convarium.speed.modes import (
    FORWARD,
    TRAINING,
    Spread,
    Subject,
    measure,
    spread,
    summarise,
)


class Clock:
    """Time that passes only when work is done; ``log`` says which work."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def work(self, name, *seconds):
        """Work that takes the given times, the last of them again and again."""
        turns = count()

        def run():
            self.log.append(name)
            self.now += seconds[min(next(turns), len(seconds) - 1)]

        return run


def in_order(clock, works, **options):
    return in_turns(works, **{"rounds": 3, "seconds": 1e9, "shortest_s": 0.0, **options}, clock=clock)


def test_single_calls_are_counted_once_their_turn_has_settled():
    clock = Clock()
    works = {"quick": clock.work("q", 0.004), "slow": clock.work("s", 0.05)}
    times = one_by_one(works, rounds=3, seconds=1e9, clock=clock)
    assert times["slow"] == pytest.approx([0.05] * 3)  # each is a turn by itself
    # 8 calls fill 30 ms; those that begin at 0, 4 and 8 ms do not count.
    assert times["quick"] == pytest.approx([0.004] * 15)
    assert "".join(clock.log) == 2 * 8 * "q" + 2 * "s" + 3 * (8 * "q" + "s")


def test_what_troubles_the_first_calls_of_a_turn_is_not_seen():
    clock, spinning = Clock(), [0.0]

    def troubled():
        clock.now += 0.004 if clock.now < spinning[0] else 0.002

    def other():
        clock.now += 0.04
        spinning[0] = clock.now + 0.009  # its threads wait for more work as long

    times = one_by_one({"troubled": troubled, "other": other}, rounds=4, seconds=1e9, clock=clock)
    assert times["troubled"] == pytest.approx([0.002] * len(times["troubled"])) and len(times["troubled"]) >= 4


def test_every_round_measures_each_once_in_turn():
    clock = Clock()
    times = in_order(clock, {name: clock.work(name, 1.0) for name in "abc"})
    assert "".join(clock.log) == "aabbcc" + 3 * "abc"  # each is warmed up first
    assert times == {name: [1.0] * 3 for name in "abc"}


def test_the_warm_up_is_not_counted():
    clock = Clock()
    assert in_order(clock, {"a": clock.work("a", 50.0, 9.0, 1.0, 2.0, 3.0)}) == {"a": [1.0, 2.0, 3.0]}


def test_quick_work_is_repeated_until_it_is_above_the_clocks_grain():
    clock = Clock()
    times = in_order(clock, {"quick": clock.work("q", 0.25), "slow": clock.work("s", 8.0)}, shortest_s=1.0)
    assert "".join(clock.log) == "qqss" + 3 * "qqqqs"
    assert times == {"quick": [0.25] * 3, "slow": [8.0] * 3}


@pytest.mark.parametrize(("rounds", "seconds", "made"), [(5, 1e9, 5), (100, 0, 3), (2, 0, 2), (100, 10.5, 9)])
def test_rounds_end_by_number_or_by_time(rounds, seconds, made):
    clock = Clock()
    assert len(in_order(clock, {"a": clock.work("a", 1.0)}, rounds=rounds, seconds=seconds)["a"]) == made


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), on_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before


def test_a_spread_is_that_of_eight_rounds_in_ten():
    assert spread([float(v) for v in range(11)]) == Spread(5.0, 1.0, 9.0)
    assert spread([2.5]) == Spread(2.5, 2.5, 2.5)


@pytest.fixture(scope="module")
def lenet():
    return Subject("lenet5_modern", create_model("lenet5_modern"), describe("lenet5_modern"))


def test_rates_by_hand(lenet):
    """Ten images of 416,520 MACs; the third round was disturbed, and everything in it alike."""
    row = summarise(lenet, FORWARD, 10, [0.002, 0.002, 0.02], first=[0.001, 0.001, 0.01], limits=[50.0, 50.0, 5.0])
    assert row.latency_ms.median == pytest.approx(2.0) and row.images_per_second == pytest.approx(5000)
    assert row.gmacs_per_second == pytest.approx(10 * 416_520 / 1e9 / 0.002)
    assert row.percent_of_limit == pytest.approx(100 * 10 * 416_520 / 1e9 / 0.002 / 50)
    assert row.ratio == Spread(*[pytest.approx(2.0)] * 3)


@pytest.mark.parametrize(
    "name", ["lenet5_modern", "resnet20_cifar", "se_resnet20_cifar", "nin_cifar", "preact_resnet110_cifar"]
)
def test_a_backward_pass_costs_what_torch_counts(name):
    """Two more forwards, less the gradient of the image."""
    model = create_model(name).train()
    images = torch.randn(2, *model.input_size)
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images), torch.zeros(2, dtype=torch.long)).backward()
    subject = Subject(name, model, describe(name))
    assert 2 * 2 * subject.macs(TRAINING) == counter.get_total_flops()
    assert subject.macs(FORWARD) == describe(name).macs


@pytest.mark.long
def test_a_measurement_of_networks(lenet):
    """By a clock that moves one second at every look: each measurement takes one, whatever the machine does."""
    ticks = count()
    result = measure([lenet, lenet], batch=2, rounds=4, seconds=1e9, clock=lambda: float(next(ticks)))
    assert result.rounds == 4 and [row.mode for row in result.rows] == [FORWARD, FORWARD, TRAINING, TRAINING]
    assert all(row.latency_ms.median == 1000 and row.images_per_second == 2 for row in result.rows)
    assert result.limit.gmacs_per_second.median == result.limit.side**3 / 1e9
    assert {row.ratio.median for row in result.rows} == {1.0}


@pytest.mark.long
def test_the_machines_limit_is_the_quickest_of_torchs_products():
    """By a clock that is told how long each product takes: 1 s by one library, half of it by the other."""
    clock = Clock()

    def library(name, seconds):
        return lambda side, device: Product(side, name, clock.work(name, seconds))

    for quick, slow in (("a", "b"), ("b", "a")):
        makers = [library(name, 0.5 if name == quick else 1.0) for name in sorted((quick, slow))]
        assert quickest_product(torch.device("cpu"), clock, makers).library == quick
    assert quickest_product(torch.device("cpu")).side in SIDES


@pytest.mark.long
def test_a_network_is_left_without_gradients_and_with_its_statistics():
    model = create_model("resnet20_cifar").eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure([Subject("n", model, describe(model))], batch=2, rounds=1, seconds=0)
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.long
def test_on_the_command_line(capsys, run):
    options = ["--rounds", "1", "--threads", "1", "--batch", "2"]
    assert main(["benchmark", "lenet5", str(run), *options]) == 0
    shown = capsys.readouterr().out
    assert "lenet5" in shown and torch.__version__ in shown and "1 thread" in shown and "the machine's limit" in shown
    assert main(["benchmark", "lenet5", "lenet5_modern", "--image-size", "32", *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["network"] for row in result["rows"]] == 2 * ["lenet5", "lenet5_modern"] and result["batch"] == 2
    assert result["rows"][0]["ratio"] == {"median": 1.0, "p10": 1.0, "p90": 1.0}
    assert result["rows"][1]["input_size"] == [1, 32, 32] and result["machine"]["device"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no network to measure"),
        (["lenet5", "rasnet50"], 2, "no network named 'rasnet50'; nearest: resnet50"),
        (["lenet5", "--batch", "0"], 2, "--batch must be 1 or more; got 0"),
        (["lenet5", "--threads", "0"], 2, "--threads must be 1 or more"),
        (["lenet5", "--rounds", "0"], 2, "--rounds must be 1 or more"),
        (["lenet5", "--seconds", "nan"], 2, "--seconds must be 0 or more"),
        (["resnet18", "--image-size", "16"], 2, "resnet18 takes images of at least 32x32 pixels; got 16x16"),
        (["nowhere/run"], 3, "no run folder nowhere/run"),
        (["resnet20_cifar", "--image-size", "4", "--rounds", "1"], 2, "give --batch 2 or a larger --image-size"),
        (["lenet5", "--batch", "100000000000"], 1, "the memory does not hold a batch of 100000000000 images"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(capsys, arguments, code, said):
    assert main(["benchmark", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err


@pytest.mark.long
def test_other_failures_are_not_taken_for_a_lack_of_memory(lenet, monkeypatch):
    def broken(*_args):
        raise RuntimeError("something else")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", broken)
    with pytest.raises(RuntimeError, match="something else") as caught:
        measure([lenet], batch=1, rounds=1, seconds=0)
    assert not isinstance(caught.value, ConvariumError | UsageError)


@pytest.mark.long
def test_python_takes_the_same_arguments():
    assert benchmark(["lenet5"], rounds=1, threads=1).threads == 1


@pytest.mark.long
def test_an_interrupt_ends_it_at_once():
    command = [sys.executable, "-m", "convarium", "benchmark", "resnet50", "--rounds", "1000", "--seconds", "600"]
    # Jobs that a shell starts in the background ignore interrupts, and so would what this test starts.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b"" and err.strip() == b"stopped"
