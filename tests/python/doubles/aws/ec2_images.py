"""The machine images of Amazon that pinpipe and the tests ask for."""

import fnmatch
import hashlib

from .service import refuse

AMAZON = "137112412989"
RELEASES = {
    "amzn2-ami-kernel-5.10-hvm-2.0.{}.0-{}-gp2": ("20240109", "20240306", "20250610"),
    "amzn2-ami-hvm-2.0.{}.0-{}-gp2": ("20240131", "20250610"),
    "al2023-ami-2023.6.{}.0-kernel-6.1-{}": ("20241111", "20250519"),
}


def images_of(region):
    """Returns every image of a region, with its regional id."""
    for pattern, dates in RELEASES.items():
        for date in dates:
            for architecture in ("x86_64", "arm64"):
                name = pattern.format(date, architecture)
                mark = hashlib.sha256(f"{region} {name}".encode()).hexdigest()
                device = "/dev/xvda"
                yield {
                    "ImageId": f"ami-0{mark[:16]}",
                    "Name": name,
                    "CreationDate": f"{date[:4]}-{date[4:6]}-{date[6:]}T12:00:00.000Z",
                    "OwnerId": AMAZON,
                    "ImageOwnerAlias": "amazon",
                    "Public": True,
                    "State": "available",
                    "Architecture": architecture,
                    "ImageLocation": f"amazon/{name}",
                    "ImageType": "machine",
                    "RootDeviceType": "ebs",
                    "RootDeviceName": device,
                    "VirtualizationType": "hvm",
                    "Hypervisor": "xen",
                    "EnaSupport": True,
                    "SriovNetSupport": "simple",
                    "PlatformDetails": "Linux/UNIX",
                    "UsageOperation": "RunInstances",
                    "Description": f"Amazon Linux {name}",
                    "BlockDeviceMappings": [
                        {
                            "DeviceName": device,
                            "Ebs": {
                                "SnapshotId": f"snap-0{mark[16:32]}",
                                "VolumeSize": 8,
                                "VolumeType": "gp2",
                                "DeleteOnTermination": True,
                                "Encrypted": False,
                            },
                        }
                    ],
                }


def latest_image(region, alias):
    """Returns the newest image of a public parameter, such as `amzn2-ami-
    kernel-5.10-hvm-x86_64-gp2`.
    """
    pattern = (
        alias.replace("-kernel-default", "-*-kernel-6.1")
        .replace("hvm-x86_64", "hvm-*-x86_64")
        .replace("hvm-arm64", "hvm-*-arm64")
    )
    pattern = pattern.replace("al2023-ami-kernel", "al2023-ami-*-kernel")
    found = [image for image in images_of(region) if fnmatch.fnmatchcase(image["Name"], pattern)]
    return max(found, key=lambda image: image["CreationDate"])["ImageId"] if found else None


FILTERS = {
    "name": "Name",
    "architecture": "Architecture",
    "state": "State",
    "image-id": "ImageId",
    "owner-alias": "ImageOwnerAlias",
    "owner-id": "OwnerId",
    "virtualization-type": "VirtualizationType",
    "root-device-type": "RootDeviceType",
    "image-type": "ImageType",
    "hypervisor": "Hypervisor",
    "is-public": "Public",
    "creation-date": "CreationDate",
    "description": "Description",
    "ena-support": "EnaSupport",
}


def describe_images(region, parameters):
    """DescribeImages over the images of a region."""
    found = list(images_of(region))
    wanted = parameters.get("ImageIds")
    if wanted:
        known = {image["ImageId"] for image in found}
        for image_id in wanted:
            if image_id not in known:
                raise refuse("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
        found = [image for image in found if image["ImageId"] in wanted]
    owners = parameters.get("Owners")
    if owners:
        found = [image for image in found if {image["OwnerId"], "amazon"} & set(owners)]
    for each in parameters.get("Filters", []):
        if each["Name"] not in FILTERS and each["Name"] != "block-device-mapping.volume-type":
            raise refuse("InvalidParameterValue", f"The filter '{each['Name']}' is invalid")

        def value(image, each=each):
            if each["Name"] in FILTERS:
                return image[FILTERS[each["Name"]]]
            return image["BlockDeviceMappings"][0]["Ebs"]["VolumeType"]

        def text(image, value=value):
            found = value(image)
            return str(found).lower() if isinstance(found, bool) else found

        found = [
            image
            for image in found
            if any(fnmatch.fnmatchcase(text(image), pattern) for pattern in each["Values"])
        ]
    return {"Images": found}
