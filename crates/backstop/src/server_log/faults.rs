//! Panics: faults of the program are said in the form of the log, as everything else.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

/// Logs panics from now on. Where the filter of the log leaves out even these, they are said as before.
pub(super) fn log() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |fault| {
        if tracing::event_enabled!(tracing::Level::ERROR) {
            say(fault);
        } else {
            before(fault);
        }
    }));
}

fn say(fault: &PanicHookInfo<'_>) {
    let payload = fault.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = std::thread::current();
    tracing::error!(
        place = fault.location().map(tracing::field::display),
        thread = thread.name(),
        backtrace,
        "a fault of the program (panic): {}",
        text.unwrap_or("no reason was given")
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::process::Command;

    use serde_json::Value;

    use crate::server_log::{Format, start};

    /// Says that this process is the one that has a fault.
    const VARIABLE: &str = "BACKSTOP_TEST_FAULT";

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        if std::env::var_os(VARIABLE).is_some() {
            let _log = start(Format::Json, "info").unwrap();
            let faulty = std::thread::Builder::new()
                .name("faulty".to_owned())
                .spawn(|| panic!("number {}", 7))
                .unwrap();
            assert!(faulty.join().is_err());
            return;
        }
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("server_log::faults::tests::a_panic_is_a_line_of_the_log")
            .env(VARIABLE, "1")
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        let lines: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")))
            .collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert_eq!(lines[0]["level"], "ERROR");
        assert_eq!(lines[0]["thread"], "faulty");
        assert!(
            lines[0]["message"].as_str().unwrap().ends_with("number 7"),
            "{said}"
        );
        assert!(
            lines[0]["place"].as_str().unwrap().contains("faults.rs"),
            "{said}"
        );
        assert!(
            lines[0]["backtrace"].as_str().unwrap().contains("faults"),
            "{said}"
        );
    }
}
