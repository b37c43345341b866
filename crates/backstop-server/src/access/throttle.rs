//! Failed attempts to log in, counted per account and per address, so that passwords cannot be tried by the thousand.
//!
//! What is slowed down is always *an address*: either its attempts on one account, or all that it tries. Nobody can lock
//! somebody out who comes from another address, and an address from which an account logged in lately is never kept from that
//! account by what else comes from there (many hosts can share one). Everything here is bounded and in memory; a restart
//! forgets it.
//!
//! While an attempt is too early, the password is not looked at, right or wrong: the answer is the same refusal.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

/// Entries of each table. A full one forgets what is oldest.
const MAX_ENTRIES: usize = 16 * 1024;
/// How long nothing must fail, after the last time of waiting is over, until all is forgotten. Seconds.
const MEMORY: i64 = 3600;
/// How long a successful log-in exempts an address from the limit of all that it tries. Seconds.
const TRUST: i64 = 30 * 24 * 3600;

/// How many failures are free, and how long one waits at most after more. Each further failure doubles the time, from one
/// second on.
#[derive(Debug, Clone, Copy)]
struct Policy {
    free: u32,
    most: i64,
}

/// One password from one address.
const PASSWORD: Policy = Policy { free: 5, most: 900 };
/// One API token from one address. Its secret cannot be guessed; what is saved is the work of checking.
const TOKEN: Policy = Policy { free: 10, most: 10 };
/// All passwords from one address.
const ADDRESS: Policy = Policy {
    free: 20,
    most: 300,
};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A password, of whatever realm.
    Password,
    /// The secret of an API token.
    Token,
}

/// An IPv4 address, or the network of an IPv6 one: who has one address of a /64 has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(peer: IpAddr) -> Self {
        Self(match peer.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }

    /// Whether it stands for this host, and with it for whoever comes through a proxy on it.
    fn is_loopback(self) -> bool {
        self.0.is_loopback() || self.0 == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    /// No attempt before this time.
    until: i64,
}

