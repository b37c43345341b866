//! Task identifiers. Format: `docs/formats/tasks.md`.

use std::fmt;
use std::str::FromStr;

use crate::auth_id::AuthId;
use crate::name::{NameError, serde_text};

/// The identity of one task, unique on its server:
/// `UPID:<node>:<pid>:<pstart>:<task>:<start>:<type>:<id>:<auth id>:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upid {
    /// Short host name of the server.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Start time of the process in clock ticks since boot.
    pub pstart: u64,
    /// Counter within the process.
    pub task_id: u64,
    /// Start of the task, seconds since the epoch.
    pub starttime: i64,
    /// What kind of work, for example `backup`.
    pub worker_type: String,
    /// What it works on, unescaped; `None` when empty.
    pub worker_id: Option<String>,
    /// Who started it.
    pub auth_id: AuthId,
}

impl Upid {
    /// Name of the sub-directory of the task log directory that holds the log: the last byte of
    /// the process start time in hex.
    #[must_use]
    pub fn log_dir_name(&self) -> String {
        format!("{:02X}", self.pstart & 0xff)
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "UPID:{}:{:08X}:{:08X}:{:08X}:{:08X}:{}:{}:{}:",
            self.node,
            self.pid,
            self.pstart,
            self.task_id,
            self.starttime,
            self.worker_type,
            escape_worker_id(self.worker_id.as_deref().unwrap_or_default()),
            self.auth_id
        )
    }
}

impl FromStr for Upid {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| {
            NameError::new("task id", text, format!("unable to parse UPID '{text}'"))
        })
    }
}

serde_text!(Upid);

fn parse(text: &str) -> Option<Upid> {
    let mut parts = text.split(':');
    if parts.next()? != "UPID" {
        return None;
    }
    let node = parts.next().filter(|node| is_node_name(node))?.to_string();
    let pid = u32::try_from(hex(parts.next()?, 8, 8)?).ok()?;
    let pstart = hex(parts.next()?, 8, 9)?;
    let task_id = hex(parts.next()?, 8, 16)?;
    let starttime = i64::try_from(hex(parts.next()?, 8, 8)?).ok()?;
    let worker_type = parts
        .next()
        .filter(|ty| is_word(ty) && !ty.is_empty())?
        .to_string();
    let worker_id = parts.next().filter(|id| is_word(id))?;
    let worker_id = match unescape_worker_id(worker_id)? {
        id if id.is_empty() => None,
        id => Some(id),
    };
    let auth_id = parts.next()?.parse().ok()?;
    if parts.next() != Some("") || parts.next().is_some() {
        return None;
    }
    Some(Upid {
        node,
        pid,
        pstart,
        task_id,
        starttime,
        worker_type,
        worker_id,
        auth_id,
    })
}

fn hex(text: &str, min: usize, max: usize) -> Option<u64> {
    let valid = (min..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Neither white space nor control characters nor `/`: the text becomes part of a file name.
fn is_word(text: &str) -> bool {
    !text
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == '/')
}

/// Whether `name` is a host name without domain.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Escapes a worker id as systemd does for unit names: `/` becomes `-`, and every byte but
/// ASCII letters, digits, `_` and a non-leading `.` becomes `\xNN`.
#[must_use]
pub fn escape_worker_id(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for (position, byte) in id.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if position == 0 => out.push_str("\\x2e"),
            b'.' | b'_' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

/// Reverses [`escape_worker_id`]; `None` when an escape is broken or the result is not UTF-8.
#[must_use]
pub fn unescape_worker_id(escaped: &str) -> Option<String> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'-' => out.push(b'/'),
            b'\\' => {
                let [b'x', high, low, tail @ ..] = rest else {
                    return None;
                };
                let digit = |b: u8| {
                    char::from(b)
                        .to_digit(16)
                        .and_then(|d| u8::try_from(d).ok())
                };
                out.push(digit(*high)? * 16 + digit(*low)?);
                rest = tail;
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stock_task_ids_are_read_and_written_back() {
        for text in [
            "UPID:pbs:000003F2:00000A1B:00000001:66B0C0DE:backup:store1\\x3avm-100\\x2da:root@pam!tok:",
            "UPID:elsa:00004F37:0039E469:00000000:5CA78B83:garbage_collection::root@pam:",
            "UPID:vm:00005C2A:00053F99:00000045:6B00B705:verify_snapshot:store1\\x3a-host-nope-00000005:root@pam!api:",
            "UPID:vm:00007067:000CF758:000000C7:6B00CBF1:prune:store1\\x3a:root@pam!api:",
        ] {
            assert_eq!(text.parse::<Upid>().unwrap().to_string(), text);
        }
        let upid: Upid = "UPID:vm:00005C2A:00053F99:00000045:6B00B705:verify_snapshot:store1\\x3a-host-nope-00000005:root@pam!api:".parse().unwrap();
        assert_eq!(
            upid.worker_id.as_deref(),
            Some("store1:/host/nope/00000005")
        );
        assert_eq!(upid.pid, 23594);
        assert_eq!(upid.log_dir_name(), "99");
    }

    #[test]
    fn every_task_log_name_of_the_reference_servers_parses() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
        let mut count = 0;
        for version in ["pbs-3.2.4", "pbs-4.2.3"] {
            let archive = format!("{root}/{version}/var-log-proxmox-backup/tasks/archive");
            for line in std::fs::read_to_string(archive).unwrap().lines() {
                let text = line.split(' ').next().unwrap();
                assert_eq!(text.parse::<Upid>().unwrap().to_string(), text);
                count += 1;
            }
        }
        assert!(count > 50);
    }

    #[test]
    fn malformed_task_ids_are_refused() {
        let good = "UPID:pbs:000003F2:00000A1B:00000001:66B0C0DE:backup:a:root@pam:";
        assert!(good.parse::<Upid>().is_ok());
        for bad in [
            good.trim_end_matches(':').to_string(),
            format!("{good}x"),
            format!("{good}:"),
            good.replace("pbs", "../x"),
            good.replace("pbs", "-p"),
            good.replace("backup", ""),
            good.replace("backup", "a b"),
            good.replace("backup", "../../x"),
            good.replace(":a:", ":a/b:"),
            good.replace(":a:", ":\\x2:"),
            good.replace(":a:", ":\\xff:"),
            good.replace("000003F2", "3F2"),
            good.replace("000003F2", "+00003F2"),
            good.replace("root@pam", "root"),
            String::new(),
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_worker_id_survives_escaping(id in "\\PC{0,40}") {
            let escaped = escape_worker_id(&id);
            prop_assert!(escaped.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.\\".contains(&b)));
            prop_assert_eq!(unescape_worker_id(&escaped).unwrap(), id);
        }

        #[test]
        fn a_task_id_survives_its_text(pid in any::<u32>(), pstart in 0u64..(1 << 36), task_id in any::<u64>(), start in 0i64..(1 << 32), id in proptest::option::of("[ -~]{1,20}")) {
            let upid = Upid {
                node: "node-1".into(), pid, pstart, task_id, starttime: start,
                worker_type: "sync_job".into(), worker_id: id, auth_id: "a@pbs!t".parse().unwrap(),
            };
            prop_assert_eq!(upid.to_string().parse::<Upid>().unwrap(), upid);
        }

        #[test]
        fn no_text_panics(text in "UPID:[\\PC]{0,80}") { let _ = text.parse::<Upid>(); }
    }
}
