"""What was measured, as a table for people, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simvq_audio.errors import needs_extra


def as_text(result: dict[str, Any]) -> str:
    """A Markdown table of speeds as ratios to real time, then the other measurements."""
    machine, ours = result["machine"], result["coders"][0]["name"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    lines = [
        f"{machine['device']}, {threads}, torch {machine['torch']}, {result['clock']} time; "
        "times real time, medians",
        "",
        f"| codec | seconds | batch | encode | decode | both | {ours} is |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    own = {
        (row["seconds"], row["batch"]): row["both"]
        for row in result["speed"]
        if row["coder"] == ours
    }
    for row in result["speed"]:
        ratio = own[row["seconds"], row["batch"]] / row["both"]
        faster = "" if row["coder"] == ours else f"{ratio:.1f} times as fast"
        lines.append(
            f"| {row['coder']} | {row['seconds']:g} | {row['batch']} | {row['encode']:.1f} | "
            f"{row['decode']:.1f} | {row['both']:.1f} | {faster} |"
        )
    lines += ["", "| codec | memory, loaded | memory, at its peak | of |", "|---|---:|---:|---|"]
    for row in result["memory"]:
        numbers = (row["loaded_mb"], row["peak_mb"])
        shown = " | ".join("out of memory" if mb is None else f"{mb:.0f} MB" for mb in numbers)
        lines.append(f"| {row['coder']} | {shown} | {row['batch']} x {row['seconds']:g} s |")
    cold = result["cold_start"]
    if cold:
        lines += [
            "",
            f"Cold start: encode of 5 s takes {cold['encode']:.2f} s, 'import torch' "
            f"{cold['import_torch']:.2f} s: {cold['ratio']:.2f} times.",
        ]
    for name, stream in result["streams"].items():
        lines += [
            "",
            f"Stream of {name}: the encoder waits for {stream['encoder_latency_ms']:.0f} ms of "
            f"audio, the decoder for {stream['decoder_latency_ms']:.0f} ms; first samples after "
            f"{stream['first_output_ms']:.0f} ms; a push of 80 ms takes {stream['push_ms']:.1f} ms "
            f"to compute ({stream['times_real_time']:.1f} times real time).",
        ]
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the speed of encoding and decoding together, on a logarithmic axis.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("benchmark"):
        from matplotlib.figure import Figure

    cases = sorted({(row["seconds"], row["batch"]) for row in result["speed"]})
    names = [coder["name"] for coder in result["coders"]]
    figure = Figure(figsize=(7, 1 + 0.28 * len(names) * len(cases)), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(cases)
    for number, (seconds, batch) in enumerate(cases):
        speeds = {
            row["coder"]: row["both"]
            for row in result["speed"]
            if (row["seconds"], row["batch"]) == (seconds, batch)
        }
        places = [i + (number - (len(cases) - 1) / 2) * width for i in range(len(names))]
        bars = axes.barh(
            places, [speeds[name] for name in names], 0.9 * width, label=f"{batch} x {seconds:g} s"
        )
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.axvline(1, color="0.6", linewidth=1)
    axes.set_xlabel("encoding and decoding, times real time")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
