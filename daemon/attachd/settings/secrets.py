"""Where secrets lie. What stands in the file is never the secret itself."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from attachd.errors import Misconfigured
from attachd.model import Secret
from attachd.settings.fields import Table


def _reference(value: object) -> object:
    """Where a secret lies. A secret itself that stands here is not repeated."""
    if not isinstance(value, str | Path) or not str(value).strip() or str(value).startswith("whsec_"):
        raise ValueError("this is where a secret lies, never the secret itself")
    return value


Reference = Annotated[str, BeforeValidator(_reference)]


class SecretRef(Table):
    """Where a secret lies; never the secret itself. Exactly one of the three."""

    credential: Reference | None = Field(None, description="a file in systemd's $CREDENTIALS_DIRECTORY")
    env: Reference | None = Field(None, description="an environment variable")
    file: Annotated[Path, BeforeValidator(_reference)] | None = Field(None, description="a file")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(x is not None for x in (self.credential, self.env, self.file)) != 1:
            raise ValueError("give exactly one of 'credential', 'env' and 'file'")
        return self

    def read(self, environ: Mapping[str, str] = os.environ) -> Secret:
        """The secret.

        Raises:
            Misconfigured: it is not where the reference says.
        """
        if self.env is not None:
            value = environ.get(self.env, "")
            where = f"environment variable {self.env}"
            if self.env not in environ:
                raise Misconfigured([f"secret {where} is not set"])
        else:
            directory = environ.get("CREDENTIALS_DIRECTORY", "")
            if self.credential is not None and not directory:
                raise Misconfigured([f"credential {self.credential!r}: $CREDENTIALS_DIRECTORY is not set"])
            path = self.file if self.file is not None else Path(directory) / (self.credential or "")
            where = str(path)
            try:
                value = path.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise Misconfigured([f"secret {where}: {error}"]) from None
        if not value.strip():
            raise Misconfigured([f"secret {where} is empty"])
        return Secret(value.strip())


def _references(value: object) -> object:
    """One reference or a list of them. What stands there instead is not repeated: it may be the secret itself."""
    listed = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, Mapping | Table) for item in listed):
        raise ValueError("a secret never stands here: write { credential = … }, { env = … } or { file = … }")
    return listed


SecretRefs = Annotated[tuple[SecretRef, ...], BeforeValidator(_references)]
