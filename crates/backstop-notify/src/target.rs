//! Where notifications go: a target with all that is needed to reach it.
//!
//! `Debug` shows no secret.

use std::fmt;

use serde_json::{Map, Value};

use crate::named_value::{self, NamedValue};

/// A target.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Whether nothing is to be sent to it.
    pub disabled: bool,
    /// What it is.
    pub kind: TargetKind,
}

/// The kinds of targets.
#[derive(Debug, Clone)]
pub enum TargetKind {
    /// Mail by the program `sendmail` of this host.
    Sendmail(Mail),
    /// Mail by a server.
    Smtp(Mail, Smtp),
    /// A Gotify server.
    Gotify(Gotify),
    /// Any HTTP server.
    Webhook(Webhook),
}

/// To whom and from whom a mail is.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    /// Addresses.
    pub to: Vec<String>,
    /// Users, whose addresses are in `user.cfg`.
    pub to_users: Vec<String>,
    /// Address of the sender.
    pub from: Option<String>,
    /// Name of the sender.
    pub author: Option<String>,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpMode {
    /// Not at all.
    Insecure,
    /// By TLS, which begins after a greeting in clear.
    StartTls,
    /// By TLS.
    Tls,
}

impl SmtpMode {
    /// The port of such servers.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Insecure => 25,
            Self::StartTls => 587,
            Self::Tls => 465,
        }
    }
}

/// A mail server.
#[derive(Clone)]
pub struct Smtp {
    /// Its name or address.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub mode: SmtpMode,
    /// As whom to log in.
    pub username: Option<String>,
    /// The password for that.
    pub password: Option<String>,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp")
            .field("server", &self.server)
            .field("port", &self.port)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// A Gotify server.
#[derive(Clone)]
pub struct Gotify {
    /// Its URL.
    pub server: String,
    /// The token of an application there.
    pub token: String,
}

impl fmt::Debug for Gotify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gotify")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// A request with templates for its parts.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// `POST`, `PUT` or `GET`.
    pub method: &'static str,
    /// Template of the URL.
    pub url: String,
    /// Templates of the headers.
    pub headers: Vec<(String, String)>,
    /// Template of the body.
    pub body: String,
    /// What templates find below `secrets`.
    pub secrets: Vec<Secret>,
}

/// A named secret.
#[derive(Clone)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn text(properties: &Map<String, Value>, key: &str) -> Option<String> {
    properties
        .get(key)
        .and_then(Value::as_str)
        .map(str::to_owned)
}

fn texts(properties: &Map<String, Value>, key: &str) -> Vec<String> {
    let values = properties.get(key).and_then(Value::as_array);
    let values = values.into_iter().flatten().filter_map(Value::as_str);
    values.map(str::to_owned).collect()
}

fn needed(properties: &Map<String, Value>, key: &str) -> Result<String, String> {
    text(properties, key).ok_or_else(|| format!("'{key}' is not set"))
}

fn named(properties: &Map<String, Value>, key: &str) -> Result<Vec<(String, String)>, String> {
    let values = texts(properties, key).into_iter().map(|text| {
        let named = NamedValue::parse(&text).map_err(|reason| format!("a {key} is {reason}"))?;
        let value = named
            .decoded()
            .map_err(|reason| format!("{key} {reason}"))?;
        Ok((named.name, value))
    });
    values.collect()
}

impl Target {
    /// Why it can reach nobody, whatever is sent to it; `None`: it may. `mail_of` are the addresses of users.
    #[must_use]
    pub fn unreachable(&self, mail_of: impl Fn(&str) -> bool) -> Option<String> {
        let name = &self.name;
        if self.disabled {
            return Some(format!("target '{name}' is disabled"));
        }
        let (TargetKind::Sendmail(mail) | TargetKind::Smtp(mail, _)) = &self.kind else {
            return None;
        };
        if !mail.to.is_empty() || mail.to_users.iter().any(|user| mail_of(user)) {
            return None;
        }
        let users: Vec<String> = mail
            .to_users
            .iter()
            .map(|user| format!("'{user}'"))
            .collect();
        Some(match users.is_empty() {
            true => format!("target '{name}' has no recipient"),
            false => format!(
                "target '{name}' sends mail to {}, of whom no address is known",
                users.join(", ")
            ),
        })
    }

    /// Reads the properties of a section of `notifications.cfg`, and those of the section of this name in `notifications-priv.cfg`.
    ///
    /// # Errors
    /// When something is missing or makes no sense.
    pub(crate) fn of(
        ty: &str,
        name: &str,
        public: &Map<String, Value>,
        private: &Map<String, Value>,
    ) -> Result<Self, String> {
        let mail = || Mail {
            to: texts(public, "mailto"),
            to_users: texts(public, "mailto-user"),
            from: text(public, "from-address"),
            author: text(public, "author"),
        };
        let kind = match ty {
            "sendmail" => TargetKind::Sendmail(mail()),
            "smtp" => {
                let mode = match text(public, "mode").as_deref() {
                    Some("insecure") => SmtpMode::Insecure,
                    Some("starttls") => SmtpMode::StartTls,
                    _ => SmtpMode::Tls,
                };
                let port = public.get("port").and_then(Value::as_u64);
                let port = port.and_then(|port| u16::try_from(port).ok());
                let smtp = Smtp {
                    server: needed(public, "server")?,
                    port: port.unwrap_or(mode.default_port()),
                    mode,
                    username: text(public, "username"),
                    password: text(private, "password"),
                };
                TargetKind::Smtp(mail(), smtp)
            }
            "gotify" => TargetKind::Gotify(Gotify {
                server: needed(public, "server")?,
                token: needed(private, "token")?,
            }),
            "webhook" => {
                let body = text(public, "body").unwrap_or_default();
                let secrets = named(private, "secret")?.into_iter();
                TargetKind::Webhook(Webhook {
                    method: match text(public, "method").as_deref() {
                        Some("put") => "PUT",
                        Some("get") => "GET",
                        _ => "POST",
                    },
                    url: needed(public, "url")?,
                    headers: named(public, "header")?,
                    body: named_value::decode(&body).map_err(|reason| format!("body {reason}"))?,
                    secrets: secrets
                        .map(|(name, value)| Secret { name, value })
                        .collect(),
                })
            }
            other => return Err(format!("'{other}' is no kind of target")),
        };
        let disabled = public.get("disable").and_then(Value::as_bool) == Some(true);
        Ok(Self {
            name: name.to_owned(),
            disabled,
            kind,
        })
    }
}
