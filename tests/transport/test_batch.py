"""The end of a batch runs what was registered, once, in order, to the last."""

from pyjiva.transport import EndOfBatch


def test_actions_run_once_and_in_the_order_of_registration() -> None:
    batch, ran = EndOfBatch(), list[int]()
    for number in range(3):
        batch.at_end(lambda number=number: ran.append(number))  # type: ignore[misc]
    assert ran == []
    batch.end()
    batch.end()
    assert ran == [0, 1, 2]


def test_what_an_action_registers_runs_in_the_same_batch() -> None:
    batch, ran = EndOfBatch(), list[str]()

    def first() -> None:
        ran.append("first")
        batch.at_end(third)

    def third() -> None:
        ran.append("third")

    batch.at_end(first)
    batch.at_end(lambda: ran.append("second"))
    batch.end()
    assert ran == ["first", "second", "third"]


def test_an_action_may_end_the_batch_itself() -> None:
    batch, ran = EndOfBatch(), list[str]()

    def eager() -> None:
        batch.end()
        ran.append("eager")

    batch.at_end(eager)
    batch.at_end(lambda: ran.append("other"))
    batch.end()
    assert sorted(ran) == ["eager", "other"]


def test_who_sends_does_so_when_nobody_has_more_for_it() -> None:
    batch, ran = EndOfBatch(), list[str]()

    def send() -> None:
        ran.append("sent")
        if len(ran) < 5:
            batch.at_end(lambda: ran.append("afterthought"))
            batch.at_very_end(send)

    batch.at_very_end(send)
    batch.at_end(lambda: batch.at_end(lambda: ran.append("second")))
    batch.at_end(lambda: ran.append("first"))
    batch.end()
    assert ran == ["first", "second", "sent", "afterthought", "sent"]
