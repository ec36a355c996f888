"""The settings of image."""

from pathlib import Path
from typing import Annotated, Literal

from cumulet.config.identity import IdentitySettings
from cumulet.config.words import says


class ImageSettings(IdentitySettings, frozen=True, kw_only=True):
    """What image is told."""

    image_metadefs: Annotated[
        Path | None,
        says(
            "A directory of JSON files with metadata definitions in upstream's form, made at a start where missing.",
            "none are made",
        ),
    ] = None
    image_property_protections: Annotated[
        Path | None,
        says(
            "The file that says who may create, read, update and delete which custom properties of images.",
            "nothing is protected",
        ),
    ] = None
    image_property_protection_format: Annotated[
        Literal["roles", "policies"], says("What that file names: roles, or rules of policy.")
    ] = "roles"
    image_locations: Annotated[
        bool,
        says("Show where images' data lies, and let their owners change it (upstream's `show_multiple_locations`)."),
    ] = False
    image_web: Annotated[
        bool,
        says("Let images lie at http and https URLs that their owners name, wherever images may be fetched from."),
    ] = False
    image_stores: Annotated[
        str,
        says(
            "The stores of images' data, separated by commas: NAME, NAME=DIRECTORY, NAME=object-store. The first takes data "
            "for which no store is named.",
            "`file`, the directory `image` in the data directory",
        ),
    ] = "file"
    image_segment_size: Annotated[
        int,
        says("The largest piece in which images are kept in object storage, in MiB.", ge=1, le=5120),
    ] = 1024
    image_staging: Annotated[
        Path | None,
        says("The directory where data waits to be imported.", "`image-staging` in the data directory"),
    ] = None
    image_size_limit: Annotated[int, says("The largest image that is taken, in GiB.", ge=1, le=1 << 30)] = 1024
    image_virtual_size_limit: Annotated[
        int, says("The largest disk that the data of an image may make for a server, in GiB.", ge=1, le=1 << 32)
    ] = 65536
    image_format_match: Annotated[
        bool,
        says("Refuse data of images that is not of the disk format that was told; what is unsafe is always refused."),
    ] = True
    image_signature_certificates: Annotated[
        Path | None,
        says(
            "The directory of certificates (`<uuid>.pem`) that signed images are verified with.", "nothing is verified"
        ),
    ] = None
    image_cache: Annotated[
        int,
        says("How much room copies of images that lie elsewhere may take on this host, in GiB; 0: no cache.", ge=0),
    ] = 0
    image_import_methods: Annotated[
        str,
        says("The ways of importing images that are offered, separated by commas.", "all"),
    ] = "glance-direct,web-download,copy-image,glance-download"
    image_download_hosts: Annotated[
        str,
        says("The only hosts that images are fetched from, separated by commas.", "any host with public addresses"),
    ] = ""
    image_download_ports: Annotated[
        str, says("The only ports that images are fetched from, separated by commas; `*` is any.")
    ] = "80,443"
    image_download_private: Annotated[
        str,
        says(
            "Networks (10.0.0.0/8, fd00::/8), separated by commas, that images are fetched from although they are private.",
            "none",
        ),
    ] = ""
    image_conversion: Annotated[
        Literal["none", "raw", "qcow2"], says("The format that imported disks are converted to.")
    ] = "none"
    image_decompression: Annotated[
        bool, says("Unpack imported images whose container format is `compressed` (gzip, or zip with one file).")
    ] = False
    image_inject: Annotated[
        str,
        says(
            "Custom properties (name:value), separated by commas, that images get which anybody but an admin imports.",
            "none",
        ),
    ] = ""
