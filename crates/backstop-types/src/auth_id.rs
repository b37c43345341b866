//! Who asks: users, API tokens, realms. Never holds a secret.

use std::fmt;
use std::str::FromStr;

use crate::name::{
    NameError, PATTERN_MISMATCH, check_length, check_safe_id, is_safe_id, serde_text, text_impls,
    text_name,
};

text_name!(
    /// Where a user's password is checked: safe id, 2 to 32 characters.
    Realm, "realm", |text| check_safe_id(text, 2, 32)
);

text_name!(
    /// The name of an API token within its user: a safe id.
    TokenName, "token name", |text| check_safe_id(text, 1, usize::MAX)
);

/// Fewest and most characters of a user id or authentication id.
const LENGTH: (usize, usize) = (3, 64);

/// Whether `name` is a user name without realm: no white space, `/`, `:` or control characters.
fn is_user_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'))
}

/// A user: `name@realm`, 3 to 64 characters, split at the last `@`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Box<str>);

impl UserId {
    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user every server has and to whom everything is allowed: `root@pam`.
    #[must_use]
    pub fn root() -> Self {
        Self("root@pam".into())
    }

    /// Whether this is `root@pam`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "root@pam"
    }

    /// The name without the realm.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(name, _)| name)
    }

    /// The realm's text.
    #[must_use]
    pub fn realm(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, realm)| realm)
    }

    /// The id of this user's token `name`.
    ///
    /// # Errors
    /// When the joined text is longer than 64 characters.
    pub fn token(&self, name: &TokenName) -> Result<AuthId, NameError> {
        let auth_id = AuthId {
            user: self.clone(),
            token: Some(name.clone()),
        };
        let text = auth_id.to_string();
        match check_length(&text, LENGTH.0, LENGTH.1) {
            Ok(()) => Ok(auth_id),
            Err(reason) => Err(NameError::new("token id", &text, reason)),
        }
    }
}

impl FromStr for UserId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: String| NameError::new("user id", text, reason);
        check_length(text, LENGTH.0, LENGTH.1).map_err(error)?;
        match text.rsplit_once('@') {
            Some((name, realm)) if is_user_name(name) && is_safe_id(realm) => Ok(Self(text.into())),
            _ => Err(error(PATTERN_MISMATCH.to_string())),
        }
    }
}

text_impls!(UserId);

/// Whoever can be authenticated: a user, or an API token `user@realm!name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthId {
    user: UserId,
    token: Option<TokenName>,
}

impl AuthId {
    /// `root@pam`.
    #[must_use]
    pub fn root() -> Self {
        UserId::root().into()
    }

    /// Whether this is the user `root@pam`; its tokens are not.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.token.is_none() && self.user.is_root()
    }

    /// The user, for a token the one it belongs to.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        &self.user
    }

    /// The token's name; `None` for a user.
    #[must_use]
    pub const fn token_name(&self) -> Option<&TokenName> {
        self.token.as_ref()
    }

    /// Whether this is an API token.
    #[must_use]
    pub const fn is_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether what `owner` owns counts as owned by this id: the same id, or a token of this user.
    /// A token does not own what its user owns.
    #[must_use]
    pub fn owns(&self, owner: &Self) -> bool {
        self == owner || (self.token.is_none() && owner.user == self.user)
    }
}

impl From<UserId> for AuthId {
    fn from(user: UserId) -> Self {
        Self { user, token: None }
    }
}

impl fmt::Display for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            Some(token) => f.pad(&format!("{}!{token}", self.user)),
            None => f.pad(self.user.as_str()),
        }
    }
}

impl fmt::Debug for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthId({:?})", self.to_string())
    }
}

impl FromStr for AuthId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| NameError::new("authentication id", text, reason);
        check_length(text, LENGTH.0, LENGTH.1).map_err(|reason| error(&reason))?;
        let at = text.rfind('@').ok_or_else(|| error(PATTERN_MISMATCH))?;
        let (user, token) = match text.get(at..).and_then(|tail| tail.find('!')) {
            Some(mark) => {
                let mark = at + mark;
                let user = text.get(..mark).unwrap_or_default();
                let token = text.get(mark + 1..).unwrap_or_default();
                (
                    user,
                    Some(token.parse().map_err(|_| error(PATTERN_MISMATCH))?),
                )
            }
            None => (text, None),
        };
        let user = user.parse().map_err(|_| error(PATTERN_MISMATCH))?;
        Ok(Self { user, token })
    }
}

impl TryFrom<String> for AuthId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

serde_text!(AuthId);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_split_at_the_last_at() {
        let id: AuthId = "a@b!c@pbs!tok".parse().unwrap();
        assert_eq!(id.user().name(), "a@b!c");
        assert_eq!(id.user().realm(), "pbs");
        assert_eq!(id.token_name().unwrap().as_str(), "tok");
        let user: UserId = "a@b!c@pbs".parse().unwrap();
        assert_eq!(user, *id.user());
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in [
            "root",
            "@pam",
            "a@",
            "a b@pam",
            "a/b@pam",
            "a:b@pam",
            "a\n@pam",
            "a@p m",
            "a@pam!",
            "a@pam!t!u",
            "a@pam!-t",
            "",
        ] {
            assert!(text.parse::<AuthId>().is_err(), "{text:?}");
        }
        assert!("root@pam!tok".parse::<UserId>().is_err());
        assert!(format!("{}@pbs", "x".repeat(61)).parse::<UserId>().is_err());
        assert!(format!("{}@pbs", "x".repeat(60)).parse::<UserId>().is_ok());
        let user: UserId = format!("{}@pbs", "x".repeat(60)).parse().unwrap();
        assert!(user.token(&"t".parse().unwrap()).is_err());
    }

    #[test]
    fn only_the_user_root_is_root() {
        assert!(AuthId::root().is_root());
        assert!(!"root@pam!api".parse::<AuthId>().unwrap().is_root());
        assert!(!"root@pbs".parse::<AuthId>().unwrap().is_root());
    }

    #[test]
    fn a_user_owns_what_its_tokens_own_but_not_the_reverse() {
        let user: AuthId = "u@pbs".parse().unwrap();
        let token: AuthId = "u@pbs!t".parse().unwrap();
        let other: AuthId = "u@pbs!o".parse().unwrap();
        assert!(user.owns(&user) && user.owns(&token) && token.owns(&token));
        assert!(!token.owns(&user) && !token.owns(&other));
    }

    proptest! {
        #[test]
        fn an_id_survives_its_text(name in "[!-.0-9;-~é]{1,20}", realm in "[a-z][a-z0-9.-]{1,9}", token in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9._-]{0,9}")) {
            let text = match &token { Some(t) => format!("{name}@{realm}!{t}"), None => format!("{name}@{realm}") };
            let id: AuthId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), text.clone());
            prop_assert_eq!(id.is_token(), token.is_some());
            prop_assert_eq!(id.user().to_string(), format!("{name}@{realm}"));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<AuthId>(&json).unwrap(), id);
        }

        #[test]
        fn whatever_parses_prints_the_same(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<AuthId>() { prop_assert_eq!(id.to_string(), text); }
        }
    }
}
