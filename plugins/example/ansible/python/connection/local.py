"""Stands in for Ansible's own `local` connection, which would run tasks on the host."""

from __future__ import annotations

from ansible.errors import AnsibleError
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
    name: local
    short_description: refuse to run tasks on the host
    description:
        - A build changes the machine it makes and nothing else.
    author: gild
"""


class Connection(ConnectionBase):
    """A connection that is always refused."""

    transport = "local"

    def _connect(self):
        raise AnsibleError("gild runs no task on localhost, the host of the build; run it on the machine, or before the build")

    def exec_command(self, cmd, in_data=None, sudoable=True):
        self._connect()

    def put_file(self, in_path, out_path):
        self._connect()

    def fetch_file(self, in_path, out_path):
        self._connect()

    def close(self):
        self._connected = False
