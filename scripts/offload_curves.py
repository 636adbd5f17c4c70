#!/usr/bin/env python3
"""Replays traces with limited fast memory; writes the tables of docs/offload.md and docs/offload.svg.

Usage: scripts/offload_curves.py PATH_OF_switchyard
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRACES = ROOT.parent / "shared" / "traces"
KINDS = ["english", "german", "chinese", "cpp"]
HUES = ["#b4532a", "#3b6fb6", "#5fa6a0", "#8a63a8"]
BOUNDS = [0, 0.005, 0.01, 0.02, 0.05, 0.1]
SLOTS = 24


def replay(command, trace, *options):
    done = subprocess.run(
        [command, "offload", str(trace), "--json", *map(str, options)],
        check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def percent(share, digits=1):
    return f"{100 * share:.{digits}f}"


def curves(command):
    """Of each kind of text: (epsilon, hit rate, mean and most mass given up)."""
    found = {}
    for kind in KINDS:
        points = []
        for epsilon in BOUNDS:
            told = replay(command, TRACES / "tiny-moe" / f"{kind}.safetensors",
                          "--fast-slots", SLOTS, "--epsilon", epsilon)
            points.append((epsilon, told["hit_rate"], told["sacrificed_mass_mean"],
                           told["sacrificed_mass_max"]))
        found[kind] = points
    return found


def curve_table(found):
    lines = ["| text | " + " | ".join(f"epsilon {bound}" for bound in BOUNDS) + " |",
             "|---" * (len(BOUNDS) + 1) + "|"]
    for kind, points in found.items():
        plain = points[0][1]
        cells = [f"{percent(points[0][1])} %"]
        for _, rate, mean, _ in points[1:]:
            cells.append(f"{percent(rate)} % (+{percent(rate - plain)}), {percent(mean, 2)} % given up")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return lines


def policy_table(command):
    lines = ["| trace, slots | lru | lfu | adaptive | affinity, no transitions | affinity | "
             "with prefetches | belady |", "|---" * 8 + "|"]
    cases = [("gpt-oss-20b/decode", slots) for slots in (8, 12, 16)]
    cases += [(f"tiny-moe/{kind}", SLOTS) for kind in KINDS]
    for name, slots in cases:
        trace = TRACES / f"{name}.safetensors"
        told = replay(command, trace, "--fast-slots", slots, "--prefetch")
        bare = replay(command, trace, "--fast-slots", slots, "--no-transitions")
        plain = told["plain"]
        early = (f"{percent(told['hit_rate'])} ({told['prefetches']} early, "
                 f"{percent(told['prefetch_hits'] / max(1, told['prefetches']), 0)} % used)")
        cells = [percent(plain[policy]["hit_rate"]) for policy in ("lru", "lfu", "adaptive")]
        cells += [percent(bare["hit_rate"]), percent(plain["affinity"]["hit_rate"]), early,
                  percent(plain["belady"]["hit_rate"])]
        lines.append(f"| {name}, {slots} of {told['num_experts']} | " + " | ".join(cells) + " |")
    return lines


def picture(found):
    width, height, left, right, top, bottom = 760, 420, 60, 24, 20, 46
    most = max(point[2] for points in found.values() for point in points) * 1.05
    low, high = 0.6, 1.0

    def x(mass):
        return left + (width - left - right) * mass / most

    def y(rate):
        return top + (height - top - bottom) * (high - rate) / (high - low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             'font-family="system-ui, sans-serif" font-size="13">',
             f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for step in range(5):
        rate = low + (high - low) * step / 4
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(rate):.1f}" y2="{y(rate):.1f}" '
                     'stroke="#e3e1da"/>')
        parts.append(f'<text x="{left - 8}" y="{y(rate) + 4:.1f}" text-anchor="end" '
                     f'fill="#667085">{percent(rate, 0)} %</text>')
    for step in range(7):
        mass = most * step / 7
        parts.append(f'<text x="{x(mass):.1f}" y="{height - 26}" text-anchor="middle" '
                     f'fill="#667085">{percent(mass, 2)} %</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle" '
                 'fill="#667085">probability given up, mean of a token</text>')
    for place, (kind, points) in enumerate(found.items()):
        hue = HUES[place]
        path = " ".join(f"{x(point[2]):.1f},{y(point[1]):.1f}" for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{hue}" stroke-width="2"/>')
        for point in points:
            parts.append(f'<circle cx="{x(point[2]):.1f}" cy="{y(point[1]):.1f}" r="3.5" fill="{hue}"/>')
        key = height - bottom - 20 * (len(found) - place)
        parts.append(f'<rect x="{width - 130}" y="{key - 4}" width="16" height="3" fill="{hue}"/>')
        parts.append(f'<text x="{width - 106}" y="{key + 2}" fill="#1d2330">{kind}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    command = sys.argv[1]
    if not TRACES.exists():
        sys.exit(f"{TRACES} is not here")
    found = curves(command)
    page = ROOT / "docs" / "offload.md"
    text = page.read_text()
    begin, end = "<!-- tables -->\n", "<!-- end of tables -->"
    tables = ["", *curve_table(found), "", "## Which expert leaves", "",
              "Hit rates in percent, choices as the model made them.", "", *policy_table(command), ""]
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    page.write_text(head + begin + "\n".join(tables) + "\n" + end + tail)
    (ROOT / "docs" / "offload.svg").write_text(picture(found))


if __name__ == "__main__":
    main()
