//! `remote …`: other servers, with the account that is used there. Never prints a secret.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::bail;
use backstop_client::connection::trust::UntrustedCertificate;
use backstop_client::{ClientError, ClientOptions, HttpClient};
use backstop_format::Fingerprint;
use backstop_server::config::remote;
use backstop_types::config_schema::remote::{REMOTE_DELETABLE, TLS_SERVER_NAME};
use backstop_types::config_schema::value;
use backstop_types::schema::{Properties, Property};
use serde_json::{Map, Value};

use super::settings::{self, DIGEST};
use super::{configuration, remote_check};
use crate::client_commands::server::block_on;
use crate::command::{Arguments, Command, Group, Parameter};
use crate::output::{self, Column, OUTPUT_FORMAT, Record, Table};
use crate::terminal;

/// All remotes.
pub const REMOTES: Table = Table::new(&[
    Column::text("name"),
    Column::text("host"),
    Column::text("auth-id"),
    Column::text("fingerprint"),
    Column::text("comment"),
    // Only shown where a remote has one: the table is that of stock servers else.
    Column::text("tls-server-name").optional(),
    Column::text("next-fingerprint").optional(),
    CHANGED.optional(),
])
.sorted(&["name"]);

/// When the fingerprint changed, and by what that was proven.
const CHANGED: Column = Column::text("fingerprint-changed").rendered(|value, remote| {
    let proof = remote.get("fingerprint-proof").and_then(Value::as_str);
    Ok(match value.as_i64() {
        Some(time) => format!("{} ({})", output::time::local(time), proof.unwrap_or("?")),
        None => String::new(),
    })
});

/// One remote.
pub const ONE: Record = Record::new(&[
    Column::text("name"),
    Column::text("auth-id"),
    Column::text("host"),
    Column::text("comment"),
    Column::text("fingerprint"),
    Column::number("port"),
    Column::number("use-node-proxy"),
    Column::text("tls-server-name"),
    Column::text("next-fingerprint"),
    Column::text("next-fingerprint-from")
        .rendered(|value, _| Ok(value.as_i64().map(output::time::local).unwrap_or_default())),
    Column::text("announcer"),
    Column::text("former-fingerprint"),
    CHANGED,
]);

/// The name of a remote.
pub const NAME: Parameter = Parameter::of("name", "The name of the remote.", &value::CONFIG_ID);

/// What can be set; the password as it is, not as the file holds it.
static SETTINGS: Properties = Properties::new(&[
    Property::required("password", &value::PASSWORD),
    Property::required("auth-id", &value::AUTH_ID),
    Property::required("host", &value::SERVER),
    Property::optional("port", &value::PORT),
    Property::optional("fingerprint", &value::FINGERPRINT),
    Property::optional("use-node-proxy", &backstop_types::schema::Schema::Boolean),
    Property::optional("comment", &value::COMMENT),
    TLS_SERVER_NAME,
]);

fn options() -> Vec<Parameter> {
    let options = settings::options(
        &SETTINGS,
        &[
            (
                "password",
                "Password of the user or secret of the token; it can be seen in the list of processes while the command runs.",
            ),
            ("auth-id", "The user or token there."),
            ("host", "Host name or address."),
            ("port", "The port, if it is not 8007."),
            (
                "fingerprint",
                "SHA-256 fingerprint of the certificate of the other server.",
            ),
            (
                "use-node-proxy",
                "Whether to connect through the HTTP proxy of this host's settings.",
            ),
            ("comment", "A comment."),
            (
                "tls-server-name",
                "The name under which an authority that this system trusts vouches for the server, if that is not the host; then no fingerprint is needed.",
            ),
        ],
    );
    let former = |option: Parameter| match option.name {
        "auth-id" => option.formerly("userid"),
        _ => option,
    };
    options.into_iter().map(former).collect()
}

