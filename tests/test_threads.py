"""What the tests with threads rest on: failures show, and nothing hangs for good."""

import threading

import pytest
from django.db import connection, transaction

from customers.models import Organisation
from tests.threads import run_together


def test_the_first_failure_is_raised(transactional_db: None) -> None:
    with pytest.raises(ZeroDivisionError):
        run_together(lambda: None, lambda: 1 // 0)  # type: ignore[arg-type]


def test_a_lock_that_nobody_gives_back_fails_the_test_and_no_other(organisation: Organisation) -> None:
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Organisation.objects.select_for_update().get()
            held.set()
            released.wait(30)

    def want() -> None:
        held.wait(10)
        Organisation.objects.update(name="Another name")

    with pytest.raises(AssertionError, match=r"2 of 2 jobs did not end in 0.5 s") as refused:
        run_together(hold, want, seconds=0.5)

    released.set()

    assert "in hold" in str(refused.value)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '5s'")
        Organisation.objects.update(name="Nobody holds it")
        cursor.execute("RESET lock_timeout")
    assert Organisation.objects.get().name == "Nobody holds it"
