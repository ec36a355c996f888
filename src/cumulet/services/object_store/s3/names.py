"""What buckets may be called.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

import re

_DNS = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LOOSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")
_ADDRESS = re.compile(r"([0-9]{1,3}\.){3}[0-9]{1,3}")


def valid_bucket(name: str, dns: bool) -> bool:
    """Whether a bucket may have this name: by DNS's rules, or by swift's looser ones."""
    if _ADDRESS.fullmatch(name):
        return False
    if not dns:
        return bool(_LOOSE.fullmatch(name)) and not name.endswith(".")
    return bool(_DNS.fullmatch(name)) and not any(pair in name for pair in ("..", ".-", "-."))
