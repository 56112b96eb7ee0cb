"""Ansible's connection to the machine that gild is building.

Each call runs gild-plugin-ansible's helper (connect.go), with the request in its
environment and the data on its standard input and output. The helper tells how the call
went through a pipe of its own, so that no exit status of a command looks like a broken
connection.
"""

from __future__ import annotations

import json
import os
import subprocess

from ansible.errors import AnsibleConnectionFailure, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
    name: gild
    short_description: run tasks on the machine that gild is building
    description:
        - Runs commands on the machine and copies files to and from it, as root.
    author: gild
    extends_documentation_fragment:
        - connection_pipelining
"""


class Connection(ConnectionBase):
    """The machine; there is nothing to connect to before the first call."""

    transport = "gild"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        status, out, err = self._call({"op": "exec", "command": cmd}, data=in_data)
        return status, out, err

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound("there is no file %s" % in_path)
        with open(in_path, "rb") as source:
            self._call({"op": "put", "path": out_path}, stdin=source)

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        with open(out_path, "wb") as target:
            self._call({"op": "get", "path": in_path}, stdout=target)

    def close(self):
        self._connected = False

    def _call(self, request, data=None, stdin=None, stdout=subprocess.PIPE):
        """Make one call and return the command's status and what it printed."""
        result, tell = os.pipe()
        with os.fdopen(result, "rb") as answer:
            try:
                process = subprocess.Popen(
                    [os.environ["GILD_ANSIBLE_HELPER"], "connect"],
                    env=dict(os.environ, GILD_ANSIBLE_REQUEST=json.dumps(dict(request, result=tell))),
                    pass_fds=[tell],
                    stdin=stdin or (subprocess.PIPE if data else subprocess.DEVNULL),
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                )
            finally:
                os.close(tell)
            out, err = process.communicate(data)
            text = answer.read()
        if not text:
            raise AnsibleConnectionFailure("the connection's helper ended with status %d: %s" % (
                process.returncode, err.decode(errors="replace").strip()))
        told = json.loads(text)
        if told.get("missing"):
            raise AnsibleFileNotFound(told["error"])
        if told.get("error"):
            raise AnsibleConnectionFailure(told["error"])
        return told["status"], out, err
