"""Frames to replicas and their answers become spans of the request that they are for."""

from pyjiva.block import Sampler, Span, Write
from pyjiva.controller.traced_links import TracedLinks
from pyjiva.replication import Frame, FrameType, RequestFrame, Status, encode_done
from pyjiva.replication.frame import ANSWER


class Link:
    def __init__(self) -> None:
        self.sent: list[RequestFrame] = []

    def send(self, frame: RequestFrame) -> None:
        self.sent.append(frame)


def answer(request_id: int, code: int = Status.OK) -> Frame:
    return Frame(FrameType.WRITE | ANSWER, code, request_id, 1, 0, 512, 0, memoryview(b""))


def test_each_replica_has_a_span_until_it_answers_is_lost_or_refuses() -> None:
    now = [0]
    taken: list[Span] = []
    sampler = Sampler(lambda: now[0], 1, lambda: 0.5, lambda span, _: taken.append(span))
    requests: dict[int, Write] = {}
    links = TracedLinks(sampler, requests.get)
    wires = {member: Link() for member in (1, 2, 3)}
    members = {member: links.link(member, wire) for member, wire in wires.items()}
    other, own = Write(0, 512, [], lambda _: None), Write(0, 512, [], lambda _: root.end())
    requests |= {7: other, 8: own}
    frames = {id_: RequestFrame(FrameType.WRITE, id_, 1, 0, 0, 512) for id_ in (7, 8, 9)}
    members[1].send(frames[7])
    root = sampler.begin("WRITE(10)")
    sampler.follow(own, "write", root)
    for member in members.values():
        for frame in frames.values():  # 9 is a ping: nobody waits for it
            member.send(frame)
    assert wires[2].sent == list(frames.values())
    links.answered(2, answer(7))
    now[0] = 10
    links.answered(1, answer(8))
    now[0] = 20
    links.lost(2, "no answer for 4.0 s")
    members[2].send(frames[8])  # it is back, and gets it again
    now[0] = 30
    links.answered(2, answer(8))
    links.answered(3, answer(8, Status.NO_SPACE))
    own.done(own)
    (request,) = taken[0].children
    assert [(s.name, s.begin_ns, s.end_ns, s.error) for s in request.children] == [
        ("replica 1", 0, 10, ""),
        ("replica 2", 0, 20, "lost: no answer for 4.0 s"),
        ("replica 3", 0, 30, "it answered NO_SPACE"),
        ("replica 2", 20, 30, ""),
    ]
    assert request.children[0].attributes == {"pyjiva.replica": 1, "pyjiva.operation": "write"}
    assert not sampler.parts and not sampler.requests


def test_a_frame_that_answers_many_ends_the_spans_of_all() -> None:
    now = [0]
    taken: list[Span] = []
    sampler = Sampler(lambda: now[0], 1, lambda: 0.5, lambda span, _: taken.append(span))
    requests: dict[int, Write] = {}
    links = TracedLinks(sampler, requests.get)
    member = links.link(1, Link())
    for id_ in (7, 8):
        root = sampler.begin("WRITE(10)")
        requests[id_] = write = Write(0, 512, [], lambda _, root=root: root.end())  # type: ignore[misc]
        sampler.follow(write, "write", root)
        member.send(RequestFrame(FrameType.WRITE, id_, 1, 0, 0, 512))
    now[0] = 10
    links.answered(1, Frame(FrameType.DONE, Status.OK, 0, 1, 0, 0, 0, memoryview(encode_done((7, 8, 9)))))
    now[0] = 20
    for write in requests.values():
        write.done(write)
    assert [span.children[0].children[0].end_ns for span in taken] == [10, 10]
    assert not sampler.parts and not sampler.requests
