"""A store of backups in a bucket of S3, or of a server that speaks its protocol.  Blocking calls only.

Credentials, region and endpoint come from where every AWS tool takes them (environment, files, the machine's
role), unless the operator gives an endpoint.  Only PutObject, GetObject, ListObjectsV2 and DeleteObject are
used, without checksums that not every server knows: the objects carry their own
(docs/reference/backup-format.md).
"""

from collections.abc import Iterator
from typing import Any, Final, Self

import attrs
import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pyjiva.backup.objects import KEY_PATTERN, Listed, MissingError
from pyjiva.errors import BackupError, ConfigError

__all__ = ["S3Objects"]

TIMEOUT_S: Final = 60
ATTEMPTS: Final = 6  # with pauses that double up to 20 s (botocore's "standard" retries): a minute in all
CONNECTIONS: Final = 16
_ABSENT: Final = ("NoSuchKey", "404")
_TAKEN: Final = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_NOT_KNOWN: Final = ("NotImplemented", "501")


@attrs.define(eq=False)
class S3Objects:
    """The objects of `bucket` whose keys begin with `prefix` ("" or one that ends with `/`)."""

    bucket: str
    prefix: str
    _client: Any

    @classmethod
    def open(cls, address: str, endpoint: str | None = None) -> Self:
        """Those at `s3://BUCKET[/PREFIX]`; nothing is asked yet.  Raises ConfigError: no such address."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        prefix = prefix.strip("/")
        if not bucket or (prefix and KEY_PATTERN.fullmatch(prefix) is None):
            raise ConfigError(f"store {address!r}: write s3://BUCKET or s3://BUCKET/PREFIX")
        config = Config(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # A session of our own: boto3's keeps the credentials that it found first for the whole process.
            client = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"store {address}: {error}") from error
        return cls(bucket, f"{prefix}/" if prefix else "", client)

    @property
    def name(self) -> str:
        """See Objects."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def put(self, key: str, content: bytes) -> None:
        """See Objects."""
        try:
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=content)
        except (ClientError, BotoCoreError) as error:
            raise self._error(error, f"put {key}") from error

    def put_new(self, key: str, content: bytes) -> bool:
        """See Objects.  Servers without `If-None-Match` may say so or not: so looked before, too."""
        if any(listed.key == key for listed in self.list(key)):
            return False
        try:
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=content, IfNoneMatch="*")
        except (ClientError, BotoCoreError) as error:
            if _code(error) in _TAKEN:
                return False
            if _code(error) not in _NOT_KNOWN:
                raise self._error(error, f"put {key}") from error
            self.put(key, content)
        return True

    def get(self, key: str) -> bytes:
        """See Objects."""
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
            content: bytes = answer["Body"].read()
        except (ClientError, BotoCoreError) as error:
            if _code(error) in _ABSENT:
                raise MissingError(f"{self.name}: {key} is missing") from error
            raise self._error(error, f"get {key}") from error
        return content

    def list(self, prefix: str) -> Iterator[Listed]:
        """See Objects.  A thousand for each request."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        try:
            for page in pages:
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self.prefix)
                    yield Listed(key, found["Size"], found["LastModified"].timestamp())
        except (ClientError, BotoCoreError) as error:
            raise self._error(error, f"list {prefix}") from error

    def delete(self, key: str) -> None:
        """See Objects.  One by one: DeleteObjects asks for checksums on which servers do not agree."""
        try:
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))
        except (ClientError, BotoCoreError) as error:
            if _code(error) not in _ABSENT:
                raise self._error(error, f"delete {key}") from error

    def _key(self, key: str) -> str:
        assert KEY_PATTERN.fullmatch(key), key
        return self.prefix + key

    def _error(self, error: Exception, what: str) -> BackupError:
        return BackupError(f"{self.name}: cannot {what}: {error}")


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
