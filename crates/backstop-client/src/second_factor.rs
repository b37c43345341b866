//! What a server asks for after the password, and how the answer of somebody at a terminal is sent.
//!
//! Security keys need a browser: they are named, and never asked for here.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::{ClientError, Result};

/// The second factors that a server accepts for a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondFactorRequest {
    /// Who logs in.
    pub user: String,
    /// Whether a one-time password is accepted.
    pub one_time_password: bool,
    /// How many recovery codes are left.
    pub recovery_codes: usize,
    /// Whether a security key is accepted, in a browser.
    pub security_key: bool,
    /// Whether an earlier answer was refused.
    pub was_refused: bool,
}

/// Digits and dashes of a recovery code.
const RECOVERY_DIGITS: usize = 16;

impl SecondFactorRequest {
    /// What tickets begin with that wait for a second factor.
    pub(crate) const TICKET_PREFIX: &str = "PBS:!tfa!";

    /// Reads the challenge inside a ticket. What cannot be read is not offered.
    pub(crate) fn of_ticket(user: &str, ticket: &str) -> Self {
        let data = ticket
            .strip_prefix(Self::TICKET_PREFIX)
            .and_then(|rest| rest.split(':').next())
            .unwrap_or_default();
        let challenge: Value = percent_decode_str(data)
            .decode_utf8()
            .ok()
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or_default();
        Self {
            user: user.to_owned(),
            one_time_password: challenge["totp"] == true,
            recovery_codes: challenge["recovery"].as_array().map_or(0, Vec::len),
            security_key: challenge["webauthn"].is_object() || challenge["u2f"].is_object(),
            was_refused: false,
        }
    }

    /// What is accepted, in words.
    #[must_use]
    pub fn needed(&self) -> String {
        let mut kinds = Vec::new();
        if self.one_time_password {
            kinds.push("a one-time password");
        }
        if self.recovery_codes > 0 {
            kinds.push("a recovery code");
        }
        if self.security_key {
            kinds.push("a security key");
        }
        if kinds.is_empty() {
            return "none that is left".to_owned();
        }
        kinds.join(" or ")
    }

    /// The question to put to somebody at a terminal.
    #[must_use]
    pub fn question(&self) -> String {
        let kinds = match (self.one_time_password, self.recovery_codes > 0) {
            (true, true) => "One-time password or recovery code",
            (false, true) => "Recovery code",
            _ => "One-time password",
        };
        format!("{kinds} for \"{}\": ", self.user)
    }

    /// Fails when nothing can be typed in that would be accepted.
    pub(crate) fn check_typable(&self) -> Result<()> {
        if self.one_time_password || self.recovery_codes > 0 {
            return Ok(());
        }
        let reason = if self.security_key {
            "only a web browser can ask a security key; use an API token here, or add a one-time password in the web interface"
        } else {
            "have an administrator remove the used-up factors (proxmox-backup-manager user tfa delete), or use an API token"
        };
        Err(self.refuse(reason))
    }

    pub(crate) fn nobody_to_ask(&self) -> ClientError {
        self.refuse("there is no terminal to ask for it; use an API token for unattended access")
    }

    fn refuse(&self, reason: &'static str) -> ClientError {
        ClientError::SecondFactor {
            user: self.user.clone(),
            needed: self.needed(),
            reason,
        }
    }

    /// The answer to send for what was typed; `None` when it is of no accepted kind.
    pub(crate) fn answer(&self, typed: &str) -> Option<String> {
        let bare: String = typed
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let is_code = bare.len() == RECOVERY_DIGITS && bare.bytes().all(|b| b.is_ascii_hexdigit());
        if is_code && self.recovery_codes > 0 {
            let groups: Vec<&str> = (0..4).filter_map(|n| bare.get(n * 4..n * 4 + 4)).collect();
            return Some(format!("recovery:{}", groups.join("-")));
        }
        let is_password = !is_code && !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
        (is_password && self.one_time_password).then(|| format!("totp:{bare}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(challenge: &str) -> SecondFactorRequest {
        let data =
            percent_encoding::utf8_percent_encode(challenge, percent_encoding::NON_ALPHANUMERIC);
        SecondFactorRequest::of_ticket("u@pbs", &format!("PBS:!tfa!{data}:00000000::x"))
    }

    #[test]
    fn what_is_typed_is_sent_as_its_kind() {
        let both = of(r#"{"totp":true,"recovery":[0,7]}"#);
        assert_eq!(both.recovery_codes, 2);
        assert_eq!(both.needed(), "a one-time password or a recovery code");
        assert_eq!(both.answer(" 123 456 "), Some("totp:123456".to_owned()));
        assert_eq!(
            both.answer("0123-4567-89AB-cdef"),
            Some("recovery:0123-4567-89ab-cdef".to_owned())
        );
        assert_eq!(
            both.answer("0123456789012345"),
            Some("recovery:0123-4567-8901-2345".to_owned())
        );
        for typed in ["", "abc", "123-é", "totp:1"] {
            assert_eq!(both.answer(typed), None, "{typed}");
        }
        let totp = of(r#"{"totp":true}"#);
        assert_eq!(totp.answer("0123-4567-89ab-cdef"), None);
        assert!(totp.check_typable().is_ok());
    }

    #[test]
    fn what_needs_a_browser_is_said() {
        let key = of(r#"{"webauthn":{"publicKey":{}}}"#);
        let error = key.check_typable().unwrap_err().to_string();
        assert!(
            error.contains("a security key") && error.contains("web browser"),
            "{error}"
        );
        let used_up = of(r#"{"recovery":[]}"#).check_typable().unwrap_err();
        assert!(used_up.to_string().contains("used-up"), "{used_up}");
        assert!(of("nonsense").check_typable().is_err());
        let error = of(r#"{"totp":true}"#).nobody_to_ask().to_string();
        assert!(
            error.contains("one-time password") && error.contains("no terminal"),
            "{error}"
        );
    }
}
