//! One connection to a directory server.

use std::future::Future;
use std::time::Duration;

use backstop_outgoing::tls::{self, Trust};
use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Scope, SearchEntry, SearchOptions, StdStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::{reason, said};
use super::settings::{DirectorySettings, Mode};
use super::{DirectoryError, DirectoryUser, UserSearch};

/// How long one server may take to accept a connection, TLS included. Then comes the next.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long one operation may take.
const OPERATION_LIMIT: Duration = Duration::from_secs(10);
/// How many entries are asked for at once.
const PAGE: i32 = 500;
/// Most users that are taken from a directory.
const MAX_USERS: usize = 500_000;
/// "No attributes", in the words of the protocol.
const NO_ATTRIBUTES: [&str; 1] = ["1.1"];

/// A connection, which ends with this value.
pub(super) struct Session<'a> {
    settings: &'a DirectorySettings,
    ldap: Ldap,
    driver: JoinHandle<()>,
    base: Option<String>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl<'a> Session<'a> {
    /// Connects to the first server that answers, and binds with the name for searches, if there is one.
    pub(super) async fn open(settings: &'a DirectorySettings) -> Result<Self, DirectoryError> {
        let mut session = Self::connect(settings).await?;
        if let Some(dn) = &settings.bind_dn {
            let password = settings.password.as_ref().filter(|text| !text.is_empty());
            let password = password.ok_or_else(|| DirectoryError::Bind {
                dn: dn.clone(),
                reason: "there is no password for it".to_owned(),
            })?;
            let answer = session.operation().simple_bind(dn, password).await;
            answer
                .and_then(ldap3::LdapResult::success)
                .map_err(|err| DirectoryError::Bind {
                    dn: dn.clone(),
                    reason: reason(err),
                })?;
        }
        Ok(session)
    }

    /// Connects to the first server that answers.
    pub(super) async fn connect(settings: &'a DirectorySettings) -> Result<Self, DirectoryError> {
        let mut failures = Vec::new();
        for server in &settings.servers {
            let attempt = timeout(CONNECT_LIMIT, connect(settings, server)).await;
            let attempt = attempt
                .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_LIMIT.as_secs())));
            match attempt {
                Ok((connection, ldap)) => {
                    let driver = tokio::spawn(async move {
                        if let Err(err) = connection.drive().await {
                            tracing::debug!("connection to a directory server: {err}");
                        }
                    });
                    return Ok(Self {
                        settings,
                        ldap,
                        driver,
                        base: settings.base.clone(),
                    });
                }
                Err(reason) => {
                    failures.push(format!("{server}:{}: {reason}", settings.port));
                }
            }
        }
        Err(DirectoryError::Unreachable(failures))
    }

    /// The connection, for one operation of limited time.
    fn operation(&mut self) -> &mut Ldap {
        self.ldap.with_timeout(OPERATION_LIMIT)
    }

    /// Where searches begin; asked of the server when the settings do not say.
    async fn base(&mut self) -> Result<String, DirectoryError> {
        match &self.base {
            Some(base) => Ok(base.clone()),
            None => {
                let base = self.default_base().await?;
                Ok(self.base.insert(base).clone())
            }
        }
    }

    /// The base that an Active Directory names.
    pub(super) async fn default_base(&mut self) -> Result<String, DirectoryError> {
        let attribute = "defaultNamingContext";
        let found = self
            .operation()
            .search("", Scope::Base, "(objectClass=*)", [attribute])
            .await;
        let (entries, _) = found
            .and_then(ldap3::SearchResult::success)
            .map_err(|err| DirectoryError::Search {
                base: String::new(),
                reason: reason(err),
            })?;
        let entry = entries.into_iter().next().map(SearchEntry::construct);
        let named = entry.and_then(|entry| {
            let mut attributes = entry.attrs.into_iter();
            attributes.find(|(name, _)| name.eq_ignore_ascii_case(attribute))
        });
        named
            .and_then(|(_, values)| values.into_iter().next())
            .filter(|base| !base.is_empty())
            .ok_or(DirectoryError::NoDefaultBase)
    }

    /// Checks that the base is there and may be read.
    pub(super) async fn check_base(&mut self) -> Result<(), DirectoryError> {
        let base = self.base().await?;
        let found = self
            .operation()
            .search(&base, Scope::Base, "(objectClass=*)", NO_ATTRIBUTES)
            .await;
        let failed = |reason: String| DirectoryError::Search {
            base: base.clone(),
            reason: format!("{reason}; check base-dn"),
        };
        let (entries, _) = found
            .and_then(ldap3::SearchResult::success)
            .map_err(|err| failed(reason(err)))?;
        if entries.is_empty() {
            return Err(failed("there is no such entry".to_owned()));
        }
        Ok(())
    }

    /// The entry of the user with this name.
    pub(super) async fn find(&mut self, name: &str) -> Result<String, DirectoryError> {
        let base = self.base().await?;
        let filter = format!(
            "(&({}={}))",
            self.settings.user_attr,
            ldap3::ldap_escape(name)
        );
        let limits = SearchOptions::new()
            .sizelimit(2)
            .timelimit(i32::try_from(OPERATION_LIMIT.as_secs()).unwrap_or(10));
        let operation = self.operation().with_search_options(limits);
        let found = operation
            .search(&base, Scope::Subtree, &filter, NO_ATTRIBUTES)
            .await;
        let failed = |reason: String| DirectoryError::Search {
            base: base.clone(),
            reason,
        };
        let found = found.map_err(|err| failed(reason(err)))?;
        // More than was asked for.
        if found.1.rc == 4 {
            return Err(DirectoryError::Ambiguous);
        }
        let (entries, _) = found.success().map_err(|err| failed(reason(err)))?;
        let mut entries = entries.into_iter().map(SearchEntry::construct);
        match (entries.next(), entries.next()) {
            // A bind with an empty name is one of nobody.
            (Some(entry), None) if !entry.dn.trim().is_empty() => Ok(entry.dn),
            (Some(_), Some(_)) => Err(DirectoryError::Ambiguous),
            _ => Err(DirectoryError::NoSuchUser),
        }
    }

    /// Proves a user's password.
    pub(super) async fn bind_user(
        &mut self,
        dn: &str,
        password: &str,
    ) -> Result<(), DirectoryError> {
        if password.is_empty() || dn.trim().is_empty() {
            return Err(DirectoryError::NoPassword);
        }
        let answer = self.operation().simple_bind(dn, password).await;
        let answer = answer.map_err(|err| DirectoryError::WrongPassword(reason(err)))?;
        if answer.rc == 0 {
            Ok(())
        } else {
            Err(DirectoryError::WrongPassword(said(&answer)))
        }
    }

    /// All users.
    pub(super) async fn users(
        &mut self,
        search: &UserSearch,
    ) -> Result<Vec<DirectoryUser>, DirectoryError> {
        let base = self.base().await?;
        let failed = |reason: String| DirectoryError::Search {
            base: base.clone(),
            reason,
        };
        let adapters: Vec<Box<dyn Adapter<'_, String, Vec<String>>>> = vec![
            Box::new(EntriesOnly::new()),
            Box::new(PagedResults::new(PAGE)),
        ];
        let filter = search.filter();
        let mut stream = in_time(self.ldap.streaming_search_with(
            adapters,
            &base,
            Scope::Subtree,
            &filter,
            search.wanted(),
        ))
        .await
        .map_err(failed)?;
        let mut users = Vec::new();
        while let Some(entry) = in_time(stream.next()).await.map_err(failed)? {
            users.extend(search.user(SearchEntry::construct(entry)));
            if users.len() > MAX_USERS {
                return Err(failed(format!("there are more than {MAX_USERS} users")));
            }
        }
        let result = stream.finish().await;
        if result.rc != 0 {
            return Err(failed(said(&result)));
        }
        Ok(users)
    }
}

