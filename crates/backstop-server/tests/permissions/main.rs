//! Who may call what: every endpoint of the server is tried as every kind of user, and compared with `endpoints.tsv`.
//!
//! The endpoints come from the router's own tree, so that none can be forgotten; the rules come from the table, which was
//! written down from the documentation of the interface and shares nothing with the declarations in the code. A `gate` is tried
//! with a parameter that no call knows: who is let in gets to hear of that parameter, and no handler ever runs. Calls that
//! decide `inside` are really made; where they are refused, no file may have changed, and where not, the files are put back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod abuse;
mod rule;
mod secrets;
mod setting;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use backstop_server::router::Endpoint;
use backstop_server::router::tree::Tree;
use backstop_types::Role;
use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rule::{Caller, Roles, Rule};
use setting::{Answer, Login, Setting};
use table::{Check, Row};

/// Values of parameters that no line names.
const USUAL: &[(&str, &str)] = &[
    ("node", "localhost"),
    ("store", "store1"),
    ("ns", "team-b"),
    ("backup-type", "host"),
    ("backup-id", "overlap"),
    ("backup-time", "1750000700"),
    ("userid", "victim@pbs"),
    ("token-name", "one"),
];
/// What a parameter of a path is when nothing else says.
const ANYTHING: &str = "thing1";

/// Somebody who calls.
struct Person {
    name: String,
    login: Login,
    /// Where which role is held: path, whether it holds below, role.
    grants: Vec<Grant>,
    /// What the user of a token holds, who is then the limit.
    limit: Option<Vec<Grant>>,
}

type Grant = (String, bool, &'static str);

impl Person {
    fn user(name: &str, grants: Vec<Grant>) -> Self {
        Self {
            name: format!("{name} ({grants:?})"),
            login: Login::User(format!("{name}@pbs")),
            grants,
            limit: None,
        }
    }

    fn token(id: String, grants: Vec<Grant>, limit: Vec<Grant>) -> Self {
        Self {
            name: format!("{id} ({grants:?}, of a user with {limit:?})"),
            login: Login::Token(id),
            grants,
            limit: Some(limit),
        }
    }

    /// Name of the user, also of a token.
    fn userid(&self) -> &str {
        match &self.login {
            Login::Nobody => "",
            Login::User(user) => user,
            Login::Token(token) | Login::NewToken(token, _) => {
                token.split('!').next().unwrap_or_default()
            }
        }
    }

    fn holds(&self, roles: &Roles, path: &str) -> BTreeSet<&'static str> {
        let held = held(&self.grants, roles, path);
        match &self.limit {
            None => held,
            Some(limit) => &held & &self::held(limit, roles, path),
        }
    }
}

/// The nearest grant on the way to a path decides.
fn held(grants: &[Grant], roles: &Roles, path: &str) -> BTreeSet<&'static str> {
    let reaches = |(at, below, _): &&Grant| {
        path == at
            || *below
                && (at == "/"
                    || path
                        .strip_prefix(at.as_str())
                        .is_some_and(|rest| rest.starts_with('/')))
    };
    let nearest = grants
        .iter()
        .filter(reaches)
        .max_by_key(|(at, _, _)| at.len());
    nearest
        .map(|(_, _, role)| roles.privileges(role).clone())
        .unwrap_or_default()
}

/// `user.cfg` and the tokens in it, for [`people`].
fn user_cfg(roles: &Roles) -> (String, Vec<String>) {
    let mut text = String::from(
        "user: root@pam\n\nuser: victim@pbs\n\nuser: plain@pbs\n\nuser: above@pbs\n\nuser: below@pbs\n\nuser: boss@pbs\n\n\
         user: expired@pbs\n\texpire 1600000000\n\nuser: disabled@pbs\n\tenable false\n",
    );
    let mut tokens = vec!["victim@pbs!one".to_owned(), "expired@pbs!t".to_owned()];
    for role in roles.names() {
        let _ = write!(text, "\nuser: at-{role}@pbs\n\nuser: beside-{role}@pbs\n");
        tokens.extend([format!("boss@pbs!{role}"), format!("at-{role}@pbs!full")]);
    }
    for token in &tokens {
        let _ = write!(text, "\ntoken: {token}\n");
    }
    for (token, state) in [
        ("plain@pbs!expired", "expire 1600000000"),
        ("plain@pbs!disabled", "enable false"),
    ] {
        let _ = write!(text, "\ntoken: {token}\n\t{state}\n");
        tokens.push(token.to_owned());
    }
    (text, tokens)
}

