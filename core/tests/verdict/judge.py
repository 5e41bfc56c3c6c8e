#!/usr/bin/env python3
"""Writes judge.json: what a judge has to say of whole watches, worked out from the definitions and not as the judge does it.

An e-value of a cell is, by definition, a sum over all ticks s at which a fault may have begun: the weight of s times the product
of the factors since s, the mean of that over the alternatives by their shares, and the weight that is not spent yet. The judge
has a recursion for it; here the sum itself is taken, with 50 digits. A tick counts for a part of one where it has fewer requests than
half of the company that a request had lately, each tick with data remembered by a tenth less than the next. In such a tick the comparison
goes by the new slot's share of the requests of about the last half minute where that is the larger one, and the old slot had some.

    python3 core/tests/verdict/judge.py > core/tests/verdict/judge.json
"""

import json
import pathlib
import random
from decimal import Decimal, getcontext

getcontext().prec = 50
HERE = pathlib.Path(__file__).parent
D = Decimal

ALIKE = [D(1) / 10] * 10
WORST_FIRST = [D(share) / 100 for share in (22, 16, 12, 10, 8, 7, 7, 6, 6, 6)]
HORIZON = 3600
THRESHOLD = 4000
WORSE_RATIOS = [D("1.25"), D("1.5"), 2, 3, 5, 9, 17, 33, 65, 129]


def grid(m0):
    return [m0 + (D("0.98") - m0) / 2**k for k in range(10)]


def blamed(split, ratio):
    return split * ratio / (split * ratio + 1 - split)


def weight(tick):
    spread = D("0.5") / HORIZON
    return spread + (D("0.5") if tick == 1 else 0)


class Cell:
    """The e-value by its definition: `factors[t - 1]` are those of tick t, None where it had no data."""

    def __init__(self, shares):
        self.shares, self.factors = shares, []

    def tick(self, bad_share, m0, worse, part=D(1)):
        if bad_share is None:
            self.factors.append([D(1)] * 10)
        else:
            x = bad_share
            whole = [x * q / m0 + (1 - x) * (1 - q) / (1 - m0) for q in worse]
            self.factors.append([1 - part + part * factor for factor in whole])

    def value(self):
        last = len(self.factors)
        product, total = [D(1)] * 10, D(0)
        for start in range(last, 0, -1):
            product = [p * f for p, f in zip(product, self.factors[start - 1])]
            total += weight(start) * sum(share * p for share, p in zip(self.shares, product))
        return total + 1 - sum(weight(t) for t in range(1, last + 1))


def part(requests, before):
    """What a tick with so many requests counts for, after ticks with as many as `before` says."""
    with_data = [n for n in before if n]
    if not with_data or not requests:
        return D(1)
    weights = [D("0.9") ** age for age in range(len(with_data))]
    company = sum(w * n * n for w, n in zip(weights, reversed(with_data))) / sum(
        w * n for w, n in zip(weights, reversed(with_data)))
    return min(D(1), requests / (D("0.5") * company))


class Metric:
    """Errors or slowness. A tick is (requests, bad by the limit, bad by the comparison) of the new slot and of the old one."""

    def __init__(self, floor, ratio):
        self.floor_rate, self.ratio_bound = D(floor), D(ratio)
        self.limit, self.floor = Cell(WORST_FIRST), Cell(ALIKE)
        self.ratio, self.old = Cell(ALIKE), Cell(ALIKE)
        self.seen, self.struck_at = [], None

    def tick(self, at, new, old):
        m0, ratio = D("0.01"), self.ratio_bound
        share = lambda bad, all: D(bad) / all if all else None
        new_part = part(new[0], [seen[1][0] for seen in self.seen])
        old_part = part(old[0], [seen[2][0] for seen in self.seen])
        self.limit.tick(share(new[1], new[0]), m0, grid(m0), new_part)
        self.floor.tick(share(new[2], new[0]), self.floor_rate, grid(self.floor_rate), new_part)
        self.old.tick(share(old[1], old[0]), m0, grid(m0), old_part)
        if new[0] and old[0] and new[2] + old[2]:
            split = D(new[0]) / (new[0] + old[0])
            if new_part < 1:
                decayed = lambda slot: sum(D("0.97") ** (at - seen[0]) * seen[slot][0] for seen in self.seen)
                # `at - 1`: as of the tick before.
                if decayed(2) / D("0.97") >= 1:
                    split = max(split, decayed(1) / (decayed(1) + decayed(2)))
            worse = [blamed(split, ratio * times) for times in WORSE_RATIOS]
            self.ratio.tick(D(new[2]) / (new[2] + old[2]), blamed(split, ratio), worse)
        else:
            self.ratio.tick(None, None, None)
        self.seen.append((at, new, old))
        if old[0] and self.old.value() >= 2:
            self.struck_at = at

    def sick(self, at):
        if self.struck_at is not None and at < self.struck_at + 120:
            return True
        decayed = lambda count: sum(D("0.97") ** (at - then) * count(new, old) for then, new, old in self.seen)
        old_requests = decayed(lambda new, old: old[0])
        new_blame = decayed(lambda new, old: new[1]) * old_requests
        old_blame = decayed(lambda new, old: old[1]) * decayed(lambda new, old: new[0])
        return old_requests >= 1 and new_blame <= self.ratio_bound * old_blame

    def finding(self, at):
        return {
            "over_limit": self.limit.value(),
            "worse_than_old": min(self.floor.value(), self.ratio.value()),
            "old_over_limit": self.old.value(),
            "both_sick": self.sick(at),
        }


