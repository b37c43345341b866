#!/usr/bin/env python3
"""The check that operators put into Zabbix: 1 when the last sync failed, 0 when it went well, 2 when there was none."""
import json
import subprocess

tasks = json.loads(
    subprocess.check_output(
        ["proxmox-backup-manager", "task", "list", "--all", "--limit", "20", "--output-format", "json-pretty"]
    )
)
syncs = [task for task in tasks if "syncjob" in task["upid"] and task.get("endtime")]
if syncs:
    last = max(syncs, key=lambda task: task["endtime"])
    print(0 if last["status"] == "OK" else 1)
else:
    print(2)