/// Everybody who has something to do with these paths: without grants, with each role there, with each beside it, above it,
/// and tokens that may less than their users or whose users may less.
fn people(roles: &Roles, paths: &[String]) -> Vec<Person> {
    let on = |at: &dyn Fn(&str) -> String, below, role| -> Vec<Grant> {
        paths.iter().map(|path| (at(path), below, role)).collect()
    };
    let there = |path: &str| path.to_owned();
    let beside = |path: &str| match path {
        "/" => "/elsewhere".to_owned(),
        path => format!("{path}-beside"),
    };
    let above = |path: &str| match path.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
    };
    let admin = vec![("/".to_owned(), true, "Admin")];
    let mut people = vec![
        Person::user("plain", Vec::new()),
        Person::user("below", on(&above, true, "Admin")),
    ];
    if !paths.iter().any(|path| path == "/") {
        people.push(Person::user("above", on(&above, false, "Admin")));
    }
    for role in roles.names() {
        let here = on(&there, true, role);
        people.push(Person::user(&format!("at-{role}"), here.clone()));
        people.push(Person::user(
            &format!("beside-{role}"),
            on(&beside, true, role),
        ));
        people.push(Person::token(
            format!("boss@pbs!{role}"),
            here.clone(),
            admin.clone(),
        ));
        people.push(Person::token(
            format!("at-{role}@pbs!full"),
            admin.clone(),
            here,
        ));
    }
    people
}

/// `acl.cfg` for these people.
fn acl_cfg(people: &[Person]) -> String {
    let mut rules = String::from("acl:1:/datastore/seen-by-auditors:victim@pbs:Audit\n");
    for person in people {
        let id = match &person.login {
            Login::Nobody => continue,
            Login::User(id) | Login::Token(id) | Login::NewToken(id, _) => id,
        };
        for (path, below, role) in &person.grants {
            let _ = writeln!(rules, "acl:{}:{path}:{id}:{role}", u8::from(*below));
        }
    }
    rules.push_str("acl:1:/:boss@pbs:Admin\n");
    rules
}

/// Where roles are granted to try a rule: at each of its paths alone, and at all of them.
fn grant_sets(rule: &Rule) -> Vec<Vec<String>> {
    let paths = rule.paths();
    let mut sets: Vec<Vec<String>> = paths.iter().map(|path| vec![path.clone()]).collect();
    if paths.len() != 1 {
        sets.push(if paths.is_empty() {
            vec!["/".to_owned()]
        } else {
            paths
        });
    }
    sets
}

/// The values of the parameters of one call.
struct Call<'a> {
    row: &'a Row,
    endpoint: &'a Endpoint,
    /// The user that the path names, when it is not the usual one.
    userid: Option<&'a str>,
}

