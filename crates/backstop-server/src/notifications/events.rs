//! What is told of: each event as a notification, with the names that stock servers use where they have it.

use backstop_notify::{Notification, Severity};
use backstop_types::record::GcStatus;
use serde_json::{Map, Value, json};

/// The fields that matchers can look at: those of stock servers, then those of ours.
pub const FIELDS: &[&str] = &[
    "check",
    "datastore",
    "group",
    "hostname",
    "job-id",
    "media-pool",
    "namespace",
    "recovered",
    "remote",
    "repeated",
    "subject",
    "type",
];

/// The values of the field `type`.
pub const TYPES: &[&str] = &[
    "acme",
    "backup",
    "certificate",
    "gc",
    "health",
    "package-updates",
    "prune",
    "sync",
    "system-mail",
    "tape-backup",
    "tape-load",
    "thresholds",
    "trust",
    "verify",
];

/// How notifications name the host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Without domain.
    pub name: String,
    /// With the first search domain of the host.
    pub fqdn: String,
}

impl Host {
    /// The host `node`, in the domain that its `resolv.conf` names.
    #[must_use]
    pub fn of(node: &str) -> Self {
        let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let fqdn = match search_domain(&resolv) {
            Some(domain) => format!("{node}.{domain}"),
            None => node.to_owned(),
        };
        Self {
            name: node.to_owned(),
            fqdn,
        }
    }

    /// What every template may show, with more.
    fn data(&self, more: Value) -> Value {
        let mut data = Map::new();
        data.insert("hostname".to_owned(), self.name.clone().into());
        data.insert("fqdn".to_owned(), self.fqdn.clone().into());
        let url = format!("https://{}:8007", self.fqdn);
        data.insert("base-url".to_owned(), url.into());
        if let Value::Object(more) = more {
            data.extend(more);
        }
        Value::Object(data)
    }

