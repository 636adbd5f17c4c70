#!/usr/bin/env python3
"""PyTorch's softmax and topk beside the library, in turn, one thread each.

Usage: torch_routing.py build/default/bin/routing_bench
Prints a Markdown table of medians; exits with status 0 and a line where PyTorch is missing.
"""
import json
import statistics
import subprocess
import sys
import time

try:
    import torch
except ImportError:
    print("PyTorch is not installed here.")
    sys.exit(0)

SHAPES = [(8, 2), (64, 8), (128, 8), (256, 8), (512, 10)]
TOKENS = 512
ROUNDS = 5


def time_torch(logits, top_k):
    def route():
        weights, ids = torch.topk(torch.softmax(logits, dim=-1), top_k, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), ids

    route()
    calls = 0
    start = time.perf_counter()
    while time.perf_counter() - start < 0.1:
        route()
        calls += 1
    return (time.perf_counter() - start) / calls / TOKENS * 1e9


def time_library(program, experts, top_k):
    output = subprocess.run(
        [program, f"--benchmark_filter=^{experts}:{top_k}/T:{TOKENS}/F32/library",
         "--benchmark_format=json", "--benchmark_min_time=0.1"],
        check=True, capture_output=True, text=True).stdout
    return json.loads(output)["benchmarks"][0]["real_time"] / TOKENS


def main():
    torch.set_num_threads(1)
    torch.manual_seed(7)
    print(f"T = {TOKENS}, F32, PyTorch {torch.__version__}\n")
    print("| E:k | library, ns a token | PyTorch | times faster |\n|---|---|---|---|")
    for experts, top_k in SHAPES:
        logits = torch.randn(TOKENS, experts) * 1.5
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(time_library(sys.argv[1], experts, top_k))
            theirs.append(time_torch(logits, top_k))
        ratio = statistics.median(t / o for t, o in zip(theirs, ours))
        print(f"| {experts}:{top_k} | {statistics.median(ours):.1f} | "
              f"{statistics.median(theirs):.0f} | {ratio:.0f} |")


main()
