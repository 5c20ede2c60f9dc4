"""SENet's own comparison of time, ResNet-50 against SE-ResNet-50, on this machine and as it was printed.

python benchmarks/senet_latency.py > benchmarks/senet_latency.md
"""

import contextlib
import io
import json
import shlex
import sys

from convarium.cli import main as convarium
from convarium.facts import all_facts

NETWORKS = ["resnet50", "se_resnet50"]
# What is measured here for each mode that was printed: the batch that a CPU can bear.
COMMANDS = {
    "forward": ["benchmark", *NETWORKS, "--batch", "1", "--rounds", "25", "--seconds", "120"],
    "forward + backward": ["benchmark", *NETWORKS, "--batch", "8", "--rounds", "15", "--seconds", "240"],
}


def measure(command: list[str]) -> dict:
    """The command's JSON document."""
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        if convarium([*command, "--json"]):
            sys.exit(f"convarium {shlex.join(command)} failed")
    return json.loads(answer.getvalue())


def printed(mode: str) -> list[dict]:
    """Milliseconds of both networks as published, and under what protocol."""
    begins = {"forward": "forward, ", "forward + backward": "forward and backward, "}[mode]
    figures = [fact for name in NETWORKS for fact in all_facts()[name].published if fact.quantity == "latency_ms"]
    return [{"ms": fact.value, "protocol": fact.protocol} for fact in figures if fact.protocol.startswith(begins)]


def main() -> None:
    print("# SE-ResNet-50 against ResNet-50: time\n")
    print("Written by `python benchmarks/senet_latency.py`, which runs\n")
    print("```")
    for command in COMMANDS.values():
        print(f"convarium {shlex.join(command)}")
    print("```\n")
    results = {mode: measure(command) for mode, command in COMMANDS.items()}
    machine, threads = results["forward"]["machine"], results["forward"]["threads"]
    limits = ", ".join(
        f"{limit['gmacs_per_second']['median']:.0f} ({limit['side']}x{limit['side']}, by {limit['library']})"
        for limit in (result["limit"] for result in results.values())
    )
    print(
        f"on {machine['device']}, threads: {threads} of {machine['cores']}, torch {machine['torch_version']}. In every "
        "round each network and a matrix product are measured once, one after the other; medians over the rounds, and "
        f"what eight rounds in ten lie between. The limit is the matrix product's rate in GMAC/s: {limits}.\n"
    )
    print("| mode | where | images at once | ResNet-50, ms | SE-ResNet-50, ms | ratio | eight in ten | of the limit |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for mode, result in results.items():
        old, new = printed(mode)
        where = f"SENet, Section 4: {old['protocol'].partition(', ')[2]}"
        print(f"| {mode} | {where} | | {old['ms']:.0f} | {new['ms']:.0f} | **{new['ms'] / old['ms']:.2f}** | | |")
        base, gated = [row for row in result["rows"] if row["mode"] == mode]
        times = " | ".join(f"{row['latency_ms']['median']:.0f}" for row in (base, gated))
        reached = ", ".join(f"{row['percent_of_limit']:.0f} %" for row in (base, gated))
        ratio = gated["ratio"]
        print(
            f"| {mode} | here, {result['rounds']} rounds | {result['batch']} | {times} | **{ratio['median']:.2f}** "
            f"| {ratio['p10']:.2f} to {ratio['p90']:.2f} | {reached} |"
        )
    base, gated = (all_facts()[name].counts for name in NETWORKS)
    print(
        f"\nThe gates add {100 * (gated.macs / base.macs - 1):.2f} % to the multiply-adds and "
        f"{100 * (gated.params / base.params - 1):.0f} % to the parameters. The rest of their time is not "
        "arithmetic: every block's map is read once more for its means and once more to be scaled."
    )


if __name__ == "__main__":
    main()
