#!/usr/bin/env python3
"""Writes tests/vectors/histories.json: abstract histories and what they mean.

The rules of "which write wins" as sets, written down a second time: versions, once, chains, revocations, cuts, and that
no revocation is ever undone. Deterministic: the same file every time. Needs nothing but Python 3.

  python3 scripts/vectors/histories.py > tests/vectors/histories.json
"""
import json
import random

HOSTS = "ABCE"
# Delegations and what each rests on; a host's own delegation is H:<host>. S may revoke in the owner's name.
PARENT = {"S": None, "D": "S", "X": None, **{"H:" + host: None for host in HOSTS}}


class Epoch:
    def __init__(self, number, host, parents, events, seq):
        self.number, self.host, self.parents, self.events, self.seq = number, host, parents, events, seq
        self.past = frozenset().union(*[p.past | {p.number} for p in parents])


def closure(delegation):
    chain = set()
    while delegation:
        chain.add(delegation)
        delegation = PARENT[delegation]
    return frozenset(chain)


def meaning(epochs):
    """Winners by key, and the void writes as [epoch, event]."""
    by_number = {e.number: e for e in epochs}
    revocations, carriers = {}, {}
    for e in epochs:
        for index, event in enumerate(e.events):
            if event[0] == "rev":
                revocations[event[1]] = event
                places = carriers.setdefault(event[1], [])
                if all(at is not e for at, _ in places):
                    places.append((e, index))

    def rests_on(name):
        return closure("S") if revocations[name][3] == "S" else frozenset()

    def may_widen(nearer, name, rests):
        own, less = rests_on(name), rests_on(nearer)
        has_after = revocations[nearer][4] is not None
        return (
            nearer != name
            and revocations[nearer][2] in rests
            and (less < own or (has_after and less <= own and less < rests))
        )

    memo = {}

    def holds(cut, e, index):
        return e.number in cut[0] or index < cut[1].get(e.number, -1)

    def widen(name, seen, rests, places):
        seen = set(seen)
        for nearer in revocations:
            if may_widen(nearer, name, rests):
                cut = cut_of(nearer)
                if not any(holds(cut, e, index) for e, index in places):
                    seen |= cut[0]
        return frozenset(seen)

    def cut_of(name):
        if name not in memo:
            after, places = revocations[name][4], carriers[name]
            if after is not None:
                seen = set().union(*[by_number[a].past | {a} for a in after])
                memo[name] = (widen(name, seen, rests_on(name), places), {})
            else:
                cuts = [
                    widen(name, e.past, rests_on(name) | closure("H:" + e.host), [(e, index)]) for e, index in places
                ]
                own = {places[0][0].number: places[0][1]} if len(places) == 1 else {}
                memo[name] = (frozenset.intersection(*cuts), own)
        return memo[name]

    void, first = [], {}
    for e in epochs:
        for index, event in enumerate(e.events):
            if event[0] != "put":
                continue
            _, token, delegation, key, value, after = event
            if after is not None and not set(after) <= e.past:
                continue  # dead
            chain = closure(delegation) | closure("H:" + e.host)
            cuts = [cut_of(name) for name, revocation in revocations.items() if revocation[2] in chain]
            if not all(holds(cut, e, index) for cut in cuts):
                void.append([e.number, index])
                continue
            version = (e.seq, e.number, index)
            if token not in first or version < first[token][0]:
                first[token] = (version, key, value)
    winners = {}
    for _, key, value in sorted(first.values()):
        winners[key] = value
    return winners, void


