"""Calls operations through botocore, for TestBotocore.

Standard input holds {"url": ..., "calls": [{"service", "action", "params", "answer"}]}.
Each call is made with its parameters; standard output gets one JSON line for each:
{"sent": parameters, "got": answer, "want": answer}, or {"missing": true} for what this
botocore doesn't know, or demands more parameters for than AWS does by now. Members that its
models don't have are left out of all three.
Blobs are {"$blob": base64} and times {"$time": milliseconds}.
"""

import base64
import datetime
import json
import sys

import botocore.config
import botocore.session
import botocore.validate


def prune(shape, value):
    if shape.type_name == "structure":
        return {k: prune(shape.members[k], v) for k, v in value.items() if k in shape.members}
    if shape.type_name == "list":
        return [prune(shape.member, v) for v in value]
    if shape.type_name == "map":
        return {k: prune(shape.value, v) for k, v in value.items()}
    return value


def prune_sent(shape, value):
    """Leaves out also what has nothing left: it isn't sent."""
    if shape.type_name == "structure":
        kept = {k: prune_sent(shape.members[k], v) for k, v in value.items() if k in shape.members}
        return {k: v for k, v in kept.items() if v != {} or value[k] == {}}
    if shape.type_name == "list":
        kept = [(prune_sent(shape.member, v), v) for v in value]
        return [k for k, v in kept if k != {} or v == {}]
    if shape.type_name == "map":
        return {k: prune_sent(shape.value, v) for k, v in value.items()}
    return value


def revive(value):
    if isinstance(value, dict):
        if "$blob" in value:
            return base64.b64decode(value["$blob"])
        if "$time" in value:
            return datetime.datetime.fromtimestamp(value["$time"] / 1000, datetime.timezone.utc)
        return {k: revive(v) for k, v in value.items()}
    if isinstance(value, list):
        return [revive(v) for v in value]
    return value


def flatten(value):
    if isinstance(value, dict):
        return {k: flatten(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [flatten(v) for v in value]
    if isinstance(value, (bytes, bytearray)):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return {"$time": round(value.timestamp() * 1000)}
    if hasattr(value, "read"):
        return flatten(value.read())
    return value


def main():
    work = json.load(sys.stdin)
    session = botocore.session.Session()
    session.set_credentials("sandbox", "sandbox")
    config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=60)
    clients = {}
    stricter = set()  # operations: the answers to their calls would be those to others
    for call in work["calls"]:
        name = call["service"]
        if name not in clients:
            clients[name] = session.create_client(name, "eu-west-1", endpoint_url=work["url"], config=config)
        client = clients[name]
        if call["action"] in stricter or call["action"] not in client.meta.service_model.operation_names:
            print(json.dumps({"missing": True}), flush=True)
            continue
        model = client.meta.service_model.operation_model(call["action"])
        sent, want = call["params"], {}
        if model.input_shape is not None:
            sent = prune_sent(model.input_shape, sent)
            if botocore.validate.ParamValidator().validate(revive(sent), model.input_shape).has_errors():
                stricter.add(call["action"])
                print(json.dumps({"missing": True}), flush=True)
                continue
        if model.output_shape is not None:
            want = prune(model.output_shape, call["answer"])
        method = next(m for m, op in client.meta.method_to_api_mapping.items() if op == call["action"])
        got = getattr(client, method)(**revive(sent))
        got.pop("ResponseMetadata")
        print(json.dumps({"sent": sent, "got": flatten(got), "want": want}), flush=True)


main()
