"""The step gild/leaks. Nothing here knows how a plugin is served: see serve.py."""

import fnmatch
import json
import os

import plugin_pb2 as pb
from serve import Failed, TestFailed

# What is looked for: its name, and the arguments of find that list it.
HOMES = ["/root", "/home"]
SEARCHES = [
    ("host key", ["/etc/ssh", "-name", "ssh_host_*_key"]),
    ("key that lets somebody log in", HOMES + ["-path", "*/.ssh/authorized_keys", "-size", "+0"]),
    ("history of a shell", HOMES + ["-name", ".*_history", "-size", "+0"]),
    ("credentials", HOMES + ["(", "-path", "*/.aws/credentials", "-o", "-path", "*/.docker/config.json",
                             "-o", "-name", ".netrc", "-o", "-name", ".git-credentials", ")"]),
    ("private key", ["/etc", "/opt", "/srv", "/usr/local", "/var/lib"] + HOMES +
     ["-size", "-65k", "-exec", "grep", "-lIsZm1", "-e", "^-----BEGIN .*PRIVATE KEY-----", "{}", "+"]),
]

# The most findings that are listed.
MOST = 200


def validate(step, config):
    """Yields what is wrong with a configuration beyond its schema."""
    for i, pattern in enumerate(config.get("except", [])):
        if not pattern.startswith("/"):
            yield pb.Diagnostic(
                message=f"{pattern!r} matches no path", hint="paths of the machine begin with /",
                pointer=f"/except/{i}")
    report = config.get("report")
    if report and not os.path.isabs(report):
        yield pb.Diagnostic(
            message=f"{report!r} is not an absolute path", pointer="/report",
            hint="a plugin doesn't know which folder it would be relative to")


def run(request, config, target):
    """Runs the step: a generator of events, whose value is the outputs."""
    found = []
    for done, (what, search) in enumerate(SEARCHES):
        yield target.progress(done, len(SEARCHES), "searches")
        for path in find(request, target, search):
            if not any(fnmatch.fnmatchcase(path, p) for p in config.get("except", [])):
                found.append((what, path))
    # A host key is a private key too: it is told once.
    found = sorted({path: what for what, path in reversed(found)}.items())
    yield target.log(f"{len(found)} files found\n")
    if "report" in config:
        write_report(target, config["report"], found)
    if found:
        raise TestFailed([f"{what}: {path}" for path, what in found[:MOST]]
                         + ([f"and {len(found) - MOST} more"] if len(found) > MOST else []))
    return {"files": 0}


def find(request, target, search):
    """Lists the regular files that find finds on the machine."""
    paths = [a for a in search if a.startswith("/")]
    tests = search[len(paths):]
    older = []
    if request.machine.guest:
        older = ["!", "-newermt", "@%d" % request.machine.powered_on.seconds]
    action = [] if "-exec" in tests else ["-print0"]
    status, out, err = target.exec(["find", *paths, "-xdev", "-type", "f", *older, *tests, *action])
    # find has a status for folders that aren't there, and grep one for nothing found.
    problems = [l for l in err.splitlines() if not l.endswith("No such file or directory")]
    if status and problems:
        raise Failed(f"find: {problems[-1]}")
    return [p for p in out.split("\0") if p]


def write_report(target, path, found):
    """Writes the report in one piece. What a dead process left of it is a claim."""
    part = path + ".part"
    claim = target.claim("file", part, "an unfinished report")
    with open(part, "w", encoding="utf-8") as f:
        json.dump([{"path": p, "what": w} for p, w in found], f, indent=2)
        f.write("\n")
    os.replace(part, path)
    target.settle(claim)


def cleanup(resource):
    """Removes what run claimed and didn't settle."""
    if resource.kind != "file":
        raise Failed(f"this plugin makes no {resource.kind}")
    try:
        os.remove(resource.id)
    except FileNotFoundError:
        pass
