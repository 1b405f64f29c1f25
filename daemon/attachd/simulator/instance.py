"""Which Connect instance: an ARN, read once into its parts. Nothing else enters."""

import re
from dataclasses import dataclass

_ARN = re.compile(r"arn:(aws[\w-]*):connect:([a-z0-9-]+):(\d{12}):instance/([\w-]{1,100})")


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: `id` is what requests name; `account` has twelve digits; `region` such as `eu-central-1`."""

    arn: str
    region: str
    account: str
    id: str

    def contact_arn(self, contact_id: str) -> str:
        """Return the ARN of one of the instance's contacts."""
        return f"{self.arn}/contact/{contact_id}"


def parse_instance(arn: str) -> Instance:
    """Read the ARN of an instance; raises ValueError if it is none."""
    found = _ARN.fullmatch(arn)
    if found is None:
        raise ValueError(f"not the ARN of an Amazon Connect instance: {arn!r}")
    return Instance(arn, found[2], found[3], found[4])
