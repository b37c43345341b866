//! Challenges that wait for the answer of a security key: each good once, for two minutes, in memory only.

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use backstop_types::UserId;
use backstop_types::second_factor::encode_bytes;
use parking_lot::Mutex;

/// How long a challenge may be answered, in seconds.
pub(super) const LIFETIME: i64 = 120;
/// Most challenges of a user; a further one takes the place of the oldest.
const MAX_PER_USER: usize = 32;

/// What a challenge is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Registering a key under this description.
    Register(String),
    /// Logging in.
    LogIn,
}

#[derive(Debug)]
struct Pending {
    challenge: String,
    purpose: Purpose,
    created: i64,
}

/// The challenges of all users. Only users that have a key, or are logged in, get any.
#[derive(Debug, Default)]
pub(super) struct PendingChallenges(Mutex<HashMap<UserId, VecDeque<Pending>>>);

impl PendingChallenges {
    /// A new challenge, as the text in which it travels. `None` when the system gives no random numbers.
    pub(super) fn issue(&self, user: &UserId, purpose: Purpose, now: i64) -> Option<String> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        let challenge = encode_bytes(&random);
        let mut all = self.0.lock();
        all.retain(|_, own| {
            own.retain(|pending| pending.is_fresh(now));
            !own.is_empty()
        });
        let own = all.entry(user.clone()).or_default();
        if own.len() >= MAX_PER_USER {
            own.pop_front();
        }
        own.push_back(Pending {
            challenge: challenge.clone(),
            purpose,
            created: now,
        });
        Some(challenge)
    }

    /// Takes a challenge of a user out; it cannot be answered again, whatever comes of this answer.
    pub(super) fn take(&self, user: &UserId, challenge: &str, now: i64) -> Option<Purpose> {
        let mut all = self.0.lock();
        let own = all.get_mut(user)?;
        // All are compared, so that the time tells nothing.
        let mut found = None;
        for (place, pending) in own.iter().enumerate() {
            let (known, given) = (pending.challenge.as_bytes(), challenge.as_bytes());
            if verify_slices_are_equal(known, given).is_ok() {
                found = Some(place);
            }
        }
        let pending = own.remove(found?)?;
        pending.is_fresh(now).then_some(pending.purpose)
    }
}

impl Pending {
    fn is_fresh(&self, now: i64) -> bool {
        (0..=LIFETIME).contains(&now.saturating_sub(self.created))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_challenge_is_good_once_for_its_user_and_two_minutes() {
        let pending = PendingChallenges::default();
        let (a, b): (UserId, UserId) = ("a@pbs".parse().unwrap(), "b@pbs".parse().unwrap());
        let issue = |now| pending.issue(&a, Purpose::LogIn, now).unwrap();
        let challenge = issue(1000);
        assert_eq!(pending.take(&b, &challenge, 1000), None);
        assert_eq!(pending.take(&a, &challenge, 1120), Some(Purpose::LogIn));
        assert_eq!(pending.take(&a, &challenge, 1120), None);
        let challenge = issue(1000);
        assert_eq!(pending.take(&a, &challenge, 1121), None);
        assert_ne!(issue(1000), issue(1000));
    }

    #[test]
    fn their_number_is_bounded_and_old_ones_go() {
        let pending = PendingChallenges::default();
        let users: Vec<UserId> = (0..3)
            .map(|n| format!("u{n}@pbs").parse().unwrap())
            .collect();
        let first = pending.issue(&users[0], Purpose::LogIn, 0).unwrap();
        for _ in 0..MAX_PER_USER {
            pending.issue(&users[0], Purpose::LogIn, 0).unwrap();
        }
        pending.issue(&users[1], Purpose::LogIn, 0).unwrap();
        assert_eq!(pending.0.lock()[&users[0]].len(), MAX_PER_USER);
        assert_eq!(pending.take(&users[0], &first, 0), None);
        pending.issue(&users[2], Purpose::LogIn, 500).unwrap();
        assert_eq!(pending.0.lock().len(), 1);
    }
}