class History:
    """Three honest hosts and the hostile E, told apart by who has what."""

    def __init__(self, rnd):
        self.rnd, self.epochs, self.tokens, self.seqs = rnd, [], 0, set()
        root = self.epoch("A", [], [self.put("X", [])], 0)
        self.has = {host: [root] for host in "ABC"}

    def epoch(self, host, parents, events, least=None):
        seq = max([p.seq for p in parents], default=0) + self.rnd.randint(1, 3) if least is None else least
        while seq in self.seqs:
            seq += 1
        self.seqs.add(seq)
        made = Epoch(len(self.epochs), host, parents, events, seq)
        self.epochs.append(made)
        return made

    def put(self, delegation, heads, bound=True):
        self.tokens += 1
        after = sorted(p.number for p in heads) if bound and heads else None
        return ["put", f"t{self.tokens}", delegation, f"k{self.rnd.randrange(5)}", self.tokens, after]

    def heads(self, host):
        past = {number for e in self.has[host] for number in e.past}
        return [e for e in self.has[host] if e.number not in past]

    def honest(self, host, events_of):
        heads = self.heads(host)
        made = self.epoch(host, heads, events_of(heads))
        self.has[host].append(made)
        return made

    def sync(self, a, b):
        union = {e.number: e for e in self.has[a] + self.has[b]}
        self.has[a] = [union[n] for n in sorted(union)]
        self.has[b] = list(self.has[a])

    def revoke(self, name, target, by, heads, bound):
        return ["rev", name, target, by, sorted(p.number for p in heads) if bound else None]


def history(number):
    rnd = random.Random(number)
    h = History(rnd)
    bound_writes, bound_revocations = rnd.random() < 0.7, rnd.random() < 0.6
    for _ in range(rnd.randint(2, 8)):
        count = 1 if rnd.random() < 0.7 else 2
        h.honest(
            rnd.choice("ABC"),
            lambda heads: [h.put(rnd.choice("DXS"), heads, bound_writes) for _ in range(count)],
        )
        if rnd.random() < 0.5:
            h.sync(*rnd.sample("ABC", 2))
    for pair in ("AB", "BC", "AC"):
        h.sync(*pair)
    before = list(h.epochs)
    # The session revokes; the owner revokes the session at a host that has not seen that; hosts are removed.
    revocations = [("A", "R", "X", "S"), ("B", "R0", "S", "O")]
    revocations += [("C", "RE", "H:E", "O")] * (rnd.random() < 0.5)
    revocations += [("A", "RE2", "H:E", "O")] * (rnd.random() < 0.25)
    revocations += [("B", "RA", "H:A", "O")] * (rnd.random() < 0.15)
    rnd.shuffle(revocations)
    for host, name, target, by in revocations:
        h.honest(
            host,
            lambda heads: [h.put("X", heads, bound_writes)] * (rnd.random() < 0.3)
            + [h.revoke(name, target, by, heads, bound_revocations)],
        )
        if rnd.random() < 0.4:
            h.sync(*rnd.sample("ABC", 2))
    known, forged = list(h.epochs), []
    for _ in range(rnd.randint(3, 9)):
        parents = [rnd.choice(before + forged)]
        kind = rnd.randrange(6)
        if kind == 0:
            events = [h.put(rnd.choice("DSX"), parents, False)]
        elif kind in (1, 2):
            events = [rnd.choice(rnd.choice(known).events)]
        elif kind == 3:
            events = [e for e in rnd.choice(known).events] + [h.put("X", parents, False)]
        else:
            target, bound = rnd.choice(["X", "D", "H:A", "H:E"]), rnd.random() < 0.3
            events = [h.revoke(f"T{len(h.epochs)}", target, rnd.choice("SO") if target == "H:E" else "S", parents, bound)]
        forged.append(h.epoch("E", parents, events))
    winners, void = meaning(h.epochs)
    epochs = [[e.host, [p.number for p in e.parents], e.seq, e.events] for e in h.epochs]
    return {"epochs": epochs, "winners": winners, "void": void}


if __name__ == "__main__":
    about = "made by scripts/vectors/histories.py; epochs are [host, parents, seq, events]"
    lines = ",\n".join(json.dumps(history(number), separators=(",", ":")) for number in range(200))
    print(f'{{"about":{json.dumps(about)},"histories":[\n{lines}\n]}}')
