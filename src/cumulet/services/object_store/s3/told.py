"""How much S3's API takes here, as GET /info tells it (`s3api`)."""

MAX_KEYS = 1000
"""Entries of a listing."""
MAX_PARTS_LISTED = 1000
MAX_PART_NUMBER = 10_000
"""Parts of an upload."""
MAX_DELETES = 1000
"""Objects that are deleted by one request."""
SMALLEST_PART = 5 * 2**20
"""Bytes of each part but the last."""
LONGEST_KEY = 1024
"""Bytes of a key in UTF-8."""
TOLD = {
    "max_bucket_listing": MAX_KEYS,
    "max_parts_listing": MAX_PARTS_LISTED,
    "max_upload_part_num": MAX_PART_NUMBER,
    "max_multi_delete_objects": MAX_DELETES,
    "allow_multipart_uploads": True,
    "min_segment_size": SMALLEST_PART,
}
