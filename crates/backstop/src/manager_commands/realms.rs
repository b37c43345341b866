//! `ldap …`, `ad …` and `openid …`: realms whose users are known elsewhere. Only a sync needs the server; directories are
//! asked from here.

use std::process::ExitCode;

use backstop_server::access::realm::{AD, Draft, LDAP, OPENID, RealmKind};
use backstop_types::config_schema::access::REMOVE_VANISHED;
use backstop_types::config_schema::value;
use serde_json::{Map, Value, json};

use super::local_server::LocalServer;
use super::settings::{self, DIGEST};
use super::{configuration, job_states};
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Record, Table};

const DIRECTORY_COLUMNS: &[Column] = &[
    Column::text("realm"),
    Column::text("server1"),
    Column::text("comment"),
];

/// All realms of LDAP servers.
pub const LDAP_LIST: Table = Table::new(DIRECTORY_COLUMNS);
/// All realms of Active Directories.
pub const AD_LIST: Table = Table::new(DIRECTORY_COLUMNS);
/// All realms of OpenID providers.
pub const OPENID_LIST: Table = Table::new(&[
    Column::text("realm"),
    Column::text("issuer-url"),
    Column::text("comment"),
]);

/// A realm of a directory: its first settings in the order of its kind, then those that all kinds show alike.
macro_rules! directory_realm {
    ($($first:literal),+) => {
        Record::new(&[
            $(Column::text($first),)+
            Column::text("bind-dn"),
            Column::text("capath"),
            Column::text("comment"),
            Column::number("default"),
            Column::text("filter"),
            Column::text("mode"),
            Column::number("port"),
            Column::text("server2"),
            Column::text("sync-attributes"),
            Column::text("sync-defaults-options"),
            Column::text("user-classes"),
            Column::number("verify"),
        ])
    };
}

/// A realm of an LDAP server.
pub const LDAP_REALM: Record = directory_realm!("base-dn", "realm", "server1", "user-attr");

/// A realm of an Active Directory.
pub const AD_REALM: Record = directory_realm!("realm", "server1", "base-dn");

/// A realm of an OpenID provider.
pub const OPENID_REALM: Record = Record::new(&[
    Column::text("client-id"),
    Column::text("issuer-url"),
    Column::text("realm"),
    Column::text("acr-values"),
    Column::text("audiences"),
    Column::number("autocreate"),
    Column::text("client-key"),
    Column::text("comment"),
    Column::number("default"),
    Column::text("prompt"),
    Column::text("scopes"),
    Column::text("username-claim"),
]);

const REALM: Parameter = Parameter::of(
    "realm",
    "The name of the realm, as in name@REALM.",
    &value::REALM,
);
const PASSWORD: Parameter = Parameter::of(
    "password",
    "The password of bind-dn; it can be seen in the list of processes while the command runs.",
    &value::PASSWORD,
);

const DIRECTORY: &[(&str, &str)] = &[
    (
        "server1",
        "The directory server: a host name or an address.",
    ),
    (
        "server2",
        "The server to ask when the first cannot be reached.",
    ),
    ("port", "The port; without it, 389, or 636 for ldaps."),
    ("base-dn", "The entry below which users are looked for."),
    (
        "user-attr",
        "The attribute that holds the name of a user, such as uid.",
    ),
    ("comment", "A comment."),
    ("default", "Whether the login dialogue proposes this realm."),
    ("mode", "How the connection is protected."),
    (
        "verify",
        "Whether the server's certificate must be trusted.",
    ),
    (
        "capath",
        "Certificates to trust: a file, beside the system's authorities, or a directory, instead of them.",
    ),
    (
        "bind-dn",
        "The entry to search as; without it, searches are anonymous.",
    ),
    (
        "filter",
        "An LDAP filter that users must match to be synced.",
    ),
    (
        "sync-defaults-options",
        "What a sync does unless it is told otherwise: remove-vanished=acl;entry;properties,enable-new=BOOL.",
    ),
    (
        "sync-attributes",
        "Which attributes hold names and mail addresses: email=NAME,firstname=NAME,lastname=NAME.",
    ),
    (
        "user-classes",
        "Object classes whose entries are users, divided by commas.",
    ),
];

const PROVIDER: &[(&str, &str)] = &[
    ("issuer-url", "The address of the provider."),
    ("client-id", "The name of this server at the provider."),
    ("client-key", "The key of this server at the provider."),
    ("scopes", "What to ask the provider for, beside openid."),
    ("acr-values", "Which ways of authentication to ask for."),
    ("audiences", "For whom else an ID token may be meant."),
    ("prompt", "What the provider is to ask the user."),
    ("comment", "A comment."),
    ("default", "Whether the login dialogue proposes this realm."),
    (
        "autocreate",
        "Whether users that are not known are created.",
    ),
    ("username-claim", "The claim that names a user."),
];

/// What the commands of one kind of realm differ in.
trait Kind {
    const REALM: &'static RealmKind;
    const LIST: &'static Table;
    const SHOW: &'static Record;
    const HELPS: &'static [(&'static str, &'static str)];
}

struct Ldap;

impl Kind for Ldap {
    const REALM: &'static RealmKind = &LDAP;
    const LIST: &'static Table = &LDAP_LIST;
    const SHOW: &'static Record = &LDAP_REALM;
    const HELPS: &'static [(&'static str, &'static str)] = DIRECTORY;
}

struct Ad;

