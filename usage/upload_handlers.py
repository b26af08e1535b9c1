"""How files arrive in forms: on disk, never in memory, and refused while they arrive once they are over the limit."""

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import TemporaryFileUploadHandler


class LimitedUploadHandler(TemporaryFileUploadHandler):
    """Raises RequestDataTooBig beyond UPLOAD_MAX_BYTES; what had come until then is removed."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if start + len(raw_data) > settings.UPLOAD_MAX_BYTES:
            self.file.close()
            raise RequestDataTooBig(f"A file of at most {settings.UPLOAD_MAX_BYTES} bytes is taken.")
        super().receive_data_chunk(raw_data, start)
