//! The second step of a login: what to ask for, and whether the answer is right.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use backstop_types::UserId;
use backstop_types::second_factor::{AssertionResponse, Factor, UserFactors, WebauthnConfig};
use serde_json::{Map, Value};

use super::failures::{Failures, LIMIT, LOCK_TIME, TOTP_LIMIT};
use super::pending::{PendingChallenges, Purpose};
use super::webauthn::RelyingParty;
use super::{SecondFactors, codes, recovery, settings, state};
use crate::access::Refused;
use crate::config::{ConfigError, JsonFile};

/// An answer, as clients send it in place of the password.
enum Answer<'a> {
    Totp(&'a str),
    Recovery(&'a str),
    Webauthn(AssertionResponse),
}

impl<'a> Answer<'a> {
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            Some(("totp", code)) => Ok(Self::Totp(code)),
            Some(("recovery", code)) => Ok(Self::Recovery(code)),
            Some(("webauthn", json)) => AssertionResponse::parse(json)
                .map(Self::Webauthn)
                .map_err(|error| error.reason),
            Some(("u2f", _)) => {
                Err("U2F is no longer checked, register the key again as a security key")
            }
            _ => Err("not of the form totp:, recovery: or webauthn:"),
        }
    }
}

impl SecondFactors {
    /// What to ask a user for after the password, as the JSON inside the ticket; `None` when the password is enough.
    ///
    /// # Errors
    /// When the file cannot be read or understood: then the password is not enough.
    pub(in crate::access) fn challenge(
        &self,
        user: &UserId,
        now: i64,
    ) -> Result<Option<String>, ConfigError> {
        let file = self.config.json(JsonFile::Tfa)?;
        let Some(factors) = state::find(&file, user)?.filter(|factors| !factors.is_empty()) else {
            return Ok(None);
        };
        let mut challenge = Map::new();
        if factors.totp.iter().any(|factor| factor.enable) {
            challenge.insert("totp".to_owned(), true.into());
        }
        if let Some(codes) = &factors.recovery {
            challenge.insert("recovery".to_owned(), codes.available().into());
        }
        let keys = enabled_keys(&factors);
        if !keys.is_empty() {
            match relying_party(&file) {
                Ok(party) => {
                    let text = self
                        .pending
                        .issue(user, Purpose::LogIn, now)
                        .ok_or_else(|| {
                            ConfigError::Invalid("the system gives no random numbers".to_owned())
                        })?;
                    let options = party.request_options(&text, &keys);
                    challenge.insert("webauthn".to_owned(), options);
                }
                Err(reason) => tracing::error!("user '{user}' cannot use security keys: {reason}"),
            }
        }
        if factors.yubico.iter().any(|factor| factor.enable) {
            challenge.insert("yubico".to_owned(), true.into());
        }
        let has_u2f = factors.u2f.iter().any(|factor| factor.enable);
        if challenge.is_empty() && keys.is_empty() && !has_u2f {
            // All are disabled.
            return Ok(None);
        }
        // It may be empty: factors that cannot be asked for are no reason to let anybody in without.
        Ok(Some(Value::Object(challenge).to_string()))
    }

    /// Checks the answer to a challenge. What it uses up is on the disk when this returns.
    ///
    /// # Errors
    /// When it is wrong, the factors are locked, or something cannot be read or written.
    pub(in crate::access) fn verify(
        &self,
        user: &UserId,
        challenge: &str,
        answer: &str,
        now: i64,
    ) -> Result<(), Refused> {
        let answer = Answer::parse(answer)
            .map_err(|reason| Refused::of(user, format!("invalid second factor - {reason}")))?;
        if let Answer::Webauthn(response) = &answer
            && !asks_for(challenge, response)
        {
            return Err(Refused::of(
                user,
                "the security key answers another challenge than that of the ticket",
            ));
        }
        let attempt = Attempt {
            user,
            answer,
            now,
            pending: &self.pending,
        };
        let outcome = self.config.edit_json(JsonFile::Tfa, |file| {
            let mut factors = state::find(file, user)?.ok_or_else(|| {
                ConfigError::Invalid(format!("user '{user}' has no second factor any more"))
            })?;
            let mut failures = Failures::read(&self.config, user)?;
            let verdict = attempt.check(file, &mut factors, &mut failures)?;
            state::put(file, user, &factors)?;
            Ok::<_, ConfigError>((verdict, failures))
        });
        let (verdict, mut failures) = outcome
            .and_then(|result| result)
            .map_err(|error| Refused::of(user, error.to_string()))?;
        match verdict {
            Verdict::Right { totp } => {
                failures.forget(totp);
                if let Err(error) = failures.save() {
                    tracing::warn!("unable to forget the failed logins of user '{user}': {error}");
                }
                Ok(())
            }
            Verdict::Wrong(reason) => Err(Refused::of(user, reason)),
        }
    }
}

enum Verdict {
    Right {
        /// Whether the count of wrong one-time passwords starts anew, too.
        totp: bool,
    },
    Wrong(String),
}

