//! Listing, adding, changing and removing second factors. Lists never hold a secret.

use backstop_types::UserId;
use backstop_types::record::{AddedFactor, FactorItem, UserFactorsItem};
use backstop_types::second_factor::{
    Factor, FactorKind, Otpauth, RegistrationResponse, TotpEntry, UserFactors,
};
use serde_json::{Map, Value};

use super::failures::Failures;
use super::login::{enabled_keys, relying_party};
use super::pending::Purpose;
use super::{SecondFactors, codes, recovery, state};
use crate::config::{ConfigError, ConfigStore, EditError, JsonFile};

/// Most second factors of a user, so that the file cannot be filled up.
const MAX_FACTORS: usize = 64;
/// The id of a set of recovery codes.
const RECOVERY: &str = "recovery";
/// Fewest bytes of a new one-time password secret.
const MIN_SECRET: usize = 10;

fn item<T>(kind: FactorKind, factor: &Factor<T>) -> FactorItem {
    FactorItem {
        kind,
        id: factor.id.clone(),
        description: factor.description.clone(),
        created: factor.created,
        enable: factor.enable,
    }
}

fn items(factors: &UserFactors) -> Vec<FactorItem> {
    let recovery = factors.recovery.iter().map(|codes| FactorItem {
        kind: FactorKind::Recovery,
        id: RECOVERY.to_owned(),
        description: String::new(),
        created: codes.created,
        enable: true,
    });
    let totp = factors.totp.iter();
    let webauthn = factors.webauthn.iter();
    let u2f = factors.u2f.iter();
    let yubico = factors.yubico.iter();
    recovery
        .chain(totp.map(|factor| item(FactorKind::Totp, factor)))
        .chain(webauthn.map(|factor| item(FactorKind::Webauthn, factor)))
        .chain(u2f.map(|factor| item(FactorKind::U2f, factor)))
        .chain(yubico.map(|factor| item(FactorKind::Yubico, factor)))
        .collect()
}

/// The second factors of all users, or of one alone, with their locks at `now` (seconds since the epoch). An entry that cannot
/// be understood is left out and logged, so that the others can be seen.
///
/// # Errors
/// When the file cannot be read.
pub fn list(
    config: &ConfigStore,
    only: Option<&UserId>,
    now: i64,
) -> Result<Vec<UserFactorsItem>, ConfigError> {
    let file = config.json(JsonFile::Tfa)?;
    let users = file.get("users").and_then(Value::as_object);
    let mut list = Vec::new();
    for user in users.into_iter().flatten().map(|(user, _)| user) {
        let Ok(userid) = user.parse::<UserId>() else {
            continue;
        };
        if only.is_some_and(|only| *only != userid) {
            continue;
        }
        match state::find(&file, &userid) {
            Ok(Some(factors)) => list.push(UserFactorsItem {
                userid,
                entries: items(&factors),
                totp_locked: factors.totp_locked,
                tfa_locked_until: factors.tfa_locked_until.filter(|until| *until > now),
            }),
            Ok(None) => {}
            Err(error) => tracing::error!("{error}"),
        }
    }
    Ok(list)
}

/// The second factors of a user.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn list_user(config: &ConfigStore, user: &UserId) -> Result<Vec<FactorItem>, ConfigError> {
    let factors = state::find(&config.json(JsonFile::Tfa)?, user)?;
    Ok(factors.as_ref().map(items).unwrap_or_default())
}

/// One second factor.
///
/// # Errors
/// When it is not there, or the file cannot be read or understood.
pub fn get(config: &ConfigStore, user: &UserId, id: &str) -> Result<FactorItem, EditError> {
    let mut all = list_user(config, user)?.into_iter();
    all.find(|factor| factor.id == id)
        .ok_or_else(|| EditError::NotFound(format!("no such tfa entry: {user}/{id}")))
}

/// Removes a second factor.
///
/// # Errors
/// When it is not there, or the file cannot be read or written.
pub fn delete(config: &ConfigStore, user: &UserId, id: &str) -> Result<(), EditError> {
    state::change(config, user, |factors| {
        let before = items(factors).len();
        if id == RECOVERY {
            factors.recovery = None;
        }
        factors.totp.retain(|factor| factor.id != id);
        factors.webauthn.retain(|factor| factor.id != id);
        factors.u2f.retain(|factor| factor.id != id);
        factors.yubico.retain(|factor| factor.id != id);
        if items(factors).len() == before {
            return Err(EditError::NotFound(format!(
                "no such tfa entry: {user}/{id}"
            )));
        }
        Ok(())
    })
}

