//! Who may call an endpoint.

use backstop_types::{AuthId, Privileges};

/// The rule of one endpoint. It is checked before any look-up, so that nothing can be probed.
#[derive(Debug, Clone, Copy)]
pub enum Permission {
    /// Everybody, without log-in.
    World,
    /// Every valid log-in; the handler shows each caller only what it may see.
    Anybody,
    /// `root@pam` alone.
    Superuser,
    /// The user whom the parameter names. Tokens never match.
    UserParam(&'static str),
    /// A privilege on a path; `{name}` in the path stands for a parameter.
    Privilege {
        /// Path template, such as `/datastore/{store}`.
        path: &'static str,
        /// What is needed there.
        privileges: Privileges,
        /// Whether one of the privileges is enough.
        any: bool,
    },
    /// One of several rules is enough.
    Or(&'static [Permission]),
    /// All of several rules are needed.
    And(&'static [Permission]),
}

impl Permission {
    /// All of `privileges` on `path`.
    pub const fn all(path: &'static str, privileges: Privileges) -> Self {
        Self::Privilege {
            path,
            privileges,
            any: false,
        }
    }

    /// One of `privileges` on `path`.
    pub const fn any(path: &'static str, privileges: Privileges) -> Self {
        Self::Privilege {
            path,
            privileges,
            any: true,
        }
    }

    /// Whether the rule lets the caller in.
    ///
    /// `parameter` looks up path parameters; `granted` tells the caller's privileges on a path.
    pub fn allows<'a>(
        &self,
        caller: Option<&AuthId>,
        parameter: &dyn Fn(&str) -> Option<&'a str>,
        granted: &dyn Fn(&AuthId, &str) -> Privileges,
    ) -> bool {
        let Some(caller) = caller else {
            return matches!(self, Self::World);
        };
        match self {
            Self::World | Self::Anybody => true,
            Self::Superuser => caller.is_root(),
            Self::UserParam(name) => parameter(name).is_some_and(|user| user == caller.to_string()),
            Self::Privilege {
                path,
                privileges,
                any,
            } => {
                let Some(path) = fill(path, parameter) else {
                    return false;
                };
                let held = granted(caller, &path);
                if *any {
                    held.intersects(*privileges)
                } else {
                    held.contains(*privileges)
                }
            }
            Self::Or(rules) => rules
                .iter()
                .any(|rule| rule.allows(Some(caller), parameter, granted)),
            Self::And(rules) => rules
                .iter()
                .all(|rule| rule.allows(Some(caller), parameter, granted)),
        }
    }
}

/// Puts parameters into a path template. `None` when one is not there.
fn fill<'a>(template: &str, parameter: &dyn Fn(&str) -> Option<&'a str>) -> Option<String> {
    let mut path = String::new();
    for part in template.split('/').filter(|part| !part.is_empty()) {
        let value = match part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            Some(name) => parameter(name)?,
            None => part,
        };
        path.push('/');
        path.push_str(value);
    }
    if path.is_empty() {
        path.push('/');
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn allows(rule: Permission, caller: &str) -> bool {
        let caller: Option<AuthId> = (!caller.is_empty()).then(|| caller.parse().unwrap());
        let parameter = |name: &str| match name {
            "store" => Some("s1"),
            "userid" => Some("a@pbs"),
            _ => None,
        };
        let granted = |id: &AuthId, path: &str| match (id.to_string().as_str(), path) {
            ("a@pbs", "/datastore/s1") => Privileges::DATASTORE_AUDIT,
            ("root@pam", _) => Privileges::ALL,
            _ => Privileges::NONE,
        };
        rule.allows(caller.as_ref(), &parameter, &granted)
    }

    #[test]
    fn a_rule_lets_in_whom_it_names_and_nobody_else() {
        let both = Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_BACKUP);
        assert!(allows(Permission::World, ""));
        assert!(!allows(Permission::Anybody, ""));
        assert!(allows(Permission::Superuser, "root@pam"));
        assert!(!allows(Permission::Superuser, "root@pam!tok"));
        assert!(allows(Permission::UserParam("userid"), "a@pbs"));
        assert!(!allows(Permission::UserParam("userid"), "a@pbs!tok"));
        assert!(allows(Permission::any("/datastore/{store}", both), "a@pbs"));
        assert!(!allows(
            Permission::all("/datastore/{store}", both),
            "a@pbs"
        ));
        assert!(!allows(
            Permission::any("/datastore/{store}", both),
            "b@pbs"
        ));
        assert!(!allows(
            Permission::any("/datastore/{missing}", both),
            "root@pam"
        ));
    }

    #[test]
    fn rules_can_be_combined() {
        const RULES: &[Permission] = &[Permission::Superuser, Permission::UserParam("userid")];
        assert!(allows(Permission::Or(RULES), "a@pbs"));
        assert!(!allows(Permission::And(RULES), "a@pbs"));
        assert!(!allows(Permission::Or(RULES), ""));
    }
}