def verdict(findings):
    if any(found["worse_than_old"] >= THRESHOLD for found in findings):
        return "rollback"
    over = [found for found in findings if found["over_limit"] >= THRESHOLD]
    if any(not found["both_sick"] for found in over):
        return "rollback"
    return "hold" if over else None


def judged(name, ticks, told):
    errors, slowness = Metric("0.005", "2"), Metric("0.01", "1.25")
    expected, first, at = [], None, 0
    for number, *counts in ticks:
        (nc, ec, sc, tc), (nb, eb, sb, tb) = counts[:4], counts[4:]
        for missing in range(at + 1, number):
            errors.tick(missing, (0, 0, 0), (0, 0, 0))
            slowness.tick(missing, (0, 0, 0), (0, 0, 0))
        at = number
        errors.tick(at, (nc, ec, ec), (nb, eb, eb))
        slowness.tick(at, (nc, sc, tc), (nb, sb, tb))
        findings = [errors.finding(at), slowness.finding(at)]
        if first is None and verdict(findings):
            first = [verdict(findings), at]
        if at in told or number == ticks[-1][0]:
            row = {"tick": at}
            for metric, found in zip(("errors", "slowness"), findings):
                row[metric] = {key: found[key] if key == "both_sick" else float(found[key]) for key in found}
            expected.append(row)
    return {"name": name, "ticks": ticks, "expect": expected, "first": first}


def drawn(rng, requests, rate):
    return sum(rng.random() < rate for _ in range(requests))


def watch(seed, numbers, rates):
    """Ticks with requests drawn between bounds; `rates(t)` are errors and slow requests of the new and of the old slot."""
    rng, ticks = random.Random(seed), []
    for number in numbers:
        (low, high), (e_c, s_c, e_b, s_b) = rates(number)
        nc, nb = rng.randint(low, high), rng.randint(low, high)
        new = [nc, drawn(rng, nc, e_c), drawn(rng, nc, s_c)]
        old = [nb, drawn(rng, nb, e_b), drawn(rng, nb, s_b)]
        # What is over the threshold of before is over it or over the limit: the limit is the larger one here.
        ticks.append([number, *new, min(nc, new[2] + drawn(rng, nc, 0.01)), *old, min(nb, old[2] + drawn(rng, nb, 0.01))])
    return ticks


def cases():
    known = json.loads((HERE / "vectors.json").read_text())
    for case in known["cases"]:
        ticks = [[at, nc, ec, 0, 0, nb, eb, 0, 0] for at, (nc, ec, nb, eb) in enumerate(case["ticks"], 1)]
        yield case["name"], ticks
    good, busy = (0.001, 0.002, 0.001, 0.002), (40, 60)
    yield "bad after ten good minutes", watch(
        1, range(1, 641), lambda t: (busy, (0.05, 0.002, 0.001, 0.002) if t > 600 else good))
    yield "seconds that never came", watch(
        2, [t for t in range(1, 120) if t % 3], lambda t: (busy, (0.04, 0.002, 0.001, 0.002)))
    yield "both slots struck", watch(
        3, range(1, 161), lambda t: (busy, (0.3, 0.002, 0.3, 0.002) if 60 < t <= 120 else good))
    yield "slow", watch(4, range(1, 91), lambda t: (busy, (0.001, 0.04, 0.001, 0.002)))
    yield "a request now and then", watch(5, range(1, 201), lambda t: ((0, 2), (0.2, 0.002, 0.001, 0.002)))
    rng, pages = random.Random(8), []
    for at in range(1, 241):
        row = [at]
        for _ in range(2):
            assets = 40 * drawn(rng, 1, 0.3)
            polls = rng.randint(0, 2)
            failed = drawn(rng, polls, 0.05)
            row += [assets + polls, failed, 0, 0]
        pages.append(row)
    yield "pages of forty requests and lone polls that fail", pages
    yield "pages lose their assets and fail", watch(
        9, range(1, 91), lambda t: ((35, 45), good) if t <= 60 else ((0, 2), (1, 0, 0.001, 0.002)))
    yield "the old slot's first request", [
        [1, 40, 0, 0, 0, 0, 0, 0, 0], [2, 1, 1, 0, 0, 1, 0, 0, 0], [3, 1, 0, 0, 0, 1, 1, 0, 0], [4, 40, 2, 0, 0, 30, 1, 0, 0],
        [1500, 1, 1, 0, 0, 1, 0, 0, 0], [1501, 40, 0, 0, 0, 40, 2, 0, 0]]
    yield "fails a little", watch(6, range(1, 161), lambda t: (busy, (0.02, 0.002, 0.001, 0.002)))
    yield "good", watch(7, range(1, 301), lambda t: (busy, good))


TOLD = {1, 2, 3, 5, 8, 10, 20, 40, 60, 61, 63, 66, 90, 120, 150, 300, 600, 605}

if __name__ == "__main__":
    document = [judged(name, ticks, TOLD) for name, ticks in cases()]
    print("[\n" + ",\n".join(json.dumps(case) for case in document) + "\n]")