/// Changes the description of a second factor, or whether it can be used; what is `None` stays.
///
/// # Errors
/// When it is not there (recovery codes have neither), or the file cannot be read or written.
pub fn update(
    config: &ConfigStore,
    user: &UserId,
    id: &str,
    description: Option<&str>,
    enable: Option<bool>,
) -> Result<(), EditError> {
    fn fields<'a, T>(
        list: &'a mut [Factor<T>],
        id: &str,
    ) -> Option<(&'a mut String, &'a mut bool)> {
        let found = list.iter_mut().find(|factor| factor.id == id);
        found.map(|factor| (&mut factor.description, &mut factor.enable))
    }
    state::change(config, user, |factors| {
        let found = fields(&mut factors.totp, id)
            .or_else(|| fields(&mut factors.webauthn, id))
            .or_else(|| fields(&mut factors.u2f, id))
            .or_else(|| fields(&mut factors.yubico, id));
        let (own_description, own_enable) =
            found.ok_or_else(|| EditError::NotFound(format!("no such entry: {user}/{id}")))?;
        if let Some(description) = description {
            description.clone_into(own_description);
        }
        if let Some(enable) = enable {
            *own_enable = enable;
        }
        Ok(())
    })
}

/// Unlocks the second factors of a user and forgets its failures; tells whether they were locked at `now`.
///
/// # Errors
/// When the user has none, or the file cannot be read or written.
pub fn unlock(config: &ConfigStore, user: &UserId, now: i64) -> Result<bool, EditError> {
    state::change(config, user, |factors| {
        if factors.is_empty() {
            return Err(EditError::Conflict(format!(
                "no such user: '{user}' has no second factors"
            )));
        }
        let mut failures = Failures::read(config, user)?;
        failures.forget(true);
        failures.save()?;
        let was_locked = factors.totp_locked || factors.is_locked(now);
        factors.totp_locked = false;
        factors.tfa_locked_until = None;
        Ok(was_locked)
    })
}

/// What a caller sends to add a second factor. `Debug` leaves out what is secret.
#[derive(Clone, Copy, Default)]
pub struct NewFactor<'a> {
    /// What the user calls it.
    pub description: Option<&'a str>,
    /// The otpauth URI of a one-time password generator.
    pub totp: Option<&'a str>,
    /// Its present code, or the answer of a security key.
    pub value: Option<&'a str>,
    /// The challenge that a security key answers.
    pub challenge: Option<&'a str>,
}

impl std::fmt::Debug for NewFactor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewFactor")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

fn conflict(text: impl Into<String>) -> EditError {
    EditError::Conflict(text.into())
}

fn new_entry<T>(description: &str, entry: T, now: i64) -> Factor<T> {
    Factor {
        id: uuid::Uuid::new_v4().to_string(),
        description: description.to_owned(),
        created: now,
        enable: true,
        entry,
        other: Map::new(),
    }
}

fn added(id: String) -> AddedFactor {
    AddedFactor {
        id: Some(id),
        ..AddedFactor::default()
    }
}

fn check_room(factors: &UserFactors) -> Result<(), EditError> {
    if items(factors).len() >= MAX_FACTORS {
        return Err(conflict(format!(
            "the user has {MAX_FACTORS} second factors already; remove one first"
        )));
    }
    Ok(())
}

impl SecondFactors {
    /// Adds a second factor, or gives the challenge that a security key has to answer first.
    ///
    /// # Errors
    /// When parameters do not fit the kind, a code or an answer is wrong, or the file cannot be read or written.
    pub fn add(
        &self,
        user: &UserId,
        kind: FactorKind,
        new: &NewFactor<'_>,
        now: i64,
    ) -> Result<AddedFactor, EditError> {
        match kind {
            FactorKind::Totp => self.add_totp(user, new, now),
            FactorKind::Recovery => self.add_recovery(user, new, now),
            FactorKind::Webauthn => match new.challenge {
                None => self.start_webauthn(user, new, now),
                Some(challenge) => self.finish_webauthn(user, challenge, new, now),
            },
            FactorKind::U2f => Err(conflict(
                "U2F is no longer supported by browsers; register the key as type 'webauthn'",
            )),
            FactorKind::Yubico => Err(conflict(
                "Yubico's service cannot be asked by this server; register the key as type 'webauthn'",
            )),
        }
    }

