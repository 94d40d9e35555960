"""Where batches are cut, and what happens to records that do not fit."""

import threading

import msgspec
import pytest
from hivemesh_sdk import FatalError, Raw, Record, Rejected
from hivemesh_sdk.contracts.steps import MAX_RECORD_BYTES, Limits
from hivemesh_sdk.worker.batches import MAX_REJECTED_HELD, Cutter, join_answers, read_batch, ticking
from hivemesh_sdk.worker.codec import Codec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel


class Item(Record):
    id: int
    text: str = ""


class Form(BaseModel):
    id: int


class Cuts:
    """A cutter and what it emitted."""

    def __init__(self, **limits):
        self.batches, self.rejected = [], []
        self.order = []
        self.cutter = Cutter(Limits(seconds=3600.0, **limits), self.take)

    def take(self, rejected, batch):
        self.rejected += rejected
        self.order += ["rejected"] * len(rejected)
        if batch is not None:
            self.batches.append(batch)
            self.order.append("records")

    def lines(self):
        return b"".join(batch.data for batch in self.batches).splitlines()


def test_a_batch_is_cut_by_count():
    cuts = Cuts(records=2)
    for number in range(5):
        cuts.cutter.add(Item(number), number)
    cuts.cutter.finish()
    assert [batch.count for batch in cuts.batches] == [2, 2, 1]
    assert [batch.checkpoint for batch in cuts.batches] == [b"1", b"3", b"4"]


def test_a_batch_is_cut_before_the_record_that_makes_it_too_large():
    cuts = Cuts(bytes=100)
    for number in range(3):
        cuts.cutter.add(Item(number, "x" * 40), number)
    cuts.cutter.finish()
    assert all(len(batch.data) <= 100 for batch in cuts.batches)
    assert [batch.checkpoint for batch in cuts.batches] == [b"0", b"1", b"2"]


def test_nothing_follows_a_batch_that_the_clock_could_not_emit():
    def refuse(_rejected, _batch):
        message = "a record holds a secret"
        raise FatalError(message)

    cutter, tried = Cutter(Limits(seconds=0.01), refuse), threading.Event()

    def tick():
        try:
            cutter.flush_due()
        except FatalError:
            tried.set()
            raise

    cutter._take(Item(1), 1)  # as `add`, which would find it due
    with ticking(tick, 0.01):
        assert tried.wait(60)
        with pytest.raises(FatalError, match="holds a secret"):
            cutter.add(Item(2), 2)
    with pytest.raises(FatalError, match="holds a secret"):
        cutter.finish()


def test_a_batch_is_cut_by_time():
    cuts = Cuts()
    cuts.cutter._limits = Limits(seconds=0.0)
    cuts.cutter.add(Item(1), 1)
    assert [batch.count for batch in cuts.batches] == [1]


def test_a_record_over_4_mib_is_rejected_and_reading_goes_on():
    cuts = Cuts()
    cuts.cutter.add(Item(1), 1)
    cuts.cutter.add(Item(2, "x" * MAX_RECORD_BYTES), 2)
    cuts.cutter.add(Item(3), 3)
    cuts.cutter.finish()
    assert [one.reason for one in cuts.rejected] == ["record-too-large"]
    assert cuts.batches[0].count == 2
    assert cuts.batches[0].checkpoint == b"3"


def test_a_record_that_cannot_be_written_is_rejected_where_it_stands():
    cuts = Cuts()
    for number, text in enumerate(["a", "caf\udce9", "b"]):
        cuts.cutter.add(Item(number, text), number)
    cuts.cutter.finish()
    assert [(one.reason, one.position) for one in cuts.rejected] == [("output-invalid", 1)]
    assert cuts.batches[0].data == b'{"id":0,"text":"a"}\n{"id":2,"text":"b"}\n'


def test_a_checkpoint_that_cannot_be_written_is_an_error():
    cuts = Cuts()
    with pytest.raises(FatalError, match="a checkpoint cannot be written"):
        cuts.cutter.add(Item(1), {"path": "caf\udce9"})
    cuts.cutter.add(Item(2), "caf\udce9")
    with pytest.raises(FatalError, match="a checkpoint cannot be written"):
        cuts.cutter.finish()