/// The commands below `remote`.
pub fn commands() -> Group {
    let update = options();
    let create: Vec<Parameter> = update
        .iter()
        .map(|option| match option.name {
            "password" | "auth-id" | "host" => option.required(),
            _ => *option,
        })
        .collect();
    let on_remote = |help, action| Command::new(help, action).argument(NAME);
    Group::new()
        .command(
            "list",
            Command::new("List the remotes.", list).option(OUTPUT_FORMAT),
        )
        .command(
            "show",
            on_remote("Show a remote.", show).option(OUTPUT_FORMAT),
        )
        .command(
            "create",
            on_remote(
                "Add a remote. At a terminal and without a fingerprint, shows the certificate of the other server and asks.",
                create_remote,
            )
            .options(&create),
        )
        .command(
            "update",
            on_remote("Change a remote.", update_remote)
                .options(&update)
                .option(
                    Parameter::choice("delete", "A setting to remove.", REMOTE_DELETABLE)
                        .repeated(),
                )
                .option(DIGEST),
        )
        .command(
            "remove",
            on_remote("Remove a remote that no sync job uses.", remove).option(DIGEST),
        )
        .command("check", remote_check::command())
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let remotes = remote::list(&configuration())?;
    let remotes = remotes.into_iter().map(Value::Object).collect();
    output::print_table(&REMOTES, &Value::Array(remotes), arguments)?;
    Ok(ExitCode::SUCCESS)
}

fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    match remote::get(&configuration(), name)? {
        Some(section) => output::print_record(&ONE, &Value::Object(section), arguments)?,
        None => return Err(remote::unknown(name).into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn create_remote(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    let mut section = settings::given(arguments, &SETTINGS)?;
    let store = configuration();
    if terminal::can_ask()
        && !section.contains_key("fingerprint")
        && remote::get(&store, name)?.is_none()
        && let Some(fingerprint) = ask_for_fingerprint(&section)?
    {
        section.insert("fingerprint".to_owned(), fingerprint.to_string().into());
    }
    remote::create(&store, name, section)?;
    Ok(ExitCode::SUCCESS)
}

/// Connects, shows who answers, and asks whether that is the right one. `None`: an authority vouches for it, or it cannot be
/// reached now, which is said.
fn ask_for_fingerprint(section: &Map<String, Value>) -> anyhow::Result<Option<Fingerprint>> {
    let text = |key: &str| section.get(key).and_then(Value::as_str).unwrap_or_default();
    let port = section.get("port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    let mut options = ClientOptions::new(
        text("host"),
        port.unwrap_or(backstop_client::connection::options::DEFAULT_PORT),
        text("auth-id").parse()?,
    );
    options.secret = Some(text("password").to_owned());
    options.server_name = section
        .get(TLS_SERVER_NAME.name)
        .and_then(Value::as_str)
        .map(str::to_owned);
    let confirmed = Arc::new(Mutex::new(None));
    let answer = Arc::clone(&confirmed);
    options.confirm_certificate = Some(Arc::new(move |certificate: &UntrustedCertificate| {
        output::err(&format!("{}\n", certificate.presented));
        let is_right = terminal::ask_until_answered(
            "Is this the certificate of the right server, to be trusted from now on? (y/n): ",
        );
        if let Ok(mut confirmed) = answer.lock() {
            *confirmed = is_right.then_some(certificate.presented.fingerprint);
        }
        is_right
    }));
    let server = options.server();
    let outcome = block_on(async { Ok(HttpClient::connect(options).await) })?;
    let confirmed = confirmed
        .lock()
        .ok()
        .and_then(|mut confirmed| confirmed.take());
    match outcome {
        Ok(_) => {}
        Err(ClientError::Untrusted(_)) => bail!("the certificate of '{server}' was not accepted"),
        Err(error) => output::err(&format!(
            "WARNING: the remote is added, but it does not work yet: {error}\n"
        )),
    }
    Ok(confirmed)
}

fn update_remote(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let change = (
        settings::given(arguments, &SETTINGS)?,
        arguments.list("delete"),
    );
    let name = arguments.required("name")?;
    remote::update(&configuration(), name, change, arguments.text("digest"))?;
    Ok(ExitCode::SUCCESS)
}

fn remove(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.required("name")?;
    remote::remove(&configuration(), name, arguments.text("digest"))?;
    Ok(ExitCode::SUCCESS)
}
