"""Tells gild-plugin-ansible what happens, as lines of JSON in a pipe (events.go)."""

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: gild_events
    type: aggregate
    short_description: tell gild what happens
    description:
        - Reports each task that begins, each failure, and the counts at the end.
    author: gild
"""

# How much of a message is told, in characters.
LIMIT = 4000


class CallbackModule(CallbackBase):
    """Writes one line for each event."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "gild_events"

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._tell({"event": "task"})

    def v2_playbook_on_handler_task_start(self, task):
        self._tell({"event": "task"})

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors:
            self._failed(result)

    def v2_runner_on_unreachable(self, result):
        self._failed(result)

    def v2_playbook_on_stats(self, stats):
        total = {}
        for host in stats.processed:
            for key, count in stats.summarize(host).items():
                total[key] = total.get(key, 0) + count
        self._tell(dict(total, event="end", hosts=len(stats.processed)))

    def _failed(self, result):
        task = result._task
        self._tell({
            "event": "failed",
            "task": task.get_name(),
            "path": task.get_path() or "",
            "message": why(result._result)[:LIMIT],
        })

    def _tell(self, event):
        os.write(int(os.environ["GILD_ANSIBLE_EVENTS"]), json.dumps(event).encode() + b"\n")


def why(result):
    """The reason of a failure, in one line as far as the module gives one."""
    if "censored" in result:
        return "the output is hidden by no_log"
    items = [item for item in result.get("results") or [] if item.get("failed")]
    if items:
        return "; ".join("%s: %s" % (item.get("_ansible_item_label", item.get("item")), why(item)) for item in items)
    message = str(result.get("msg") or "").strip()
    details = str(result.get("stderr") or result.get("module_stderr") or result.get("stdout") or "").strip()
    if details and details not in message:
        message += ": " + details.splitlines()[-1]
    return message or "no reason was given"
