"""Drives a server with the third-party client proxmoxer, as its users do: `drive.py PORT CERTIFICATE PASSWORD FOLDER`.

Prints "done" at the end; every surprise is an exception.
"""

import base64
import hashlib
import hmac
import os
import struct
import sys
import time

from proxmoxer import ProxmoxAPI, ResourceException
from proxmoxer.core import AuthenticationError

port, certificate, admin_password, folder = sys.argv[1:5]


def connect(user, **how):
    """A connection whose certificate is verified, by its own copy of it."""
    return ProxmoxAPI(
        "127.0.0.1", port=int(port), user=user, service="PBS", verify_ssl=certificate, timeout=60, **how
    )


def refused(status, call, *args, **params):
    """The error that a call must end in."""
    try:
        call(*args, **params)
    except ResourceException as error:
        assert error.status_code == status, error
        return str(error)
    raise AssertionError(f"{call} was not refused")


def wait(api, upid):
    """Waits for the end of a task. (The helper of proxmoxer only knows the task ids of PVE, which have a field less.)"""
    end = time.monotonic() + 600
    task = api.nodes("localhost").tasks(upid)
    while (status := task.status.get())["status"] != "stopped":
        assert time.monotonic() < end, status
        time.sleep(0.05)
    assert status["exitstatus"] == "OK" and status["user"] == "admin@pbs", status


def names(items, key):
    return sorted(item[key] for item in items)


KEY = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def one_time_password(steps_ahead=0):
    """The code of an app now, or half a minute from now."""
    step = int(time.time()) // 30 + steps_ahead
    mac = hmac.new(base64.b32decode(KEY), struct.pack(">Q", step), hashlib.sha1).digest()
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at:at + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


# Logging in
try:
    connect("admin@pbs", password="not the password")
    raise AssertionError("a wrong password was accepted")
except AuthenticationError as error:
    assert "401" in str(error), error
admin = connect("admin@pbs", password=admin_password)
assert admin.version.get()["version"].split(".")[0].isdigit()
assert admin.ping.get() == {"pong": True}

# Datastores
created = admin.config.datastore.post(name="store1", path=os.path.join(folder, "store1"), comment="by proxmoxer")
wait(admin, created)
assert names(admin.admin.datastore.get(), "store") == ["store1"]
assert admin.config.datastore("store1").get()["comment"] == "by proxmoxer"
admin.config.datastore("store1").put(**{"gc-schedule": "daily", "delete": ["comment"]})
settings = admin.config.datastore("store1").get()
assert settings["gc-schedule"] == "daily" and "comment" not in settings, settings
assert admin.admin.datastore("store1").status.get()["total"] > 0
admin.admin.datastore("store1").namespace.post(name="inner")
assert names(admin.admin.datastore("store1").namespace.get(), "ns") == ["", "inner"]
assert admin.admin.datastore("store1").snapshots.get() == []
refused(400, admin.config.datastore("nope").get)

# Users, rights and tokens
user = "someone@pbs"
refused(400, admin.access.users.post, userid=user, password="short")
admin.access.users.post(userid=user, password="Some-Pass-1", comment="a user", email="someone@example.com")
admin.access.users(user).put(comment="changed", firstname="Some")
assert admin.access.users(user).get()["comment"] == "changed"
admin.access.acl.put(path="/datastore/store1", role="DatastoreAudit", **{"auth-id": user})
someone = connect(user, password="Some-Pass-1")
assert names(someone.admin.datastore.get(), "store") == ["store1"]
assert names(someone.access.users.get(), "userid") == [user]
refused(403, someone.access.users.post, userid="other@pbs")
refused(403, someone.config.datastore("store1").put, comment="x")
token = someone.access.users(user).token("t1").post(comment="a token")
assert token["tokenid"] == f"{user}!t1", token
by_token = connect(user, token_name="t1", token_value=token["value"])
assert by_token.admin.datastore.get() == []
someone.access.acl.put(path="/datastore", role="DatastoreAudit", **{"auth-id": f"{user}!t1"})
assert names(by_token.admin.datastore.get(), "store") == ["store1"]
assert by_token.access.permissions.get(path="/datastore/store1")["/datastore/store1"] == {"Datastore.Audit": True}
renewed = someone.access.users(user).token("t1").put(regenerate=1)
refused(401, by_token.version.get)
connect(user, token_name="t1", token_value=renewed["secret"]).version.get()
someone.access.password.put(userid=user, password="Some-Pass-2", **{"confirmation-password": "Some-Pass-1"})
# That ends all sessions from before.
refused(401, someone.version.get)
someone = connect(user, password="Some-Pass-2")

# A ticket is renewed with itself when it gets old
auth = someone._backend.auth
before = auth.pve_auth_ticket
auth.renew_age = -1
someone.version.get()
auth.renew_age = 3600
assert auth.pve_auth_ticket.startswith(f"PBS:{user}:") and before.startswith(f"PBS:{user}:")
someone.access.users(user).token("t1").delete()

# A second factor. proxmoxer goes on by itself only where the answer has a key that stock servers of this kind do not send.
uri = f"otpauth://totp/backup:someone?secret={KEY}&digits=6&algorithm=SHA1&period=30"
factor = someone.access.tfa(user).post(
    type="totp", description="phone", totp=uri, value=one_time_password(), password="Some-Pass-2"
)
assert names(someone.access.tfa(user).get(), "type") == ["totp"]
twice = connect(user, password="Some-Pass-2")
auth = twice._backend.auth
assert auth.pve_auth_ticket.startswith("PBS:!tfa!"), "the password alone was enough"
refused(401, twice.version.get)
# Each code is good once: the one that was shown when the factor was added is used up.
answer = twice.access.ticket.post(
    username=user, password=f"totp:{one_time_password(1)}", **{"tfa-challenge": auth.pve_auth_ticket}
)
auth.pve_auth_ticket, auth.csrf_prevention_token = answer["ticket"], answer["CSRFPreventionToken"]
assert names(twice.access.users.get(), "userid") == [user]
twice.access.tfa(user)(factor["id"]).delete(password="Some-Pass-2")
connect(user, password="Some-Pass-2").version.get()

# Tasks
upid = admin.admin.datastore("store1").gc.post()
wait(admin, upid)
node = admin.nodes("localhost")
assert upid in names(node.tasks.get(), "upid")
assert upid in names(node.tasks.get(typefilter="garbage_collection", limit=5), "upid")
assert node.tasks(upid).status.get()["type"] == "garbage_collection"
log = node.tasks(upid).log.get(start=0, limit=0)
assert log[-1]["t"].endswith("TASK OK"), log[-1]
# `someone` may only see the datastore, not the tasks of others.
assert upid not in names(someone.nodes("localhost").tasks.get(), "upid")
refused(400, someone.nodes("localhost").tasks(upid).log.get)

# Away with it all
admin.access.users(user).delete()
refused(401, someone.version.get)
assert user not in [rule["ugid"] for rule in admin.access.acl.get()]
wait(admin, admin.config.datastore("store1").delete(**{"destroy-data": 1}))
assert admin.admin.datastore.get() == []
assert not os.path.exists(os.path.join(folder, "store1", ".chunks"))
print("done")