impl Call<'_> {
    fn value(&self, name: &str) -> Option<String> {
        if let (Some(user), "userid") = (self.userid, name) {
            return Some(user.to_owned());
        }
        let usual = || {
            USUAL
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        self.row.values.get(name).cloned().or_else(usual)
    }

    fn rule(&self) -> Rule {
        // The line may call the parameters of the path by other names.
        let names = |path: &str| -> Vec<String> {
            let name = |part: &str| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned());
            path.split('/').filter_map(name).collect()
        };
        let own: BTreeMap<String, String> = names(&self.row.path)
            .into_iter()
            .zip(names(self.endpoint.path))
            .collect();
        let fill = |name: &str| {
            self.value(own.get(name).map_or(name, String::as_str))
                .unwrap_or_else(|| ANYTHING.to_owned())
        };
        Rule::parse(&self.row.rule, &fill)
            .unwrap_or_else(|err| panic!("{} {}: {err}", self.row.method, self.row.path))
    }

    fn path(&self) -> String {
        let fill = |part: &str| match part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            Some(name) => encoded(&self.value(name).unwrap_or_else(|| ANYTHING.to_owned())),
            None => part.to_owned(),
        };
        self.endpoint
            .path
            .split('/')
            .map(fill)
            .collect::<Vec<_>>()
            .join("/")
    }

    /// All that the call needs, and what its line adds.
    fn query(&self) -> String {
        let mut pairs = Vec::new();
        for param in self.endpoint.params {
            let in_path = self.endpoint.path.contains(&format!("{{{}}}", param.name));
            let named = self.row.values.contains_key(param.name)
                || self.row.more.iter().any(|name| name == param.name);
            if in_path || param.optional && !named {
                continue;
            }
            let value = self.value(param.name).unwrap_or_else(|| {
                panic!(
                    "{} {} needs {}=VALUE among its words",
                    self.row.method, self.row.path, param.name
                )
            });
            pairs.push(format!("{}={}", param.name, encoded(&value)));
        }
        pairs.join("&")
    }

    /// Tries the call, and tells whether the person was let in.
    async fn is_let_in(&self, setting: &mut Setting, login: &Login) -> Result<bool, String> {
        let row = self.row;
        let query = match row.check {
            Check::Gate => "no-such-parameter=1".to_owned(),
            Check::Inside | Check::List => self.query(),
        };
        let target = format!("{}?{query}", self.path());
        let answer = setting
            .send(&row.method, &target, login, row.upgrade.as_deref())
            .await;
        let changed = if row.check == Check::Inside {
            setting.settle().await;
            let changed = setting.changed();
            setting.restore();
            changed
        } else {
            Vec::new()
        };
        let let_in = self.judge(&answer)?;
        if let_in || changed.is_empty() {
            return Ok(let_in);
        }
        Err(format!(
            "refused ({answer:?}), but changed all the same: {changed:?}"
        ))
    }

    fn judge(&self, answer: &Answer) -> Result<bool, String> {
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status);
        match self.row.check {
            Check::Gate if refused => Ok(false),
            Check::Gate
                if answer.text.contains(
                    "'no-such-parameter': schema does not allow additional properties.",
                ) =>
            {
                Ok(true)
            }
            Check::Gate => Err(format!("neither refused nor let in: {answer:?}")),
            Check::Inside => {
                let says = self
                    .row
                    .says
                    .as_ref()
                    .is_some_and(|says| answer.text.contains(says.as_str()));
                Ok(answer.status.is_success() || says && !refused)
            }
            Check::List => {
                let sees = self.row.sees.as_deref().unwrap_or_default();
                Ok(answer.status.is_success() && answer.text.contains(sees))
            }
        }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn served() -> Tree {
    Tree::new(backstop_server::api::endpoints()).unwrap()
}

fn pairs(tree: &Tree) -> Vec<(Row, &Endpoint)> {
    table::matched(table::rows(), &tree.endpoints()).0
}

