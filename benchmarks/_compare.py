"""Run several ways to do one thing side by side, and print times, ratios and memory."""

import gc
import os
import statistics
import time
from multiprocessing import get_context
from pathlib import Path


def status(field):
    """Return a line of /proc/self/status (VmRSS, VmHWM, RssAnon) in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1000


def _peak(function, pipe):
    gc.collect()
    before = status("VmRSS")
    function()
    pipe.send((status("VmHWM"), before))


def peaks(contestants):
    """Return {name: (peak resident memory, what of it was there before), MB}.

    Each runs once in a forked process of its own, which starts with the inputs and libraries that
    are loaded here. Call it before anything has started threads: those do not survive a fork.
    """
    found = {}
    for name, function in contestants.items():
        receiver, sender = get_context("fork").Pipe(duplex=False)
        process = get_context("fork").Process(target=_peak, args=(function, sender))
        process.start()
        sender.close()
        try:
            found[name] = receiver.recv()
        except EOFError:
            raise RuntimeError(f"{name} died while its memory was measured") from None
        finally:
            process.join()
    return found


def times(contestants, rounds=5):
    """Return {name: seconds of every round}, after one round to warm up; in turn, one process."""
    seconds = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, function in contestants.items():
            gc.collect()
            start = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def table(title, contestants, n_items, unit="images", rounds=5, memory=None):
    """Print a row for each of `contestants` (name to function; ours first), and return the ratios.

    A ratio is the median, over the rounds, of the alternative's time over ours in the same round:
    what else the machine does meets both alike. `memory` is what `peaks` found before the first of
    several tables in a process; None measures it here.
    """
    memory = memory or peaks(contestants)
    seconds = times(contestants, rounds)
    ours = next(iter(seconds.values()))
    print(f"\n{title}; {rounds} rounds in turn, {os.cpu_count()} CPU cores\n")
    print(f"| | {unit}/s (median) | ours is faster by (median, range) | peak MB (before) |")
    print("|---|---|---|---|")
    ratios = {}
    for name, spent in seconds.items():
        each = [other / own for other, own in zip(spent, ours, strict=True)]
        ratios[name] = statistics.median(each)
        rate = n_items / statistics.median(spent)
        peak, before = memory[name]
        print(
            f"| {name} | {rate:,.0f} | {ratios[name]:.2f} ({min(each):.2f} to {max(each):.2f}) | "
            f"{peak:,.0f} ({before:,.0f}) |",
            flush=True,
        )
    return ratios
