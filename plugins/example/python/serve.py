"""Serves a plugin to gild, from plugin.proto alone.

The proto's first comment tells what a plugin does with its environment and its standard
output; this file does it. protoc makes the messages (plugin_pb2.py). The services are
made here from the descriptions that come with them, so no other generator is needed.
"""

import base64
import concurrent.futures
import datetime
import json
import os
import signal
import sys
import threading

import grpc
from google.protobuf import descriptor_pb2

import plugin_pb2 as pb

# How many calls are served side by side.
CALLS = 64
# The most that is taken of what a command on the machine says, in bytes.
MOST_OUTPUT = 4 << 20


class Failed(Exception):
    """The step failed; trying again may help."""

    kind = pb.Failure.FAILED
    checks = ()


class TestFailed(Failed):
    """The image isn't as it should be: checks lists what isn't."""

    kind = pb.Failure.TEST_FAILED

    def __init__(self, checks):
        super().__init__("; ".join(checks))
        self.checks = checks


class Cancelled(Failed):
    """The step stopped because it was asked to."""

    kind = pb.Failure.CANCELLED


def methods(service):
    """Yields name, request class, response class and the two streaming flags."""
    proto = descriptor_pb2.ServiceDescriptorProto()
    pb.DESCRIPTOR.services_by_name[service].CopyToProto(proto)
    for m in proto.method:
        types = (getattr(pb, t.rsplit(".", 1)[1]) for t in (m.input_type, m.output_type))
        yield (m.name, *types, m.client_streaming, m.server_streaming)


def stub(channel, service):
    """Returns an object with a function for each method of a service of gild's."""
    calls = type(service, (), {})()
    for name, request, response, up, down in methods(service):
        make = getattr(channel, f"{'stream' if up else 'unary'}_{'stream' if down else 'unary'}")
        setattr(calls, name, make(f"/{pb.DESCRIPTOR.package}.{service}/{name}",
                                  request_serializer=request.SerializeToString,
                                  response_deserializer=response.FromString))
    return calls


class Target:
    """What a running step works on. One call at a time, as with every machine."""

    def __init__(self, request):
        self._channel = grpc.insecure_channel("unix:" + request.host_address)
        self._machine, self._host = stub(self._channel, "Machine"), stub(self._channel, "Host")
        self._token = (("gild-token", request.host_token),)
        self._lock, self._call, self.cancelled = threading.Lock(), None, False

    def close(self):
        self._channel.close()

    def cancel(self):
        """Ends the call under way, and all later ones."""
        with self._lock:
            self.cancelled = True
            if self._call:
                self._call.cancel()

    def _start(self, make):
        with self._lock:
            if self.cancelled:
                raise Cancelled("the step was asked to stop")
            self._call = make()
            return self._call

    def _ask(self, method, request):
        call = self._start(lambda: method.future(request, metadata=self._token))
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise Cancelled("the step was asked to stop") from None
        except grpc.RpcError as err:
            raise Failed(err.details()) from err

    def exec(self, argv):
        """Runs a command on the machine: exit status, standard output and error as text."""
        start = pb.ExecRequest(start=pb.ExecStart(argv=argv))
        call = self._start(lambda: self._machine.Exec(iter([start]), metadata=self._token))
        status, out = None, {"stdout": bytearray(), "stderr": bytearray()}
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "status":
                    status = response.status
                else:
                    out[kind] += getattr(response, kind)
                if sum(map(len, out.values())) > MOST_OUTPUT:
                    call.cancel()
                    raise Failed(f"{argv[0]} says more than {MOST_OUTPUT} bytes")
        except grpc.RpcError as err:
            if self.cancelled:
                raise Cancelled("the step was asked to stop") from None
            raise Failed(err.details()) from err
        if status is None:
            raise Failed(f"{argv[0]}: gild didn't say how it ended")
        return status, *(b.decode("utf-8", "replace") for b in out.values())

    def claim(self, kind, id, note):
        """Records a resource. Only then may it be made."""
        resource = pb.Resource(kind=kind, id=id, note=note)
        return self._ask(self._host.Claim, pb.ClaimRequest(resource=resource)).claim

    def settle(self, claim):
        self._ask(self._host.Settle, pb.SettleRequest(claim=claim))

    @staticmethod
    def log(text):
        return pb.RunEvent(log=text.encode())

    @staticmethod
    def progress(done, total, unit):
        return pb.RunEvent(progress=pb.Progress(done=done, total=total, unit=unit))


