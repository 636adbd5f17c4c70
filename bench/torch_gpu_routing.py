#!/usr/bin/env python3
"""PyTorch's softmax, topk and sort beside the library on a GPU, in turn, in graph replay.

Usage: torch_gpu_routing.py GPU_BENCH [PEER.py ...]

Every PEER.py defines peers(logits, top_k), which returns {name: callable}: what else to time on
the same logits, such as kernels of an installed server. Prints a Markdown table of medians; exits
with status 0 and a line where PyTorch is missing. Without a GPU it times PyTorch on the CPU, which
tells nothing but that it runs.
"""
import importlib.util
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
TOKENS = [1, 64, 512, 4096, 16384]
ROUNDS = 3
CALLS = 20  # of a graph


def torch_calls(logits, top_k):
    def route():
        weights, ids = torch.topk(torch.softmax(logits, dim=-1), top_k, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), ids

    def route_and_sort():
        weights, ids = route()
        return weights, torch.sort(ids.flatten(), stable=True)

    return {"PyTorch softmax+topk": route, "PyTorch softmax+topk+sort": route_and_sort}


def peer_calls(files, logits, top_k):
    calls = {}
    for file in files:
        spec = importlib.util.spec_from_file_location("peer", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        calls.update(module.peers(logits, top_k))
    return calls


def time_on_gpu(call):
    """Microseconds of one call, captured once and replayed."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        call()  # what it allocates and compiles the first time
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    samples = []
    for _ in range(11):
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(1e3 * start.elapsed_time(end) / CALLS)
    return statistics.median(samples[1:])


def time_on_cpu(call):
    start = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - start)


def time_library(program, tokens):
    """{(E, k, T, operation): microseconds}"""
    output = subprocess.run(
        [program, "--json", "--no-rows", "--dtypes=F32",
         "--models=" + ",".join(f"{e}:{k}" for e, k in SHAPES),
         "--tokens=" + ",".join(map(str, tokens))],
        check=True, capture_output=True, text=True).stdout
    return {(r["num_experts"], r["top_k"], r["num_tokens"], r["operation"]): r["us"]
            for r in json.loads(output)["results"]}


def main():
    program, files = sys.argv[1], sys.argv[2:]
    on_gpu = torch.cuda.is_available()
    tokens = TOKENS if on_gpu else TOKENS[:2]
    torch.manual_seed(7)
    samples = {}
    for _ in range(ROUNDS):
        for key, us in time_library(program, tokens).items():
            samples.setdefault(key, []).append(us)
        for experts, top_k in SHAPES:
            for num_tokens in tokens:
                logits = torch.randn(num_tokens, experts, device="cuda" if on_gpu else "cpu") * 1.5
                calls = torch_calls(logits, top_k) | peer_calls(files, logits, top_k)
                for name, call in calls.items():
                    us = time_on_gpu(call) if on_gpu else time_on_cpu(call)
                    samples.setdefault((experts, top_k, num_tokens, name), []).append(us)
    print(f"F32, PyTorch {torch.__version__}, us a call, medians of {ROUNDS} turns\n")
    print("| E:k | T | route | in one call with sort | peer | us | times route | times one call |")
    print("|---|---|---|---|---|---|---|---|")
    for (experts, top_k, num_tokens, name), times in samples.items():
        if name in ("route", "route_counts", "sort", "route_then_sort", "route_and_sort",
                    "route_and_sort_several"):
            continue
        route, both = (statistics.median(samples[experts, top_k, num_tokens, ours])
                       for ours in ("route", "route_and_sort"))
        peer = statistics.median(times)
        print(f"| {experts}:{top_k} | {num_tokens} | {route:.2f} | {both:.2f} | {name} | {peer:.1f} "
              f"| {peer / route:.1f} | {peer / both:.1f} |")


main()
