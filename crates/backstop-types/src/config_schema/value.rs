//! Schemas of single values that several files and requests share.

use crate::name::is_safe_id;
use crate::repository::is_host;
use crate::schema::{Format, Schema};

fn no_control(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_fingerprint(text: &str) -> bool {
    let mut pairs = 0;
    text.split(':').all(|pair| {
        pairs += 1;
        pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit())
    }) && pairs == 32
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn parses<T: std::str::FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

fn is_byte_size(text: &str) -> Result<(), String> {
    match text.parse::<crate::ByteSize>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.reason),
    }
}

fn is_calendar_event(text: &str) -> Result<(), String> {
    match text.parse::<backstop_calendar::CalendarEvent>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let prefix = |max: u8| {
        (1..=3).contains(&length.len()) && length.parse::<u8>().is_ok_and(|own| own <= max)
    };
    match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => prefix(32),
        Ok(std::net::IpAddr::V6(_)) => prefix(128),
        Err(_) => false,
    }
}

fn is_server(text: &str) -> bool {
    is_host(text) || text.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_group_filter(text: &str) -> Result<(), String> {
    match text.parse::<crate::GroupFilter>() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A user id.
pub static USER_ID: Schema = Schema::text(3, 64, Format::Pattern(parses::<crate::UserId>));
/// A user or token id.
pub static AUTH_ID: Schema = Schema::text(3, 64, Format::Pattern(parses::<crate::AuthId>));
/// The name of a token.
pub static TOKEN_NAME: Schema = Schema::pattern(is_safe_id);
/// A realm.
pub static REALM: Schema = Schema::text(2, 32, Format::Pattern(is_safe_id));
/// The id of a datastore, job, remote, rule and the like.
pub static CONFIG_ID: Schema = Schema::text(3, 32, Format::Pattern(is_safe_id));
/// The id of a notification target or matcher.
pub static ENTITY_ID: Schema = Schema::text(2, 32, Format::Pattern(is_safe_id));
/// One line of comment.
pub static COMMENT: Schema = Schema::text(0, 128, Format::Pattern(no_control));
/// One line of text without control characters.
pub static LINE: Schema = Schema::pattern(no_control);
/// First name, last name, mail address.
pub static SHORT_LINE: Schema = Schema::text(2, 64, Format::Pattern(no_control));
/// Seconds since the epoch; 0 means never.
pub static EXPIRE: Schema = Schema::integer(0, i64::MAX);
/// A new password in the realm `pbs`.
pub static NEW_PASSWORD: Schema = Schema::text(8, 64, Format::Pattern(no_control));
/// A password of any origin.
pub static PASSWORD: Schema = Schema::text(1, 1024, Format::Pattern(no_control));
/// The digest of a configuration file.
pub static DIGEST: Schema = Schema::pattern(is_digest);
/// The fingerprint of a certificate.
pub static FINGERPRINT: Schema = Schema::pattern(is_fingerprint);
/// Host name or address.
pub static SERVER: Schema = Schema::pattern(is_server);
/// A TCP or UDP port.
pub static PORT: Schema = Schema::integer(0, 65_535);
/// Size with unit.
pub static BYTE_SIZE: Schema = Schema::text(1, 64, Format::Verify(is_byte_size));
/// A network: address and prefix length.
pub static CIDR: Schema = Schema::text(0, 43, Format::Pattern(is_cidr));
/// A namespace; empty for the root.
pub static NAMESPACE: Schema = Schema::text(0, 256, Format::Pattern(parses::<crate::Namespace>));
/// Namespace levels below the start.
pub static MAX_DEPTH: Schema = Schema::integer(0, 7);
/// How many snapshots a retention rule keeps.
pub static KEEP: Schema = Schema::integer(1, i64::MAX);
/// A number of worker threads.
pub static THREADS: Schema = Schema::integer(1, 32);
/// A number that is not negative.
pub static COUNT: Schema = Schema::integer(0, i64::MAX);
/// When something happens.
pub static CALENDAR_EVENT: Schema =
    Schema::text(0, usize::MAX, Format::VerifyNew(is_calendar_event));
/// A group filter.
pub static GROUP_FILTER: Schema = Schema::text(0, 1024, Format::Verify(is_group_filter));
/// Several group filters.
pub static GROUP_FILTERS: Schema = Schema::array(&GROUP_FILTER);
/// What was backed up.
pub static BACKUP_TYPE: Schema = Schema::words(&["vm", "ct", "host"]);
/// The id of a backup group.
pub static BACKUP_ID: Schema = Schema::pattern(is_safe_id);
/// Start of a backup in seconds since the epoch.
pub static BACKUP_TIME: Schema = Schema::integer(1, i64::MAX);
/// A file of a snapshot.
pub static ARCHIVE_NAME: Schema = Schema::pattern(is_safe_id);
/// A role.
pub static ROLE: Schema = Schema::words(crate::Role::NAMES);
/// A path of the access rules.
pub static ACL_PATH: Schema = Schema::text(1, 128, Format::Pattern(crate::acl::is_acl_path));
/// The identity of a task.
pub static UPID: Schema = Schema::text(36, 512, Format::Pattern(parses::<crate::Upid>));
/// Several user ids.
pub static USER_IDS: Schema = Schema::array(&USER_ID);
/// Several lines.
pub static LINES: Schema = Schema::array(&LINE);
/// Several config ids.
pub static CONFIG_IDS: Schema = Schema::array(&CONFIG_ID);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_value_accepts_and_refuses_what_it_should() {
        let print = vec!["aB"; 32].join(":");
        let short = vec!["ab"; 31].join(":");
        for (schema, good, bad) in [
            (&FINGERPRINT, print.as_str(), short.as_str()),
            (&DIGEST, &*"a0".repeat(32), &*"A0".repeat(32)),
            (&CIDR, "10.0.0.0/8", "10.0.0.0"),
            (&CIDR, "fd00::/8", "fd00::/129"),
            (&SERVER, "::1", "a b"),
            (&SERVER, "backup.example.com", "-x"),
            (&GROUP_FILTER, "exclude:group:vm/101", "exclude:vm/101"),
            (&GROUP_FILTER, "regex:^host/.*$", "regex:("),
            (&BYTE_SIZE, "10 MiB", "10 miles"),
            (&NEW_PASSWORD, "12345678", "1234567"),
            (&NAMESPACE, "", "/"),
            (&ACL_PATH, "/datastore/x", "datastore"),
            (&ROLE, "Admin", "admin"),
            (&BACKUP_TIME, "1", "0"),
            (&COMMENT, "", "a\nb"),
            (&CALENDAR_EVENT, "mon..fri 8..17:0/15", "24:00"),
        ] {
            assert!(schema.parse_text(good).is_ok(), "{good:?}");
            assert!(schema.parse_text(bad).is_err(), "{bad:?}");
        }
    }
}