class StepPlugin:
    """The service StepPlugin, for a plugin whose steps share their functions."""

    def __init__(self, description, validate, run, cleanup):
        for step in description.steps:
            step.cleans = cleanup is not None
        self._description, self._validate, self._run, self._cleanup = description, validate, run, cleanup
        self._lock, self._runs, self._early = threading.Lock(), {}, set()

    def Describe(self, request, context):
        return self._description

    def _config(self, request, context):
        """Returns the configuration of a step that there is."""
        if all(step.name != request.step for step in self._description.steps):
            context.abort(grpc.StatusCode.NOT_FOUND, f"the plugin has no step {request.step!r}")
        try:
            config = json.loads(request.config)
        except ValueError as err:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the configuration is no JSON: {err}")
        if not isinstance(config, dict):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the configuration is no object")
        return config

    def Validate(self, request, context):
        config = self._config(request, context)
        return pb.ValidateResponse(diagnostics=self._validate(request.step, config))

    def KeyParts(self, request, context):
        self._config(request, context)
        return pb.KeyPartsResponse()

    def Run(self, request, context):
        config = self._config(request, context)
        target = Target(request)
        with self._lock:
            self._runs[request.call_id] = target
            # Calls come side by side: Cancel may have been faster.
            if request.call_id in self._early:
                self._early.remove(request.call_id)
                target.cancel()
        # gild may also just end the call.
        context.add_callback(target.cancel)
        try:
            outputs = yield from self._run(request, config, target)
            yield pb.RunEvent(result=pb.Result(outputs=json.dumps(outputs).encode()))
        except Exception as err:  # what went wrong is told, whatever it was
            yield pb.RunEvent(result=pb.Result(failure=failure(err)))
        finally:
            with self._lock:
                del self._runs[request.call_id]
            target.close()

    def Cancel(self, request, context):
        with self._lock:
            target = self._runs.get(request.call_id)
            if target is None and len(self._early) < 256:
                self._early.add(request.call_id)
        if target:
            target.cancel()
        return pb.CancelResponse()

    def Cleanup(self, request, context):
        if self._cleanup is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the plugin claims nothing")
        try:
            self._cleanup(request.resource)
        except (Failed, OSError) as err:
            context.abort(grpc.StatusCode.UNKNOWN, str(err))
        return pb.CleanupResponse()


def failure(err):
    if isinstance(err, Failed):
        return pb.Failure(kind=err.kind, message=str(err), checks=err.checks)
    return pb.Failure(message=f"{type(err).__name__}: {err}")


def handlers(plugin, ended):
    """Returns the three services that gild calls."""
    make = {False: grpc.unary_unary_rpc_method_handler, True: grpc.unary_stream_rpc_method_handler}
    steps = {name: make[down](getattr(plugin, name), request.FromString, response.SerializeToString)
             for name, request, response, _, down in methods("StepPlugin")}

    def shutdown(request, context):
        ended.set()
        return b""

    # The messages of these two are a few bytes: HealthCheckResponse{status: SERVING}, Empty.
    check = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")
    stop = grpc.unary_unary_rpc_method_handler(shutdown)
    return [
        grpc.method_handlers_generic_handler(f"{pb.DESCRIPTOR.package}.StepPlugin", steps),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),
        grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": stop}),
    ]


def credentials(client_cert):
    """Makes a certificate for this process: what go-plugin calls AutoMTLS. Each side
    trusts just the other's certificate. Returns it for the handshake, too."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.utcnow()
    cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256()))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server = grpc.ssl_server_credentials([(private, cert.public_bytes(serialization.Encoding.PEM))],
                                         root_certificates=client_cert.encode(), require_client_auth=True)
    der = cert.public_bytes(serialization.Encoding.DER)
    return server, base64.b64encode(der).decode().rstrip("=")


def main(description, validate, run, cleanup):
    """Serves until gild ends the plugin, or is gone."""
    if os.environ.get("GILD_PLUGIN") != "gild-step-plugin":
        sys.exit(f"{description.name} is a plugin of gild, which starts it when a pipeline uses it.")
    # Ctrl-C in a terminal reaches every process; it is gild that decides what ends.
    signal.signal(signal.SIGINT, lambda *_: None)
    ended = threading.Event()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(CALLS), handlers=handlers(StepPlugin(description, validate, run, cleanup), ended),
                         options=[("grpc.max_receive_message_length", 16 << 20)])
    address, cert = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "leaks.sock"), ""
    if "PLUGIN_CLIENT_CERT" in os.environ:
        creds, cert = credentials(os.environ["PLUGIN_CLIENT_CERT"])
        server.add_secure_port("unix:" + address, creds)
    else:
        server.add_insecure_port("unix:" + address)
    server.start()
    print(f"1|1|unix|{address}|grpc|{cert}", flush=True)
    parent = int(os.environ.get("GILD_PARENT", os.getppid()))
    while not ended.wait(0.5):
        if os.getppid() != parent:
            os._exit(1)  # without gild nobody is left to answer
    server.stop(0.5).wait()
    # A step that hangs would keep the process.
    os._exit(0)