    /// A notification from here. Fields without a value are left out.
    #[must_use]
    pub fn event(
        &self,
        time: i64,
        severity: Severity,
        template: &str,
        data: Value,
        fields: &[(&'static str, &str)],
    ) -> Notification {
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        let fields = fields.map(|(name, value)| (*name, (*value).to_owned()));
        let fields = fields.chain([("hostname", self.name.clone())]);
        Notification::new(time, severity, template, self.data(data), fields)
    }
}

fn search_domain(resolv: &str) -> Option<String> {
    let mut domain = None;
    for line in resolv.lines() {
        let mut words = line.split_whitespace();
        if let (Some("search" | "domain"), Some(name)) = (words.next(), words.next()) {
            domain = Some(name.trim_end_matches('.').to_owned());
        }
    }
    domain.filter(|domain| !domain.is_empty())
}

/// A test of a target.
#[must_use]
pub fn test(host: &Host, time: i64, target: &str) -> Notification {
    let data = host.data(json!({ "target": target }));
    Notification::new(time, Severity::Info, "test", data, [])
}

/// A garbage collection that went well.
#[must_use]
pub fn gc_ok(host: &Host, time: i64, store: &str, upid: &str, status: &GcStatus) -> Notification {
    #[allow(clippy::cast_precision_loss)]
    let factor = match status.disk_bytes {
        0 => 1.0,
        disk => status.index_data_bytes as f64 / disk as f64,
    };
    let mut data = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(data) = &mut data {
        data.insert("datastore".to_owned(), store.into());
        data.insert("upid".to_owned(), upid.into());
        let factor = format!("{factor:.2}");
        data.insert("deduplication-factor".to_owned(), factor.into());
    }
    let fields = [("type", "gc"), ("datastore", store)];
    host.event(time, Severity::Info, "gc-ok", data, &fields)
}

/// A garbage collection that failed.
#[must_use]
pub fn gc_err(host: &Host, time: i64, store: &str, error: &str) -> Notification {
    let data = json!({ "datastore": store, "error": error });
    let fields = [("type", "gc"), ("datastore", store)];
    host.event(time, Severity::Error, "gc-err", data, &fields)
}

/// A backup session: what it was to make.
#[derive(Debug, Clone)]
pub struct BackupEvent {
    /// The datastore.
    pub datastore: String,
    /// The namespace; empty for the root.
    pub namespace: String,
    /// The group.
    pub group: String,
    /// The snapshot, or the group when that is not known.
    pub snapshot: String,
    /// On whose behalf.
    pub author: String,
    /// The task.
    pub upid: String,
}

impl BackupEvent {
    /// It ended, well after so many seconds, or for this reason not.
    #[must_use]
    pub fn ended(&self, host: &Host, time: i64, outcome: Result<i64, &str>) -> Notification {
        let mut data = json!({
            "datastore": self.datastore,
            "namespace": self.namespace,
            "group": self.group,
            "snapshot": self.snapshot,
            "author": self.author,
            "upid": self.upid,
        });
        let (severity, template) = match outcome {
            Ok(seconds) => {
                data["duration-seconds"] = seconds.into();
                (Severity::Info, "backup-ok")
            }
            Err(reason) => {
                data["error"] = reason.into();
                (Severity::Error, "backup-err")
            }
        };
        let fields = [
            ("type", "backup"),
            ("datastore", &self.datastore),
            ("namespace", &self.namespace),
            ("group", &self.group),
        ];
        host.event(time, severity, template, data, &fields)
    }
}

/// The pinned certificate of a remote was changed by this server, because something vouches for the new one.
#[must_use]
pub fn trust_changed(
    host: &Host,
    time: i64,
    remote: &str,
    (from, to): (&str, &str),
    reason: &str,
) -> Notification {
    let data = json!({
        "remote": remote,
        "former-fingerprint": from,
        "fingerprint": to,
        "reason": reason,
    });
    let fields = [("type", "trust"), ("remote", remote)];
    host.event(time, Severity::Notice, "trust-changed", data, &fields)
}

/// A change of what is known of the health of this server, as an event of the type `kind`: of `check` on `subject`. A severity that is no
/// failure says that all is well again, which is told to whoever was told of the failure.
#[must_use]
pub fn health(
    host: &Host,
    time: i64,
    (kind, check, subject): (&str, &str, &str),
    severity: Severity,
    (title, text): (&str, &str),
) -> Notification {
    let data = json!({ "title": title, "text": text, "check": check, "subject": subject });
    let template = match severity.is_failure() {
        true => "health-err",
        false => "health-ok",
    };
    let fields = [("type", kind), ("check", check), ("subject", subject)];
    host.event(time, severity, template, data, &fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_last_search_domain_line_counts_as_in_the_resolver() {
        for (resolv, wanted) in [
            ("nameserver 1.1.1.1\n", None),
            ("search example.com corp.example.com\n", Some("example.com")),
            ("domain a.example\nsearch b.example.\n", Some("b.example")),
        ] {
            assert_eq!(search_domain(resolv).as_deref(), wanted);
        }
    }

    #[test]
    fn all_that_stock_servers_can_match_can_be_matched() {
        for field in ["datastore", "hostname", "job-id", "media-pool", "type"] {
            assert!(FIELDS.contains(&field));
        }
        let stock = "acme gc package-updates prune sync system-mail tape-backup tape-load thresholds verify";
        for kind in stock.split(' ') {
            assert!(TYPES.contains(&kind));
        }
        assert!(FIELDS.is_sorted() && TYPES.is_sorted());
    }

    #[test]
    fn an_event_has_the_fields_that_tell_it_from_others() {
        let host = Host {
            name: "h".into(),
            fqdn: "h.example".into(),
        };
        let event = BackupEvent {
            datastore: "s".into(),
            namespace: String::new(),
            group: "vm/1".into(),
            snapshot: "vm/1/x".into(),
            author: "a@pbs".into(),
            upid: "UPID:".into(),
        };
        let failure = event.ended(&host, 1, Err("no"));
        let success = event.ended(&host, 2, Ok(5));
        assert_eq!(
            backstop_notify::repeats::topic(&failure),
            backstop_notify::repeats::topic(&success)
        );
        assert_eq!(failure.field("namespace"), None);
        assert_eq!(
            failure.data().unwrap()["base-url"],
            "https://h.example:8007"
        );
    }
}