def test_rejected_records_come_before_the_checkpoint_that_covers_them():
    cuts = Cuts()
    cuts.cutter.add(Item(1), 1)
    cuts.cutter.add(Rejected("bad"), 2)
    cuts.cutter.finish()
    assert cuts.order == ["rejected", "records"]
    assert cuts.batches[0].checkpoint == b"2"


def test_rejected_records_alone_do_not_pile_up():
    cuts = Cuts()
    for number in range(MAX_REJECTED_HELD):
        cuts.cutter.add(Rejected("bad"), number)
    assert len(cuts.rejected) == MAX_REJECTED_HELD
    assert not cuts.batches


def test_a_checkpoint_may_change_after_it_was_given():
    cuts = Cuts()
    place = {"offset": 1}
    cuts.cutter.add(Item(1), place)
    place["offset"] = 2
    cuts.cutter.finish()
    assert cuts.batches[0].checkpoint == b'{"offset":1}'


def test_pydantic_records_are_written():
    cuts = Cuts()
    cuts.cutter.add(Form(id=1), 1)
    cuts.cutter.finish()
    assert cuts.batches[0].data == b'{"id":1}\n'


@pytest.mark.parametrize("record", [object(), Raw(b'{"a":\n1}')])
def test_what_is_no_line_of_json_is_an_error(record):
    with pytest.raises(FatalError):
        Cuts().cutter.add(record, 1)
    with pytest.raises(FatalError):
        join_answers([record], [0])


@given(
    st.lists(st.one_of(st.text(max_size=60), st.none()), max_size=60),
    st.integers(1, 20),
    st.integers(20, 400),
)
def test_no_record_is_lost_or_doubled_however_it_is_cut(texts, records, size):
    cuts = Cuts(records=records, bytes=size)
    for number, text in enumerate(texts):
        cuts.cutter.add(Rejected("bad") if text is None else Item(number, text), number)
    cuts.cutter.finish()
    found = [msgspec.json.decode(line, type=Item).text for line in cuts.lines()]
    assert found == [text for text in texts if text is not None]
    assert len(cuts.rejected) == texts.count(None)
    assert all(batch.count <= records for batch in cuts.batches)
    assert sum(batch.count for batch in cuts.batches) == len(found)


def test_lines_that_do_not_fit_are_named_by_number():
    data = b'{"id":1}\nnot json\n\n{"id":"x"}\n{"id":4}\n'
    records, positions, rejected = read_batch(Codec(Item), data)
    assert [one.id for one in records] == [1, 4]
    assert positions == [0, 4]
    assert [one.position for one in rejected] == [1, 3]
    assert "/id" in rejected[1].detail


def test_pydantic_records_are_read():
    records, _, rejected = read_batch(Codec(Form), b'{"id":1}\n{"id":"x"}\n')
    assert [one.id for one in records] == [1]
    assert "/id" in rejected[0].detail


def test_answers_keep_their_order_and_rejections_their_place():
    batch, rejected = join_answers([Item(1), Rejected("no"), Item(3)], [0, 2, 5])
    assert batch.data == b'{"id":1,"text":""}\n{"id":3,"text":""}\n'
    assert [one.position for one in rejected] == [2]


def test_an_answer_over_4_mib_is_rejected():
    batch, rejected = join_answers([Item(1), Item(2, "x" * MAX_RECORD_BYTES)], [0, 1])
    assert batch.count == 1
    assert [one.reason for one in rejected] == ["record-too-large"]


def test_answers_that_fit_no_page_are_an_error():
    with pytest.raises(FatalError, match="Artifact"):
        join_answers([Item(number, "x" * 4_000_000) for number in range(4)], range(4))


def test_an_answer_that_cannot_be_written_is_rejected_at_its_line():
    answers = [Item(1), Item(2, "caf\udce9"), Rejected("bad"), Item(4, "x" * MAX_RECORD_BYTES)]
    batch, rejected = join_answers(answers, [0, 3, 5, 7])
    assert batch.data == b'{"id":1,"text":""}\n'
    assert [(one.reason, one.position) for one in rejected] == [
        ("bad", 5),
        ("output-invalid", 3),
        ("record-too-large", 7),
    ]
