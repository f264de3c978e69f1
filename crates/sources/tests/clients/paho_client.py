"""Eclipse Paho against the broker on port argv[1]: ends with 0 when everything is as the standards say."""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT = int(sys.argv[1])
V3, V5 = mqtt.MQTTv311, mqtt.MQTTv5


class Client:
    def __init__(self, name, version, clean=True, expiry=0, receive_maximum=None, will=None):
        kind = mqtt.CallbackAPIVersion.VERSION2
        session = {} if version == V5 else {"clean_session": clean}
        self.client = mqtt.Client(kind, client_id=name, protocol=version, **session)
        self.messages, self.connected, self.subscribed = queue.Queue(), threading.Event(), queue.Queue()
        self.client.on_message = lambda client, data, message: self.messages.put(message)
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self.subscribed.put(codes)
        if will:
            self.client.will_set(*will)
        options = {}
        if version == V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            if receive_maximum:
                properties.ReceiveMaximum = receive_maximum
            options = {"clean_start": clean, "properties": properties}
        self.client.max_inflight_messages_set(40)
        self.client.connect("127.0.0.1", PORT, keepalive=30, **options)
        self.client.loop_start()
        assert self.connected.wait(20), "no CONNACK"

    def _connected(self, client, data, flags, reason, properties):
        assert not reason.is_failure, reason
        self.session_present, self.properties = flags.session_present, properties
        self.connected.set()

    def subscribe(self, *arguments, **named):
        self.client.subscribe(*arguments, **named)
        return [int(code.value) for code in self.subscribed.get(timeout=20)]

    def publish(self, topic, text, qos=1, **named):
        self.client.publish(topic, text, qos, **named).wait_for_publish(20)

    def next(self):
        return self.messages.get(timeout=20)

    def silent(self):
        try:
            message = self.messages.get(timeout=0.3)
        except queue.Empty:
            return
        raise AssertionError(f"unexpected {message.topic}")

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


for version in (V3, V5):
    # Many publishes under way at once, recorded once and in order.
    device = Client(f"device-{version}", version)
    for qos in (1, 2):
        sent = [device.client.publish(f"record/{version}/{qos}", str(number), qos) for number in range(200)]
        for one in sent:
            one.wait_for_publish(20)
            assert one.is_published()
    device.leave()

    # A session keeps its messages, of both qualities of service, and gives them once.
    name = f"absent-{version}"
    absent = Client(name, version, clean=False, expiry=600)
    assert not absent.session_present
    assert absent.subscribe("later/#", 2) == [2]
    absent.leave()
    other = Client(f"other-{version}", version)
    for number in range(20):
        other.publish("later/x", str(number), qos=1 + number % 2)
    absent = Client(name, version, clean=False, expiry=600)
    assert absent.session_present
    later = [absent.next() for _ in range(20)]
    # Paho hands a message of QoS 2 over when its handshake is complete, so each quality has an order of its own.
    for qos in (1, 2):
        found = [message.payload for message in later if message.qos == qos]
        assert found == [str(number).encode() for number in range(qos - 1, 20, 2)], found
    absent.silent()
    absent.leave()

    # Overlapping subscriptions give a message once, with the better quality; retained ones come with the flag.
    other.publish("kept/x", "value", retain=True)
    assert other.subscribe([("kept/+", 0), ("kept/#", 1)] if version == V3 else [
        ("kept/+", SubscribeOptions(0)), ("kept/#", SubscribeOptions(1))]) == [0, 1]
    first = other.next()
    assert first.retain and first.payload == b"value"
    while not other.messages.empty():
        other.next()
    other.publish("kept/y", "live")
    live = [other.next()]
    while live[-1].topic != "kept/y":
        live.append(other.next())
    assert live[-1].qos == 1 and not live[-1].retain
    other.silent()
    other.publish("kept/x", "", retain=True)
    other.leave()

    # Taking over: the second connection of a name ends the first.
    one = Client(f"same-{version}", version)
    gone = threading.Event()
    one.client.on_disconnect = lambda *arguments: gone.set()
    one.client.reconnect_delay_set(60, 60)
    two = Client(f"same-{version}", version)
    assert gone.wait(20)
    two.leave()
    one.client.loop_stop()

# Version 5 alone.
requester = Client("requester", V5, receive_maximum=3)
assert requester.properties.ReceiveMaximum == 50 and requester.properties.TopicAliasMaximum > 0
assert requester.subscribe("answers/#", options=SubscribeOptions(1, noLocal=True)) == [1]
requester.publish("answers/own", "not for me")
requester.silent()
responder = Client("responder", V5)
marked = Properties(PacketTypes.SUBSCRIBE)
marked.SubscriptionIdentifier = 7
assert responder.subscribe("questions", options=SubscribeOptions(1), properties=marked) == [1]
asking = Properties(PacketTypes.PUBLISH)
asking.ResponseTopic, asking.CorrelationData = "answers/1", b"\x00\x01"
asking.UserProperty = [("a", "1"), ("a", "2")]
requester.publish("questions", "?", properties=asking)
question = responder.next()
assert question.properties.SubscriptionIdentifier == [7]
assert question.properties.UserProperty == [("a", "1"), ("a", "2")]
answering = Properties(PacketTypes.PUBLISH)
answering.CorrelationData = question.properties.CorrelationData
for number in range(50):
    responder.publish(question.properties.ResponseTopic, str(number), properties=answering)
answers = [requester.next() for _ in range(50)]
assert [answer.payload for answer in answers] == [str(number).encode() for number in range(50)]
assert answers[0].properties.CorrelationData == b"\x00\x01"

# Topic aliases.
alias = Properties(PacketTypes.PUBLISH)
alias.TopicAlias = 3
responder.publish("answers/alias", "named", properties=alias)
assert requester.next().topic == "answers/alias"
responder.publish("", "by alias", properties=alias)
found = requester.next()
assert (found.topic, found.payload) == ("answers/alias", b"by alias")

# Retain handling: 2 asks for none, 1 only for a new subscription.
responder.publish("kept/z", "value", retain=True)
assert requester.subscribe("kept/z", options=SubscribeOptions(1, retainHandling=2)) == [1]
requester.silent()
assert requester.subscribe("kept/+", options=SubscribeOptions(1, retainHandling=1, retainAsPublished=True)) == [1]
assert requester.next().retain
assert requester.subscribe("kept/+", options=SubscribeOptions(1, retainHandling=1, retainAsPublished=True)) == [1]
requester.silent()
responder.publish("kept/z", "", retain=True)
assert requester.next().retain, "retain as published"

# A delayed will is not published when its client comes back in time.
watcher = Client("watcher", V5)
watcher.subscribe("will/#", options=SubscribeOptions(1))
for name, delay, comes_back in (("dies", 1, False), ("returns", 3, True)):
    doomed = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=V5)
    waits = Properties(PacketTypes.WILLMESSAGE)
    waits.WillDelayInterval = delay
    doomed.will_set(f"will/{name}", "gone", 1, False, waits)
    keeps = Properties(PacketTypes.CONNECT)
    keeps.SessionExpiryInterval = 60
    ready = threading.Event()
    doomed.on_connect = lambda *arguments: ready.set()
    doomed.connect("127.0.0.1", PORT, properties=keeps)
    doomed.loop_start()
    assert ready.wait(20)
    doomed._sock.close()
    doomed.loop_stop()
    if comes_back:
        back = Client(name, V5, clean=False, expiry=60)
        assert back.session_present
        watcher.silent()
        back.leave()
    else:
        watcher.silent()
        assert watcher.next().topic == f"will/{name}"
for client in (requester, responder, watcher):
    client.leave()
