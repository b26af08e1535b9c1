"""Uploads as the API shows them."""

from rest_framework import serializers

from usage.models import Upload
from usage.upload_reading import undecided_columns
from usage.uploads import same_file_as


class UploadSerializer(serializers.ModelSerializer[Upload]):
    """An upload with its progress. `check` is what the dry run found, null before it."""

    id = serializers.CharField()
    usage_event = serializers.CharField(source="usage_event.slug")
    check = serializers.JSONField(source="check_result")
    undecided = serializers.SerializerMethodField()
    same_file_as = serializers.SerializerMethodField()
    columns = serializers.JSONField()
    mapping = serializers.JSONField()

    class Meta:
        model = Upload
        fields = [
            "id", "usage_event", "file_name", "format", "size", "sha256", "status", "stopped_because", "delimiter",
            "decimal", "thousands", "timezone", "columns", "mapping", "undecided", "same_file_as", "check", "rows_read",
            "accepted", "duplicates", "conflicts", "rejected", "bytes_done", "created_at", "started_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_undecided(self, upload: Upload) -> list[str]:
        return undecided_columns(upload)

    def get_same_file_as(self, upload: Upload) -> str | None:
        earlier = same_file_as(upload)
        return None if earlier is None else str(earlier.pk)