    fn add_totp(
        &self,
        user: &UserId,
        new: &NewFactor<'_>,
        now: i64,
    ) -> Result<AddedFactor, EditError> {
        if new.challenge.is_some() {
            return Err(conflict(
                "'challenge' parameter is invalid for 'totp' entries",
            ));
        }
        let description = description(new)?;
        let (Some(uri), Some(value)) = (new.totp, new.value) else {
            return Err(conflict(
                "'totp' type requires both 'totp' and 'value' parameters",
            ));
        };
        let generator: Otpauth = uri
            .parse()
            .map_err(|error| EditError::parameter("totp", format!("{error}")))?;
        if generator.secret.len() < MIN_SECRET
            || !(6..=8).contains(&generator.digits)
            || !(10..=300).contains(&generator.period)
        {
            return Err(EditError::parameter(
                "totp",
                "expected a secret of 10 bytes or more, 6 to 8 digits and a period of 10 to 300 seconds",
            ));
        }
        if codes::matching_step(&generator, value, now).is_none() {
            return Err(conflict(
                "failed to verify TOTP challenge - check the code and the clocks of both devices",
            ));
        }
        state::change(&self.config, user, |factors| {
            check_room(factors)?;
            let entry = new_entry(description, TotpEntry::Unused(generator.to_uri()), now);
            let id = entry.id.clone();
            factors.totp.push(entry);
            Ok(added(id))
        })
    }

    fn add_recovery(
        &self,
        user: &UserId,
        new: &NewFactor<'_>,
        now: i64,
    ) -> Result<AddedFactor, EditError> {
        if new.totp.or(new.value).or(new.challenge).is_some() {
            return Err(conflict(
                "generating recovery tokens does not allow additional parameters",
            ));
        }
        state::change(&self.config, user, |factors| {
            if factors.recovery.is_some() {
                return Err(conflict(
                    "user already has recovery keys; remove them to get new ones",
                ));
            }
            let (set, codes) = recovery::generate(now)
                .ok_or_else(|| conflict("the system gives no random numbers"))?;
            factors.recovery = Some(set);
            Ok(AddedFactor {
                recovery: codes,
                ..added(RECOVERY.to_owned())
            })
        })
    }

    fn start_webauthn(
        &self,
        user: &UserId,
        new: &NewFactor<'_>,
        now: i64,
    ) -> Result<AddedFactor, EditError> {
        if new.totp.or(new.value).is_some() {
            return Err(conflict(
                "'totp' and 'value' parameters are invalid without the challenge of a security key",
            ));
        }
        let description = description(new)?.to_owned();
        let file = self.config.json(JsonFile::Tfa)?;
        let party = relying_party(&file).map_err(conflict)?;
        let factors = state::find(&file, user)?.unwrap_or_default();
        check_room(&factors)?;
        let challenge = self
            .pending
            .issue(user, Purpose::Register(description), now)
            .ok_or_else(|| conflict("the system gives no random numbers"))?;
        let options = party.creation_options(user, &challenge, &enabled_keys(&factors));
        Ok(AddedFactor {
            challenge: Some(options.to_string()),
            ..AddedFactor::default()
        })
    }

    fn finish_webauthn(
        &self,
        user: &UserId,
        challenge: &str,
        new: &NewFactor<'_>,
        now: i64,
    ) -> Result<AddedFactor, EditError> {
        if new.totp.is_some() {
            return Err(conflict(
                "'totp' parameter is invalid for 'webauthn' entries",
            ));
        }
        let value = new.value.ok_or_else(|| {
            conflict("missing 'value' parameter (webauthn challenge response missing)")
        })?;
        let response = RegistrationResponse::parse(value)
            .map_err(|error| EditError::parameter("value", format!("{error}")))?;
        let Some(Purpose::Register(description)) = self.pending.take(user, challenge, now) else {
            return Err(conflict(
                "no such challenge - it was answered already or is older than two minutes; start again",
            ));
        };
        let party = relying_party(&self.config.json(JsonFile::Tfa)?).map_err(conflict)?;
        let credential = party
            .register(&response, challenge)
            .map_err(|error| conflict(error.to_string()))?;
        state::change(&self.config, user, |factors| {
            check_room(factors)?;
            let id = credential.id();
            if factors.webauthn.iter().any(|own| own.entry.id() == id) {
                return Err(conflict("credential id already present"));
            }
            let entry = new_entry(&description, credential, now);
            let id = entry.id.clone();
            factors.webauthn.push(entry);
            Ok(added(id))
        })
    }
}

fn description<'a>(new: &NewFactor<'a>) -> Result<&'a str, EditError> {
    new.description
        .ok_or_else(|| conflict("'description' is required for new entries"))
}
