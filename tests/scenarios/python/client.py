"""Makes all six calls of a Hostel node with a client that grpcio generated from the original proto
text, and uses the health and reflection services with their standard Python packages.

Usage: client.py HOST:PORT, with the generated modules in PYTHONPATH."""

import queue
import sys
import time

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import service_pb2 as pb
import service_pb2_grpc as rpc

# The timeout of a call, in seconds.
TIMEOUT = 120


def main(address):
    with grpc.insecure_channel(address) as channel:
        node = rpc.DistributedServiceStub(channel)
        services(node, address)
        tasks(node)
        messages(node)
        health(channel)
        reflection(channel)
    print("all six calls answer")


def services(node, address):
    request = pb.RegisterRequest(
        node_id="py-1", service_name="py", address="10.0.0.9:1", metadata={"lang": "python"}
    )
    answer = node.Register(request, timeout=TIMEOUT)
    assert answer.success and answer.cluster_id, answer
    found = node.Discover(pb.DiscoverRequest(service_name="py"), timeout=TIMEOUT).nodes
    expected = pb.Node(node_id="py-1", address="10.0.0.9:1", metadata={"lang": "python"})
    assert list(found) == [expected], found
    found = node.Discover(pb.DiscoverRequest(service_name="distributed_node"), timeout=TIMEOUT)
    assert [n.address for n in found.nodes] == [address], found


def tasks(node):
    payload = bytes(range(256)) * 100
    submitted = node.SubmitTask(
        pb.Task(task_type="echo", payload=payload, metadata={"from": "python"}), timeout=TIMEOUT
    )
    assert submitted.accepted and submitted.task_id, submitted
    status = ended(node, submitted.task_id)
    assert status.status == "completed", status
    assert status.result == payload, len(status.result)

    named = pb.Task(task_id="py:1", task_type="echo", payload=b"same")
    for _ in range(2):
        again = node.SubmitTask(named, timeout=TIMEOUT)
        assert again.accepted and again.task_id == "py:1", again
    assert ended(node, "py:1").result == b"same"

    refused(grpc.StatusCode.FAILED_PRECONDITION, node.SubmitTask, pb.Task(task_type="nothing"))
    refused(grpc.StatusCode.INVALID_ARGUMENT, node.SubmitTask, pb.Task(task_type="no type"))
    other = pb.Task(task_id="py:1", task_type="echo", payload=b"other")
    refused(grpc.StatusCode.ALREADY_EXISTS, node.SubmitTask, other)
    refused(grpc.StatusCode.NOT_FOUND, node.GetTaskStatus, pb.TaskStatusRequest(task_id="nobody"))


def ended(node, task_id):
    """Polls until the task has ended: the original request has no field to wait."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        status = node.GetTaskStatus(pb.TaskStatusRequest(task_id=task_id), timeout=TIMEOUT)
        assert status.task_id == task_id, status
        if status.status not in ("pending", "running"):
            return status
        time.sleep(0.01)
    raise AssertionError(f"{task_id} never ended")


def refused(code, call, request):
    try:
        answer = call(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        assert error.code() == code, error
    else:
        raise AssertionError(f"expected {code}, got {answer}")


def messages(node):
    nobody = pb.Message(from_node="py", to_node="nobody", payload=b"?", message_type="note")
    assert not node.SendMessage(nobody, timeout=TIMEOUT).success

    outgoing = queue.Queue()
    stream = node.StreamMessages(iter(outgoing.get, None), timeout=TIMEOUT)
    # The first message sets the sender, whose topic the stream subscribes to.
    outgoing.put(pb.Message(from_node="py", payload=b"hello", message_type="note"))
    hello = next(stream)
    hello.DiscardUnknownFields()
    assert hello == pb.Message(
        from_node=hello.from_node, to_node="py", payload=b"hello", message_type="response"
    ), hello
    assert hello.from_node == "test", hello

    # A message of another sender.
    sent = pb.Message(from_node="other", to_node="py", payload=b"news", message_type="note")
    assert node.SendMessage(sent, timeout=TIMEOUT).success
    delivered = next(stream)
    delivered.DiscardUnknownFields()
    assert delivered == sent, delivered

    # Messages to itself: each has one delivery and exactly one response.
    count = 100
    for number in range(count):
        payload = str(number).encode()
        outgoing.put(pb.Message(from_node="py", to_node="py", payload=payload, message_type="note"))
    outgoing_ended = False
    responses, deliveries = [], []
    for message in stream:
        heard = responses if message.message_type == "response" else deliveries
        heard.append(int(message.payload))
        if len(responses) + len(deliveries) == 2 * count and not outgoing_ended:
            # Closing the outgoing side ends the stream; additional messages would still be in it.
            outgoing_ended = True
            outgoing.put(None)
    assert responses == list(range(count)), responses
    assert deliveries == list(range(count)), deliveries


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "distributed.DistributedService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, answer)
    unknown = health_pb2.HealthCheckRequest(service="nothing")
    refused(grpc.StatusCode.NOT_FOUND, stub.Check, unknown)


def reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    names = database.get_services()
    for name in ("distributed.DistributedService", "hostel.v1.TaskService", "grpc.health.v1.Health"):
        assert name in names, names
    pool = DescriptorPool(database)
    served = pool.FindServiceByName("distributed.DistributedService")
    original = pb.DESCRIPTOR.services_by_name["DistributedService"]
    assert [m.name for m in served.methods] == [m.name for m in original.methods]
    # Compatible: every original field keeps its number and its name.
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        ours = pool.FindMessageTypeByName(message.full_name)
        for field in message.fields:
            same = ours.fields_by_number[field.number]
            assert (same.name, same.type) == (field.name, field.type), field.full_name


if __name__ == "__main__":
    main(sys.argv[1])
