"""Draws benchmarks/results.json, which `make bench` writes, as the chart of the README, and prints the table."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

HERE: Final = Path(__file__).resolve().parent
OURS, LIMIT, THEIRS = "#0b7a75", "#9aa5b1", "#c44536"


def color(name: str) -> str:
    return OURS if name.startswith("fastemit") else THEIRS if name.startswith("snowplow_tracker") else LIMIT


def bars(axes: Any, title: str, values: dict[str, float], form: str) -> None:
    """One bar for each, as long as its figure, with its name above and its figure behind it."""
    names = sorted(values, key=lambda name: values[name])
    axes.barh(range(len(names)), [values[name] for name in names], height=0.4, color=[color(name) for name in names])
    most = max(values.values())
    axes.set_xlim(0, most * 1.35)
    axes.set_ylim(-0.4, len(names) - 0.2)
    axes.set_xticks([])
    axes.set_yticks([])
    for place, name in enumerate(names):
        axes.text(0, place + 0.26, name, va="bottom", fontsize=9)
        axes.text(values[name] + most * 0.02, place, form.format(values[name]), va="center", fontsize=9)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def main() -> None:
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    rows = {figure["name"]: figure for figure in results["figures"]}

    def detail(row: str, unit: str) -> dict[str, float]:
        values = rows[row]["detail"].items()
        # Readers know it by its name.
        return {
            name.removesuffix(unit).replace("reference", "snowplow_tracker"): value
            for name, value in values
            if name.endswith(unit)
        }

    # Text stays text, and two drawings of the same figures are the same file.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fastemit", "font.family": "sans-serif"})
    # Narrow, so that the letters can still be read where it is scaled down to a telephone.
    figure, axes = plt.subplots(3, 1, figsize=(4.2, 9.6), height_ratios=[8, 8, 3], constrained_layout=True)
    bars(axes[0], "Events a second, end to end", detail("end to end", ", events/s"), "{:,.0f}")
    bars(axes[1], "CPU of the process for an event, microseconds", detail("CPU", ", CPU us"), "{:,.2f}")
    bars(axes[2], "input() while the sender is idle, nanoseconds", detail("input, one int", ", ns"), "{:,.0f}")
    versions = ", ".join(f"{name} {version}" for name, version in results["packages"].items())
    made = f"{results['date']}: {results['machine']}, {results['python']}"
    figure.text(0.01, -0.02, "\n".join([*wrap(made, 48), *wrap(versions, 48)]), fontsize=9, va="top")
    figure.savefig(HERE / "chart.svg", bbox_inches="tight", facecolor="white", metadata={"Date": None, "Creator": None})

    print(f"\n{results['date']}: {results['machine']}, {results['python']}; {versions}\n")
    print("| what | figure | | aim |")
    print("|---|---|---|---|")
    for row in results["figures"]:
        side = "at least" if row["at_least"] else "at most"
        aim = f"{side} {row['aim']:g}{'' if row['met'] else ', missed'}"
        print(f"| {row['name']} | {row['value']:.3g} | {row['what']} | {aim} |")
    print(f"\nwritten: {HERE.name}/results.json, {HERE.name}/chart.svg")


if __name__ == "__main__":
    main()
