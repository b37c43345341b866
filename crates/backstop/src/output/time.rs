//! Points in time for people: local time in the fixed shape of the C locale.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `Wed Dec  4 13:20:37 2019`; a time outside the calendar is shown as its number.
pub fn local(epoch: i64) -> String {
    zoned(epoch, "%a %b %e %H:%M:%S %Y")
}

/// `2019-12-04T13:20:37Z` although the time is local, as listings of catalogs have it.
pub fn catalog(epoch: i64) -> String {
    zoned(epoch, "%Y-%m-%dT%H:%M:%SZ")
}

/// `2019-12-04 13:20:37`.
pub fn plain(epoch: i64) -> String {
    zoned(epoch, "%Y-%m-%d %H:%M:%S")
}

fn zoned(epoch: i64, format: &str) -> String {
    match Timestamp::from_second(epoch) {
        Ok(time) => time
            .to_zoned(TimeZone::system())
            .strftime(format)
            .to_string(),
        Err(_) => epoch.to_string(),
    }
}

/// The current time in seconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}
