"""Access rules: which requests a token may be used for, where it is not good for all.

A rule names a service's type, a method and a pattern of paths, in which `*` and `{name}` stand for one segment (or part of
one), `**` for anything. Reference: the Identity API, "Application credentials", and what keystonemiddleware does with them.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache

from cumulet.core.context import AccessRule

TOKEN = re.compile(r"(?P<segment>\{[^{}]*\}|\*(?!\*))|(?P<any>\*\*)|(?P<plain>.)", re.DOTALL)


def permits(rules: Sequence[AccessRule], services: Collection[str], method: str, path: str) -> bool:
    """Whether one of `rules` names this request to a service that is known by `services`."""
    return any(rule.method == method and rule.service in services and matcher(rule.path)(path) for rule in rules)


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> Callable[[str], bool]:
    """What tells whether a path is one of the pattern's.

    Users write the patterns, and regular expressions with many `*` can take for ever. So this follows all ways through the
    pattern at once: bit n of `ways` says that n steps of it have been taken, and each character of the path costs the same.
    """
    plain: dict[str, int] = defaultdict(int)  # the steps that take this very character
    segment = 0  # the steps that take any character of a segment
    stay_segment = stay_any = 0  # after which steps such characters, or any at all, may follow
    steps = 0
    for found in TOKEN.finditer(pattern):
        if found["any"]:
            stay_any |= 1 << steps
        elif found["segment"]:
            segment |= 1 << steps
            steps += 1
            stay_segment |= 1 << steps
        else:
            plain[found["plain"]] |= 1 << steps
            steps += 1
    taken, end = dict(plain), 1 << steps

    def matches(path: str) -> bool:
        ways = 1
        for character in path:
            step, stay = taken.get(character, 0), stay_any
            if character != "/":
                step, stay = step | segment, stay | stay_segment
            ways = (ways & step) << 1 | ways & stay
            if not ways:
                return False
        return bool(ways & end)

    return matches
