//! Rules of the table, and who fulfils them. On purpose this shares no code with the server: neither the parser nor what roles grant.

use std::collections::{BTreeMap, BTreeSet};

/// What the roles grant, as `roles.tsv` has it.
#[derive(Debug)]
pub struct Roles(BTreeMap<&'static str, BTreeSet<&'static str>>);

impl Roles {
    pub fn read() -> Self {
        let lines = include_str!("roles.tsv").lines();
        let roles = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (role, privileges) = line.split_once('\t').unwrap_or((line, ""));
                (role, privileges.split_whitespace().collect())
            });
        Self(roles.collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    pub fn privileges(&self, role: &str) -> &BTreeSet<&'static str> {
        self.0
            .get(role)
            .unwrap_or_else(|| panic!("roles.tsv has no role {role}"))
    }
}

/// One alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    World,
    Anybody,
    Superuser,
    /// The user whom `{userid}` names.
    Oneself,
    /// One of these privileges at a path; with `owned` only for who owns the group.
    Held {
        privileges: Vec<String>,
        path: String,
        owned: bool,
    },
}

/// All of several alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(Vec<Vec<Need>>);

/// Somebody whose rights are known.
pub struct Caller<'a> {
    pub logged_in: bool,
    /// Whether the call is about its own user.
    pub is_self: bool,
    /// Whether the group is its own.
    pub owns: bool,
    /// What it holds at a path.
    pub holds: &'a dyn Fn(&str) -> BTreeSet<&'static str>,
}

impl Rule {
    /// Reads a rule; `fill` gives the values of the parameters in its paths.
    pub fn parse(text: &str, fill: &dyn Fn(&str) -> String) -> Result<Self, String> {
        let alternatives = |text: &str| {
            let needs = text
                .split(" or ")
                .map(|text| Need::parse(text.trim(), fill));
            needs.collect::<Result<Vec<_>, _>>()
        };
        text.split(" and ")
            .map(alternatives)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn allows(&self, caller: &Caller<'_>) -> bool {
        self.0
            .iter()
            .all(|needs| needs.iter().any(|need| need.is_met(caller)))
    }

    pub fn is_for_the_world(&self) -> bool {
        self.0.iter().flatten().all(|need| *need == Need::World)
    }

    pub fn speaks_of_owners(&self) -> bool {
        let owned = |need: &Need| matches!(need, Need::Held { owned: true, .. });
        self.0.iter().flatten().any(owned)
    }

    pub fn speaks_of_oneself(&self) -> bool {
        self.0.iter().flatten().any(|need| *need == Need::Oneself)
    }

    /// The paths that it names, each once.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = BTreeSet::new();
        for need in self.0.iter().flatten() {
            if let Need::Held { path, .. } = need {
                paths.insert(path.clone());
            }
        }
        paths.into_iter().collect()
    }
}

impl Need {
    fn parse(text: &str, fill: &dyn Fn(&str) -> String) -> Result<Self, String> {
        match text {
            "World" => return Ok(Self::World),
            "Anybody" => return Ok(Self::Anybody),
            "Superuser" => return Ok(Self::Superuser),
            "self" => return Ok(Self::Oneself),
            _ => {}
        }
        let (text, owned) = match text.strip_prefix("owner:") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let Some((privileges, path)) = text.split_once('@') else {
            return Err(format!("{text:?} is no part of a rule"));
        };
        let mut filled = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let name = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'));
            filled.push('/');
            filled.push_str(&name.map_or_else(|| part.to_owned(), fill));
        }
        if filled.is_empty() {
            filled.push('/');
        }
        let roles = Roles::read();
        let known = roles.privileges("Admin");
        let privileges: Vec<String> = privileges.split('|').map(str::to_owned).collect();
        match privileges
            .iter()
            .find(|name| !known.contains(name.as_str()))
        {
            Some(unknown) => Err(format!("there is no privilege {unknown}")),
            None => Ok(Self::Held {
                privileges,
                path: filled,
                owned,
            }),
        }
    }

    fn is_met(&self, caller: &Caller<'_>) -> bool {
        match self {
            Self::World => true,
            _ if !caller.logged_in => false,
            Self::Anybody => true,
            // Nobody here is the superuser.
            Self::Superuser => false,
            Self::Oneself => caller.is_self,
            Self::Held {
                privileges,
                path,
                owned,
            } => {
                let held = (caller.holds)(path);
                (!owned || caller.owns)
                    && privileges.iter().any(|name| held.contains(name.as_str()))
            }
        }
    }
}
