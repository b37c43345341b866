//! `/nodes/{node}/status`: load, memory, disk space and kernel of the host.

use std::fs;

use backstop_types::Privileges;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::http::{ApiError, Reply};
use crate::metrics::kernel::{CpuTimes, CpuUse, load_averages, memory_value};
use crate::router::schema::NODE_NAME;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/nodes/{node}/status",
        about: "Tells load, memory, disk space and kernel.",
        params: &[NODE_NAME],
        permission: Permission::all("/system/status", Privileges::SYS_AUDIT),
        handler: Handler::blocking(status),
    }]
}

fn status(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let meminfo = read("/proc/meminfo")?;
    let memory = |name| memory_value(&meminfo, name);
    let (total, available) = (memory("MemTotal"), memory("MemAvailable"));
    let (swap, swap_free) = (memory("SwapTotal"), memory("SwapFree"));
    let loadavg = load_averages(&read("/proc/loadavg")?);
    let uptime = read("/proc/uptime")?;
    let uptime = uptime
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse::<u64>().ok())
        .unwrap_or_default();
    let root = rustix::fs::statvfs("/")?;
    let blocks = |count: u64| count.saturating_mul(root.f_frsize);
    let used = cpu_use_since_last_call(CpuTimes::parse(&read("/proc/stat")?));
    let kernel = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let (sysname, release, version) = (
        text(kernel.sysname()),
        text(kernel.release()),
        text(kernel.version()),
    );
    Reply::data(&json!({
        "cpu": used.busy,
        "wait": used.waiting,
        "loadavg": loadavg,
        "uptime": uptime,
        "memory": { "total": total, "free": available, "used": total.saturating_sub(available) },
        "swap": { "total": swap, "free": swap_free, "used": swap.saturating_sub(swap_free) },
        "root": {
            "total": blocks(root.f_blocks),
            "avail": blocks(root.f_bavail),
            "used": blocks(root.f_blocks.saturating_sub(root.f_bfree)),
        },
        "cpuinfo": cpu_info(&read("/proc/cpuinfo")?),
        "kversion": format!("{sysname} {release} {version}"),
        "current-kernel": {
            "sysname": sysname,
            "release": release,
            "version": version,
            "machine": text(kernel.machine()),
        },
        "boot-info": boot_info(),
        "info": { "fingerprint": server.certificates().current().fingerprint().to_string() },
    }))
}

fn read(path: &str) -> Result<String, ApiError> {
    fs::read_to_string(path)
        .map_err(|err| ApiError::bad_request(format!("unable to read {path:?} - {err}")))
}

fn cpu_info(text: &str) -> Value {
    let values = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let mut sockets = values("physical id");
    sockets.sort();
    sockets.dedup();
    json!({
        "model": values("model name").first().cloned().unwrap_or_else(|| "unknown".to_owned()),
        "sockets": sockets.len().max(1),
        "cpus": values("processor").len().max(1),
    })
}

fn boot_info() -> Value {
    let efi = std::path::Path::new("/sys/firmware/efi").exists();
    // The variable holds four bytes of attributes and one of value.
    let variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let secure = fs::read(variable).is_ok_and(|value| value.get(4) == Some(&1));
    json!({ "mode": if efi { "efi" } else { "legacy-bios" }, "secureboot": secure })
}

/// The use of the processors since the previous call; since the host's start at the first one.
fn cpu_use_since_last_call(now: CpuTimes) -> CpuUse {
    static LAST: Mutex<CpuTimes> = Mutex::new(CpuTimes::START);
    let last = std::mem::replace(&mut *LAST.lock(), now);
    now.since(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn processors_are_counted() {
        let info = cpu_info(
            "processor\t: 0\nmodel name\t: X\nphysical id\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\n",
        );
        assert_eq!(info, json!({ "model": "X", "sockets": 1, "cpus": 2 }));
    }
}