impl Kind for Ad {
    const REALM: &'static RealmKind = &AD;
    const LIST: &'static Table = &AD_LIST;
    const SHOW: &'static Record = &AD_REALM;
    const HELPS: &'static [(&'static str, &'static str)] = DIRECTORY;
}

struct OpenId;

impl Kind for OpenId {
    const REALM: &'static RealmKind = &OPENID;
    const LIST: &'static Table = &OPENID_LIST;
    const SHOW: &'static Record = &OPENID_REALM;
    const HELPS: &'static [(&'static str, &'static str)] = PROVIDER;
}

/// The commands below `ldap`.
pub fn ldap_commands() -> Group {
    commands::<Ldap>().command("sync", sync_command())
}

/// The commands below `ad`.
pub fn ad_commands() -> Group {
    commands::<Ad>().command("sync", sync_command())
}

/// The commands below `openid`.
pub fn openid_commands() -> Group {
    commands::<OpenId>()
}

fn commands<K: Kind>() -> Group {
    let kind = K::REALM;
    let is_needed = |name: &str| {
        let property = kind.properties.get(name);
        property.is_some_and(|property| !property.optional)
    };
    let all = settings::options(kind.properties, K::HELPS);
    let create = all.iter().map(|option| match option.name {
        name if is_needed(name) => option.required(),
        "user-classes" => option.default("inetorgperson,posixaccount,person,user"),
        "scopes" => option.default("email profile"),
        "autocreate" | "default" | "verify" => option.default("false"),
        _ => *option,
    });
    let create: Vec<Parameter> = create.collect();
    let update: Vec<Parameter> = all
        .into_iter()
        .filter(|option| !kind.fixed.contains(&option.name))
        .collect();
    let password = kind.directory().map(|_| PASSWORD);
    let password = password.as_slice();
    let on_realm = |help, action| Command::new(help, action).argument(REALM);
    Group::new()
        .command(
            "list",
            Command::new("List the realms.", list::<K>).option(OUTPUT_FORMAT),
        )
        .command(
            "show",
            on_realm("Show a realm.", show::<K>).option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            on_realm(
                if kind.directory().is_some() {
                    "Add a realm, after the directory was asked whether it works."
                } else {
                    "Add a realm."
                },
                create_realm::<K>,
            )
            .options(&create)
            .options(password),
        )
        .command(
            "update",
            on_realm("Change a realm.", update_realm::<K>)
                .options(&update)
                .options(password)
                .option(
                    Parameter::choice("delete", "A setting to remove.", kind.deletable).repeated(),
                )
                .option(DIGEST),
        )
        .command(
            "delete",
            on_realm("Remove a realm; its users stay.", delete::<K>).option(DIGEST),
        )
}

fn sync_command() -> Command {
    Command::new(
        "Bring the users of a realm in line with its directory.",
        sync,
    )
    .argument(REALM)
    .option(Parameter::flag("dry-run", "Only say what would be done.").default("false"))
    .option(Parameter::of(
        "remove-vanished",
        "What to remove when the directory does not have it any more: acl;entry;properties.",
        &REMOVE_VANISHED,
    ))
    .option(Parameter::flag(
        "enable-new",
        "Whether new users may log in.",
    ))
}

fn list<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let realms = K::REALM.list(&configuration())?.data;
    let realms = realms.into_iter().map(Value::Object).collect();
    output::print_table(K::LIST, &Value::Array(realms), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn show<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let realm = K::REALM.get(&configuration(), arguments.required("realm")?)?;
    output::print_record(K::SHOW, &Value::Object(realm.data), arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// The settings on the command line.
fn given<K: Kind>(arguments: &Arguments) -> anyhow::Result<Map<String, Value>> {
    let mut map = settings::given(arguments, K::REALM.properties)?;
    if let Some(password) = arguments.text("password") {
        map.insert("password".to_owned(), json!(password));
    }
    Ok(map)
}

fn create_realm<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let store = configuration();
    let realm = arguments.required("realm")?;
    let mut draft = Draft::new(&store, K::REALM, realm, given::<K>(arguments)?)?;
    draft.try_out_blocking()?;
    draft.store(&store)?;
    Ok(ExitCode::SUCCESS)
}

fn update_realm<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let store = configuration();
    let change = (given::<K>(arguments)?, arguments.list("delete"));
    let realm = arguments.required("realm")?;
    let digest = arguments.text("digest");
    let mut draft = Draft::changed(&store, K::REALM, realm, change, digest)?;
    draft.try_out_blocking()?;
    draft.store(&store)?;
    Ok(ExitCode::SUCCESS)
}

fn delete<K: Kind>(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let realm = arguments.required("realm")?;
    K::REALM.remove(
        &configuration(),
        &job_states(),
        realm,
        arguments.text("digest"),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn sync(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = format!("access/domains/{}/sync", arguments.required("realm")?);
    let mut parameters = Map::new();
    if arguments.flag("dry-run") {
        parameters.insert("dry-run".to_owned(), json!(true));
    }
    if let Some(text) = arguments.text("remove-vanished") {
        parameters.insert("remove-vanished".to_owned(), json!(text));
    }
    if let Some(enable) = arguments.given_flag("enable-new") {
        parameters.insert("enable-new".to_owned(), json!(enable));
    }
    LocalServer::needed()?.run_task(arguments, |client| async move {
        Ok(client.post(&path, Value::Object(parameters)).await?)
    })
}