struct Attempt<'a> {
    user: &'a UserId,
    answer: Answer<'a>,
    now: i64,
    pending: &'a PendingChallenges,
}

impl Attempt<'_> {
    fn check(
        &self,
        file: &Map<String, Value>,
        factors: &mut UserFactors,
        failures: &mut Failures,
    ) -> Result<Verdict, ConfigError> {
        let is_totp = matches!(self.answer, Answer::Totp(_));
        if factors.is_locked(self.now) {
            return Ok(Verdict::Wrong(
                "second factors are locked after too many failures; wait, or have an administrator unlock them"
                    .to_owned(),
            ));
        }
        if is_totp && factors.totp_locked {
            return Ok(Verdict::Wrong(
                "one-time passwords are locked after too many failures; log in with a recovery code, or have an administrator unlock them"
                    .to_owned(),
            ));
        }
        // Counted first: who cannot be counted is not checked.
        failures.add(is_totp);
        failures.save()?;
        let checked = match &self.answer {
            Answer::Totp(code) => self.totp(factors, code).map_err(str::to_owned),
            Answer::Recovery(code) => take_recovery(factors, code).map_err(str::to_owned),
            Answer::Webauthn(response) => self.webauthn(file, factors, response),
        };
        let reason = match checked {
            Ok(()) => {
                let totp = !matches!(self.answer, Answer::Webauthn(_));
                return Ok(Verdict::Right { totp });
            }
            Err(reason) => reason,
        };
        let mut reason = format!("second factor refused - {reason}");
        if is_totp && failures.totp() >= TOTP_LIMIT {
            factors.totp_locked = true;
            reason.push_str("; one-time passwords are locked now");
        }
        if failures.all() >= LIMIT {
            factors.tfa_locked_until = Some(self.now.saturating_add(LOCK_TIME));
            reason.push_str("; all second factors are locked for an hour now");
        }
        Ok(Verdict::Wrong(reason))
    }

    fn totp(&self, factors: &mut UserFactors, code: &str) -> Result<(), &'static str> {
        let mut reason = "wrong one-time password";
        for factor in factors.totp.iter_mut().filter(|factor| factor.enable) {
            let generator = match factor.entry.generator() {
                Ok(generator) => generator,
                Err(error) => {
                    tracing::error!(
                        "one-time password '{}' of user '{}' cannot be used: {error}",
                        factor.id,
                        self.user
                    );
                    continue;
                }
            };
            match codes::matching_step(&generator, code, self.now) {
                Some(step) if step > factor.entry.last_count() => {
                    factor.entry.use_up(step);
                    return Ok(());
                }
                Some(_) => reason = "the one-time password was used already",
                None => {}
            }
        }
        Err(reason)
    }

    fn webauthn(
        &self,
        file: &Map<String, Value>,
        factors: &mut UserFactors,
        response: &AssertionResponse,
    ) -> Result<(), String> {
        match self.pending.take(self.user, &response.challenge, self.now) {
            Some(Purpose::LogIn) => {}
            _ => return Err("no such challenge: it was answered already or is too old".to_owned()),
        }
        let party = relying_party(file)?;
        let credential = factors
            .webauthn
            .iter_mut()
            .filter(|factor| factor.enable)
            .find(|factor| factor.entry.id().as_ref() == Some(&response.credential_id))
            .ok_or("the security key is not registered")?;
        party
            .authenticate(response, &mut credential.entry)
            .map_err(|error| error.to_string())
    }
}

fn take_recovery(factors: &mut UserFactors, code: &str) -> Result<(), &'static str> {
    let codes = factors.recovery.as_mut();
    if !codes.is_some_and(|codes| recovery::take(codes, code)) {
        return Err("wrong or used recovery code");
    }
    factors.totp_locked = false;
    factors.tfa_locked_until = None;
    Ok(())
}

/// Whether the challenge inside the ticket is the one that a response answers.
fn asks_for(challenge: &str, response: &AssertionResponse) -> bool {
    let challenge = serde_json::from_str::<Value>(challenge).unwrap_or_default();
    let asked = challenge.pointer("/webauthn/publicKey/challenge");
    asked.and_then(Value::as_str).is_some_and(|asked| {
        verify_slices_are_equal(asked.as_bytes(), response.challenge.as_bytes()).is_ok()
    })
}

pub(super) fn enabled_keys(factors: &UserFactors) -> Vec<Vec<u8>> {
    let enabled = factors.webauthn.iter().filter(|factor| factor.enable);
    enabled
        .filter_map(|Factor { entry, .. }| entry.id())
        .collect()
}

pub(super) fn relying_party(file: &Map<String, Value>) -> Result<RelyingParty, String> {
    let config: WebauthnConfig = settings::find(file)
        .map_err(|error| error.to_string())?
        .ok_or("no webauthn configuration available")?;
    RelyingParty::of(&config).map_err(|error| error.to_string())
}
