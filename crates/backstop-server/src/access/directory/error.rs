//! What can go wrong with a directory.

use ldap3::{LdapError, LdapResult};

/// Why a directory does not do what is wanted of it. No text holds a password.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// None of the servers can be reached.
    #[error("unable to connect to the directory server{} - {}", if .0.len() == 1 { "" } else { "s" }, .0.join("; "))]
    Unreachable(Vec<String>),
    /// The settings cannot be used.
    #[error("the settings of the realm cannot be used - {0}")]
    Settings(String),
    /// The server refuses the name that searches are made with.
    #[error("the directory server does not accept '{dn}' - {reason}; check bind-dn and password")]
    Bind {
        /// The name.
        dn: String,
        /// What the server said.
        reason: String,
    },
    /// A search fails.
    #[error("unable to search the directory below '{base}' - {reason}")]
    Search {
        /// Where the search began.
        base: String,
        /// What the server said.
        reason: String,
    },
    /// The server does not say where its users are.
    #[error("the directory server names no defaultNamingContext; set base-dn")]
    NoDefaultBase,
    /// There is no such user.
    #[error("there is no such user in the directory")]
    NoSuchUser,
    /// More than one entry has the name.
    #[error("several entries of the directory have this name; make base-dn narrower")]
    Ambiguous,
    /// The password is not the user's.
    #[error("the directory server refuses the password - {0}")]
    WrongPassword(String),
    /// An empty password proves nothing.
    #[error("the password is empty")]
    NoPassword,
    /// It took too long.
    #[error("the directory server has not answered within {seconds} s")]
    TooSlow {
        /// The limit.
        seconds: u64,
    },
    /// The program cannot wait for an answer.
    #[error("unable to wait for the directory server - {0}")]
    NoRuntime(std::io::Error),
}

/// What an operation failed of, in words.
pub(super) fn reason(err: LdapError) -> String {
    match err {
        LdapError::LdapResult { result } => said(&result),
        LdapError::Timeout { .. } => "it does not answer".to_owned(),
        LdapError::EndOfStream | LdapError::OpSend { .. } | LdapError::ResultRecv { .. } => {
            "it closed the connection".to_owned()
        }
        LdapError::FilterParsing => "the filter is not a valid LDAP filter".to_owned(),
        other => crate::http::error::chain(&other),
    }
}

/// A refusal in the server's words.
pub(super) fn said(result: &LdapResult) -> String {
    let name = match result.rc {
        1 => "operations error",
        4 => "size limit exceeded",
        3 => "time limit exceeded",
        8 => "stronger authentication required; use mode ldaps or ldap+starttls",
        10 => "referral to another server",
        11 => "administrative limit exceeded",
        13 => "confidentiality required; use mode ldaps or ldap+starttls",
        32 => "no such object",
        34 => "invalid DN",
        48 => "inappropriate authentication",
        49 => "invalid credentials",
        50 => "insufficient access rights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwilling to perform",
        _ => "",
    };
    // Servers put NULs and line ends into their texts.
    let text: String = result
        .text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    match (name, text.trim()) {
        ("", "") => format!("error {}", result.rc),
        ("", text) => format!("error {}: {text}", result.rc),
        (name, "") => name.to_owned(),
        (name, text) => format!("{name}: {text}"),
    }
}
