"""Names of S3 buckets, by the rules of AWS.

Source: docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html, general purpose buckets, read 2026-11.
Stores that speak S3's protocol know the same names or fewer.
"""

from __future__ import annotations

import re

SHORTEST, LONGEST = 3, 63
# AWS's own, for aliases, demonstrations and other kinds of buckets.
RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
FIX = "name a bucket that can be: 3 to 63 lower-case letters, digits, hyphens and single dots, none of AWS's own names"
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")


def bucket_fault(name: str) -> str | None:
    """The first rule that S3 would refuse a bucket of this name by, as the end of a sentence; None for a good name."""
    if not SHORTEST <= len(name) <= LONGEST:
        return f"it has {len(name)} characters, and a bucket's name has {SHORTEST} to {LONGEST}"
    if foreign := sorted(set(re.sub(r"[a-z0-9.-]", "", name))):
        shown = ", ".join(f'"{character}"' for character in foreign)
        return f"it has {shown}, and a bucket's name has lower-case letters, digits, dots and hyphens only"
    if not (name[0].isalnum() and name[-1].isalnum()):
        return "a bucket's name begins and ends with a letter or a digit"
    if ".." in name:
        return "a bucket's name has no two dots beside each other"
    if _ADDRESS.fullmatch(name):
        return "a bucket's name does not look like an IP address"
    return _reserved(name)


def _reserved(name: str) -> str | None:
    for prefix in RESERVED_PREFIXES:
        if name.startswith(prefix):
            return f"names that begin with {prefix} are reserved by AWS"
    for suffix in RESERVED_SUFFIXES:
        if name.endswith(suffix):
            return f"names that end with {suffix} are reserved by AWS"
    return None
