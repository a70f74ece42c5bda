"""Reads messages as a consumer with the CloudEvents SDK of Python does: see README.md."""

import base64
import json
import sys

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat


def read(message):
    headers = {name: value.encode() for name, value in message["headers"].items()}
    event = from_kafka(KafkaMessage(headers, message["key"].encode(), base64.b64decode(message["value"])), JSONFormat())
    attributes = event.get_attributes()
    data = event.get_data()
    if attributes["datacontenttype"] == "application/json" and isinstance(data, str) and "ce_id" in headers:
        # What cannot be parsed is handed over as a text; so is a JSON text that is a string.
        assert data == json.loads(base64.b64decode(message["value"])), "data that is no JSON"
    return {name: value for name, value in attributes.items() if isinstance(value, (str, bool))}


for line in sys.stdin:
    try:
        answer = {"attributes": read(json.loads(line))}
    except Exception as error:
        answer = {"refused": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(answer), flush=True)