/// Waits for one step of a search.
async fn in_time<T>(step: impl Future<Output = Result<T, ldap3::LdapError>>) -> Result<T, String> {
    match timeout(OPERATION_LIMIT, step).await {
        Ok(done) => done.map_err(reason),
        Err(_) => Err(format!("no answer within {} s", OPERATION_LIMIT.as_secs())),
    }
}

async fn connect(
    settings: &DirectorySettings,
    server: &str,
) -> Result<(LdapConnAsync, Ldap), String> {
    let text = |err: &dyn std::error::Error| crate::http::error::chain(err);
    let host = tls::without_brackets(server);
    let mut options = LdapConnSettings::new().set_starttls(settings.mode == Mode::StartTls);
    if settings.mode != Mode::Plain {
        let (server, verify, capath) =
            (server.to_owned(), settings.verify, settings.capath.clone());
        // Reads certificates.
        let config = tokio::task::spawn_blocking(move || {
            let trust = match &capath {
                _ if !verify => Trust::Anybody,
                Some(path) => Trust::Path(path),
                None => Trust::System,
            };
            tls::client_config(&server, trust)
        });
        let config = config.await.map_err(|err| text(&err))?;
        options = options.set_config(std::sync::Arc::new(config.map_err(|err| text(&err))?));
    }
    let stream = TcpStream::connect((host, settings.port))
        .await
        .map_err(|err| text(&err))?;
    let _ = stream.set_nodelay(true);
    let stream = stream.into_std().map_err(|err| text(&err))?;
    let scheme = if settings.mode == Mode::Tls {
        "ldaps"
    } else {
        "ldap"
    };
    // Connected already: the URL only says what is spoken. Whose certificate is expected, the TLS settings know.
    let shown = if host.parse::<std::net::IpAddr>().is_ok() {
        "localhost"
    } else {
        host
    };
    LdapConnAsync::with_settings(
        options.set_std_stream(StdStream::Tcp(stream)),
        &format!("{scheme}://{shown}:{}", settings.port),
    )
    .await
    .map_err(reason)
}
