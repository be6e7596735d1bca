"""S3 buckets: as much as a state bucket and weights of models need."""

from __future__ import annotations

import re

from rehearsal.providers.aws.call import ApiError, Call
from rehearsal.providers.aws.kinds import tagged
from rehearsal.providers.cloud.kinds import Kind
from rehearsal.providers.cloud.values import always, at, fields

# Amazon's rules for names (docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html).
_NAME = re.compile(
    r"(?!xn--|sthree-|amzn-s3-demo-)[a-z0-9]([a-z0-9.-]{1,61})[a-z0-9](?<!-s3alias)(?<!--ol-s3)"
)
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


def _name_is_valid(call: Call) -> None:
    name = call.inputs["bucket"]
    if not _NAME.fullmatch(name) or ".." in name or _ADDRESS.fullmatch(name):
        raise ApiError("InvalidBucketName", "The specified bucket is not valid.")


KINDS = (
    Kind(
        token="aws:s3/bucket:Bucket",
        title="Bucket",
        identity=at("{name}"),
        named="bucket",
        defaults={"forceDestroy": False},
        outputs={
            **tagged(),
            "arn": at("arn:aws:s3:::{name}"),
            "bucketDomainName": at("{name}.s3.amazonaws.com"),
            "bucketRegion": lambda call: call.region,
            "bucketRegionalDomainName": at("{name}.s3.{region}.amazonaws.com"),
            "hostedZoneId": always("Z3AQBSTGFYJSTF"),
            "requestPayer": always("BucketOwner"),
            "objectLockEnabled": always(False),
            "accelerationStatus": always(""),
            "bucketPrefix": always(""),
            "websiteDomain": always(""),
            "websiteEndpoint": always(""),
        },
        force_new=fields("bucket", "bucketNamespace", "bucketPrefix", "objectLockEnabled", "region"),
        anew=fields("tagsAll"),
        checks=(_name_is_valid,),
    ),
)
