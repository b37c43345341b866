//! The program itself: its version, and the memory, processor time and files that it uses.

use std::fs;

use super::families::{ExpositionError, Families, number};
use crate::metrics::kernel;

pub(super) fn add(families: &Families) -> Result<(), ExpositionError> {
    families
        .gauges(
            "backstop_build_info",
            "The version that runs; always 1.",
            &["version"],
        )?
        .show(&[env!("CARGO_PKG_VERSION")], Some(1.0))?;
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
    let resident = read("status").map(|status| number(kernel::memory_value(&status, "VmRSS")));
    families
        .gauges(
            "process_resident_memory_bytes",
            "Memory of the server that is in the RAM.",
            &[],
        )?
        .show(&[], resident)?;
    let open = fs::read_dir("/proc/self/fd").ok();
    families
        .gauges(
            "process_open_fds",
            "Files and connections that the server has open.",
            &[],
        )?
        .show(&[], open.map(|open| number(open.count() as u64)))?;
    let used = read("stat").and_then(|stat| kernel::process_ticks(&stat));
    let ticks = number(rustix::param::clock_ticks_per_second());
    families
        .counters(
            "process_cpu_seconds_total",
            "Processor time that the server has used.",
            &[],
        )?
        .show(&[], used.map(number).unwrap_or_default() / ticks)
}