/// Tries everything of one kind.
async fn try_all(check: Check) {
    let roles = Roles::read();
    let (users, tokens) = user_cfg(&roles);
    let mut setting = Setting::start(&users, &tokens).await;
    let tree = served();
    let mut faults = String::new();
    let mut count = 0;
    for (row, endpoint) in pairs(&tree)
        .into_iter()
        .filter(|(row, _)| row.check == check)
    {
        let call = Call {
            row: &row,
            endpoint,
            userid: None,
        };
        let rule = call.rule();
        for paths in grant_sets(&rule) {
            let people = people(&roles, &paths);
            setting.set_rules(&acl_cfg(&people));
            for person in &people {
                let mut tries = vec![(false, false)];
                if rule.speaks_of_oneself() {
                    tries.push((true, false));
                }
                if rule.speaks_of_owners() && person.limit.is_none() {
                    tries.push((false, true));
                }
                for (own_user, owns) in tries {
                    let call = Call {
                        userid: own_user.then(|| person.userid()),
                        ..call
                    };
                    if owns {
                        setting.set_owner(person.userid());
                    }
                    let expected = rule.allows(&Caller {
                        logged_in: true,
                        is_self: own_user && person.limit.is_none(),
                        owns,
                        holds: &|path| person.holds(&roles, path),
                    });
                    let tried = call.is_let_in(&mut setting, &person.login).await;
                    if owns {
                        setting.set_owner("victim@pbs");
                    }
                    count += 1;
                    let what = match tried {
                        Ok(let_in) if let_in == expected => continue,
                        Ok(true) => "was let in".to_owned(),
                        Ok(false) => "was not let in".to_owned(),
                        Err(fault) => fault,
                    };
                    let _ = writeln!(
                        faults,
                        "{} {}: {}{}{} {what}; the rule is: {}",
                        row.method,
                        row.path,
                        person.name,
                        if own_user {
                            ", calling about itself,"
                        } else {
                            ""
                        },
                        if owns { ", who owns the group," } else { "" },
                        row.rule
                    );
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{count} calls, {} faults:\n{faults}",
        faults.lines().count()
    );
    assert!(count > 0);
}

#[test]
fn every_endpoint_has_its_line_and_whatever_stock_peers_call_is_served() {
    let tree = served();
    let (_, faults) = table::matched(table::rows(), &tree.endpoints());
    assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
}

#[test]
fn roles_grant_what_their_documentation_says() {
    let roles = Roles::read();
    let own: BTreeMap<&str, BTreeSet<&str>> = Role::ALL
        .iter()
        .map(|role| {
            (
                role.as_str(),
                role.privileges().names().into_iter().collect(),
            )
        })
        .collect();
    let expected: BTreeMap<&str, BTreeSet<&str>> = roles
        .names()
        .map(|role| (role, roles.privileges(role).clone()))
        .collect();
    assert_eq!(own, expected);
}

#[tokio::test(start_paused = true)]
async fn each_role_opens_its_own_gates_and_no_others() {
    try_all(Check::Gate).await;
}

#[tokio::test(start_paused = true)]
async fn handlers_let_in_whom_they_should_and_change_nothing_for_others() {
    try_all(Check::Inside).await;
}

#[tokio::test(start_paused = true)]
async fn lists_show_what_the_caller_may_see_and_hide_the_rest() {
    try_all(Check::List).await;
}

#[tokio::test(start_paused = true)]
async fn those_who_are_not_logged_in_disabled_or_expired_get_in_nowhere_but_where_the_world_does() {
    let roles = Roles::read();
    let (users, tokens) = user_cfg(&roles);
    let mut setting = Setting::start(&users, &tokens).await;
    // However much they were granted.
    let outcasts = [
        "disabled@pbs",
        "expired@pbs",
        "expired@pbs!t",
        "plain@pbs!expired",
        "plain@pbs!disabled",
        "nobody@pbs",
        "plain@pbs!none",
    ];
    let rules: String = outcasts
        .iter()
        .map(|id| format!("acl:1:/:{id}:Admin\n"))
        .collect();
    setting.set_rules(&format!("{rules}acl:1:/:plain@pbs:Admin\n"));
    let mut logins = vec![Login::Nobody];
    for id in outcasts {
        logins.push(if id.contains('!') {
            Login::Token(id.to_owned())
        } else {
            Login::User(id.to_owned())
        });
    }
    let tree = served();
    let mut faults = String::new();
    for (row, endpoint) in pairs(&tree) {
        let call = Call {
            row: &row,
            endpoint,
            userid: None,
        };
        let world = call.rule().is_for_the_world();
        for login in &logins {
            let target = format!("{}?no-such-parameter=1", call.path());
            let answer = setting.send(&row.method, &target, login, None).await;
            let expected = if world {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::UNAUTHORIZED
            };
            if answer.status != expected {
                let _ = writeln!(
                    faults,
                    "{} {} as {login:?}: {answer:?}",
                    row.method, row.path
                );
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    assert_eq!(setting.changed(), Vec::<std::path::PathBuf>::new());
}

/// Directories of the tree without an endpoint of their own are lists of names, for everybody who is logged in.
#[tokio::test(start_paused = true)]
async fn lists_of_what_lies_below_are_for_every_login() {
    let roles = Roles::read();
    let (users, tokens) = user_cfg(&roles);
    let mut setting = Setting::start(&users, &tokens).await;
    let tree = served();
    let served: BTreeSet<String> = pairs(&tree)
        .iter()
        .filter(|(row, _)| row.method == "GET")
        .map(|(_, endpoint)| endpoint.path.to_owned())
        .collect();
    let mut folders = BTreeSet::new();
    for endpoint in tree.endpoints() {
        let ends = endpoint
            .path
            .match_indices('/')
            .map(|(at, _)| endpoint.path[..at].to_owned());
        folders.extend(ends.filter(|path| !served.contains(path)));
    }
    assert!(folders.contains("/access") && folders.contains(""));
    for folder in folders {
        let path: Vec<&str> = folder
            .split('/')
            .map(|part| {
                if part.starts_with('{') {
                    ANYTHING
                } else {
                    part
                }
            })
            .collect();
        let path = path.join("/");
        let user = Login::User("plain@pbs".to_owned());
        let answer = setting.send("GET", &path, &user, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{folder}: {answer:?}");
        let answer = setting.send("GET", &path, &Login::Nobody, None).await;
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "{folder}: {answer:?}"
        );
    }
}
