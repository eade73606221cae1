"""A measurement, and the comparison of two, as tables on the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["compare", "show"]

# The figures about whole steps: label, keys, factor, unit.
WHOLE = (
    ("step", ("step", "median_ms"), 1.0, "ms"),
    ("steps per second", ("steps_per_second",), 1.0, ""),
    ("evaluations per step", ("evaluations_per_step",), 1.0, ""),
    ("evaluations per second", ("evaluations_per_second",), 1.0, ""),
    ("peak memory", ("peak_bytes",), 1e-6, "MB"),
    ("operations of a step", ("flops", "step"), 1e-9, "GFLOP"),
    ("network", ("network_flops_per_second",), 1e-9, "GFLOP/s"),
    ("matrix product", ("matmul", "flops_per_second"), 1e-9, "GFLOP/s"),
    ("network, of that rate", ("network_share_of_matmul",), 100.0, "%"),
)


def show(console: Console, measurement: Mapping[str, Any]) -> None:
    """Print a table of the phases, and the figures about whole steps."""
    run, place = measurement["run"], measurement["environment"]
    title = f"{_name(measurement)}: {run['gaussians']} Gaussians, {run['views']} view(s) of {run['resolution']} px, "
    table = Table("phase", title=Text(f"{title}{place['precision']}"))
    for name in ("ms (median)", "quartiles", "share", "GFLOP"):
        table.add_column(name, justify="right")
    for name, phase in measurement["phases"].items():
        flops = measurement["flops"].get(name)
        table.add_row(*_spread(name, phase), f"{100 * phase['share']:.1f} %", f"{1e-9 * flops:.4g}" if flops else "")
    table.add_row(*_spread("step", measurement["step"]), "100 %", f"{1e-9 * measurement['flops']['step']:.4g}")
    console.print(table)
    for label, keys, factor, unit in WHOLE[1:]:
        console.print(f"{label}: {factor * _pick(measurement, keys):.4g} {unit}".rstrip(), highlight=False)
    if skipped := run["skipped_steps"]:
        console.print(f"steps skipped, because their gradient was not finite: {skipped}", highlight=False)
    console.print(Text(f"{place['device']}, {place['processor']}, {place['threads']} thread(s)"), soft_wrap=True)


def compare(console: Console, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Print two measurements side by side with the ratio of the second to the first, and how their settings differ."""
    table = Table("figure")
    for heading in (f"A: {_name(before)}", f"B: {_name(after)}", "B / A"):
        table.add_column(Text(heading), justify="right")
    both = [name for name in before["phases"] if name in after["phases"]]
    rows = [(f"{name} ms", ("phases", name, "median_ms"), 1.0) for name in both]
    rows += [(f"{label} {unit}".strip(), keys, factor) for label, keys, factor, unit in WHOLE]
    for label, keys, factor in rows:
        first, second = _pick(before, keys), _pick(after, keys)
        ratio = f"{second / first:.3f}" if first > 0 else "-"
        table.add_row(label, f"{factor * first:.4g}", f"{factor * second:.4g}", ratio)
    console.print(table)
    for what in ("environment", "settings"):
        if lines := list(_differences(before[what], after[what])):
            console.print(Text(f"warning: not the same {what}: {'; '.join(lines)}", style="yellow"), soft_wrap=True)


def _spread(name: str, spread: Mapping[str, float]) -> tuple[str, str, str]:
    return name, f"{spread['median_ms']:.2f}", f"{spread['low_ms']:.2f} to {spread['high_ms']:.2f}"


def _name(measurement: Mapping[str, Any]) -> str:
    return f"{measurement['run']['method']}, {measurement['run']['prior']}"


def _pick(measurement: Mapping[str, Any], keys: tuple[str, ...]) -> float:
    value: Any = measurement
    for key in keys:
        value = value[key]
    return float(value)


def _differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield a line about each leaf that differs, with its dotted name and both values."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield f"{path} {before} and {after}"