/// A table that forgets.
#[derive(Debug)]
struct Table<K>(HashMap<K, Entry>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone> Table<K> {
    /// How many seconds are to be waited.
    fn wait(&self, key: &K, now: i64) -> i64 {
        self.0.get(key).map_or(0, |entry| entry.until - now).max(0)
    }

    fn fail(&mut self, key: K, policy: Policy, now: i64) {
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&key) {
            self.forget_some(now);
        }
        let entry = self.0.entry(key).or_insert(Entry {
            failures: 0,
            until: now,
        });
        if now - entry.until > MEMORY {
            entry.failures = 0;
        }
        entry.failures = entry.failures.saturating_add(1);
        let beyond = entry.failures.saturating_sub(policy.free);
        let pause = match beyond {
            0 => 0,
            beyond => 1i64.checked_shl(beyond - 1).unwrap_or(i64::MAX),
        };
        // A shift by 63 is negative.
        let pause = if pause < 0 {
            policy.most
        } else {
            pause.min(policy.most)
        };
        entry.until = now + pause;
    }

    /// Makes room: all that is over, or else the older half.
    fn forget_some(&mut self, now: i64) {
        self.0.retain(|_, entry| now - entry.until <= MEMORY);
        if self.0.len() >= MAX_ENTRIES {
            let mut times: Vec<i64> = self.0.values().map(|entry| entry.until).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.0.retain(|_, entry| entry.until > median);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    accounts: Table<(Source, String)>,
    addresses: Table<Source>,
    /// When an account last logged in from an address.
    trusted: HashMap<(Source, String), i64>,
}

/// The counts. Times are seconds since the epoch.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<State>);

impl Throttle {
    /// Whether an attempt may be made now.
    ///
    /// # Errors
    /// How many seconds it is too early.
    pub(super) fn check(
        &self,
        attempt: Attempt,
        peer: Option<IpAddr>,
        account: &str,
        now: i64,
    ) -> Result<(), i64> {
        let Some(source) = peer.map(Source::of) else {
            return Ok(());
        };
        let state = self.0.lock();
        let key = (source, account.to_owned());
        let mut wait = state.accounts.wait(&key, now);
        let is_trusted = state
            .trusted
            .get(&key)
            .is_some_and(|seen| now - seen <= TRUST);
        if attempt == Attempt::Password && !is_trusted && !source.is_loopback() {
            wait = wait.max(state.addresses.wait(&source, now));
        }
        if wait > 0 { Err(wait) } else { Ok(()) }
    }

    /// Notes what came of an attempt that was allowed.
    pub(super) fn note(
        &self,
        attempt: Attempt,
        peer: Option<IpAddr>,
        account: &str,
        good: bool,
        now: i64,
    ) {
        let Some(source) = peer.map(Source::of) else {
            return;
        };
        let mut state = self.0.lock();
        let key = (source, account.to_owned());
        if good {
            state.accounts.0.remove(&key);
            if attempt == Attempt::Password {
                if state.trusted.len() >= MAX_ENTRIES {
                    state.trusted.retain(|_, seen| now - *seen <= 24 * 3600);
                }
                if state.trusted.len() < MAX_ENTRIES {
                    state.trusted.insert(key, now);
                }
            }
            return;
        }
        match attempt {
            Attempt::Password => {
                state.accounts.fail(key, PASSWORD, now);
                if !source.is_loopback() {
                    state.addresses.fail(source, ADDRESS, now);
                }
            }
            Attempt::Token => state.accounts.fail(key, TOKEN, now),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// Tries wrong passwords from `start` on as soon as it is allowed; how long each has to wait.
    fn waits(
        throttle: &Throttle,
        peer: Option<IpAddr>,
        account: &str,
        start: i64,
        count: usize,
    ) -> Vec<i64> {
        let mut now = start;
        (0..count)
            .map(|_| {
                let wait = throttle
                    .check(Attempt::Password, peer, account, now)
                    .err()
                    .unwrap_or(0);
                now += wait;
                assert_eq!(
                    throttle.check(Attempt::Password, peer, account, now),
                    Ok(())
                );
                throttle.note(Attempt::Password, peer, account, false, now);
                wait
            })
            .collect()
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_quarter_of_an_hour() {
        let throttle = Throttle::default();
        let waits = waits(&throttle, ip("192.0.2.1"), "root@pam", 0, 20);
        assert_eq!(waits[..10], [0, 0, 0, 0, 0, 0, 1, 2, 4, 8]);
        assert_eq!(waits[17..], [900, 900, 900]);
    }

    #[test]
    fn nobody_is_locked_out_from_another_address() {
        let throttle = Throttle::default();
        waits(&throttle, ip("192.0.2.1"), "root@pam", 0, 12);
        for other in ["192.0.2.2", "2001:db8::1", "127.0.0.1"] {
            assert_eq!(
                throttle.check(Attempt::Password, ip(other), "root@pam", 0),
                Ok(()),
                "{other}"
            );
        }
        assert_eq!(
            throttle.check(Attempt::Password, None, "root@pam", 0),
            Ok(())
        );
        assert!(
            throttle
                .check(Attempt::Password, ip("::ffff:192.0.2.1"), "root@pam", 0)
                .is_err()
        );
    }

    #[test]
    fn one_address_cannot_try_many_accounts_and_all_addresses_of_a_network_are_one() {
        let throttle = Throttle::default();
        for number in 0..25 {
            let peer = ip(&format!("2001:db8:0:1::{number}"));
            let account = format!("user{number}@pbs");
            if throttle.check(Attempt::Password, peer, &account, 0).is_ok() {
                throttle.note(Attempt::Password, peer, &account, false, 0);
            }
        }
        let check = |peer: &str| throttle.check(Attempt::Password, ip(peer), "new@pbs", 0);
        assert!(check("2001:db8:0:1:ffff::9").is_err());
        assert_eq!(check("2001:db8:0:2::9"), Ok(()));
        // API tokens of other hosts behind the same address go on working.
        assert_eq!(
            throttle.check(Attempt::Token, ip("2001:db8:0:1::1"), "a@pbs!t", 0),
            Ok(())
        );
    }

    #[test]
    fn who_logged_in_from_an_address_is_not_kept_out_by_others_there() {
        let throttle = Throttle::default();
        let peer = ip("192.0.2.1");
        throttle.note(Attempt::Password, peer, "admin@pbs", true, 0);
        for number in 0..30 {
            throttle.note(
                Attempt::Password,
                peer,
                &format!("user{number}@pbs"),
                false,
                10,
            );
        }
        assert!(
            throttle
                .check(Attempt::Password, peer, "other@pbs", 10)
                .is_err()
        );
        assert_eq!(
            throttle.check(Attempt::Password, peer, "admin@pbs", 10),
            Ok(())
        );
    }

    #[test]
    fn a_proxy_on_this_host_does_not_lock_everybody_out() {
        let throttle = Throttle::default();
        for number in 0..100 {
            throttle.note(
                Attempt::Password,
                ip("::1"),
                &format!("user{number}@pbs"),
                false,
                0,
            );
        }
        assert_eq!(
            throttle.check(Attempt::Password, ip("::1"), "admin@pbs", 0),
            Ok(())
        );
    }

    #[test]
    fn a_success_and_an_hour_of_peace_forget() {
        let throttle = Throttle::default();
        let peer = ip("192.0.2.1");
        waits(&throttle, peer, "a@pbs", 0, 8);
        throttle.note(Attempt::Password, peer, "a@pbs", true, 100);
        assert_eq!(waits(&throttle, peer, "a@pbs", 100, 5), [0; 5]);
        waits(&throttle, peer, "b@pbs", 0, 8);
        // long after what all these failures made the address wait
        let later = 1000 + MEMORY;
        assert_eq!(waits(&throttle, peer, "b@pbs", later, 6), [0; 6]);
    }

    #[test]
    fn a_flood_of_names_takes_no_more_memory() {
        let throttle = Throttle::default();
        for number in 0..(3 * MAX_ENTRIES) {
            let peer = ip(&format!(
                "2001:db8:{:x}:{:x}::1",
                number / 65536,
                number % 65536
            ));
            throttle.note(Attempt::Password, peer, "x@pbs", false, number as i64);
        }
        let state = throttle.0.lock();
        assert!(state.accounts.0.len() <= MAX_ENTRIES);
        assert!(state.addresses.0.len() <= MAX_ENTRIES);
    }
}
