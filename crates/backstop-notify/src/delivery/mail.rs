//! A notification as a mail: who gets it, its headers, its parts.

use std::collections::BTreeSet;
use std::time::SystemTime;

use lettre::message::header::{self, HeaderName, HeaderValue, Headers};
use lettre::message::{Mailbox, Mailboxes, MultiPart};

use super::{SendError, Surroundings};
use crate::notification::{Content, Notification};
use crate::target::Mail;

/// Who a mail is from and to.
#[derive(Debug)]
pub(super) struct Envelope {
    pub from: String,
    pub author: String,
    /// Sorted, each once.
    pub to: Vec<String>,
}

/// The recipients that have an address, and the sender.
///
/// # Errors
/// When nobody has an address.
pub(super) fn envelope(mail: &Mail, surroundings: &Surroundings) -> Result<Envelope, SendError> {
    let mut to: BTreeSet<String> = mail.to.iter().cloned().collect();
    let mut without = Vec::new();
    for user in &mail.to_users {
        match surroundings.mail_of.get(user) {
            Some(address) => {
                to.insert(address.clone());
            }
            None => without.push(format!("user '{user}' has no e-mail address in user.cfg")),
        }
    }
    if to.is_empty() {
        return Err(SendError::Nobody(without.join(", ")));
    }
    let from = mail.from.clone().or_else(|| surroundings.mail_from.clone());
    let author = mail.author.clone();
    Ok(Envelope {
        from: from.unwrap_or_else(|| "root".to_owned()),
        author: author.unwrap_or_else(|| format!("Proxmox Backup Server - {}", surroundings.node)),
        to: to.into_iter().collect(),
    })
}

/// The whole mail as text.
pub(super) fn message(
    envelope: &Envelope,
    notification: &Notification,
    surroundings: &Surroundings,
) -> Vec<u8> {
    let mut headers = Headers::new();
    let from = mailbox(Some(&envelope.author), &envelope.from);
    let to: Vec<String> = envelope
        .to
        .iter()
        .map(|address| mailbox(None, address))
        .collect();
    if let Content::ForwardedMail { raw, .. } = &notification.content {
        // As it came, with the note that it was passed on (RFC 5322, 3.6.6).
        set(&mut headers, "Resent-From", &from);
        set(&mut headers, "Resent-To", &to.join(", "));
        set(&mut headers, "Resent-Date", &date(notification.time));
        return [headers.to_string().as_bytes(), &normalized(raw)].concat();
    }
    let rendered = surroundings.templates.render(notification);
    set(&mut headers, "From", &from);
    set(&mut headers, "To", &to.join(", "));
    headers.set(header::Subject::from(rendered.subject));
    set(&mut headers, "Date", &date(notification.time));
    // The same for each attempt, so that one that arrives twice can be told.
    let id = format!("<{}@{}>", notification.id, surroundings.fqdn);
    set(&mut headers, "Message-ID", &id);
    headers.set(header::MIME_VERSION_1_0);
    set(&mut headers, "Auto-Submitted", "auto-generated");
    let body = MultiPart::alternative_plain_html(rendered.text, rendered.html);
    // The header of a part ends with an empty line, that of the mail is continued by it.
    [headers.to_string().into_bytes(), body.formatted()].concat()
}

/// A mail of another program as mails go over a line (RFC 5321, 2.3.8): each line ends with CR LF, and the line with which mailboxes
/// begin a mail is no part of it. What does not begin with a header gets the empty line that ends headers.
fn normalized(raw: &[u8]) -> Vec<u8> {
    let mut rest = raw;
    if rest.starts_with(b"From ") {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.map_or(rest.len(), |end| end.saturating_add(1));
        rest = rest.get(end..).unwrap_or_default();
    }
    let mut mail = Vec::with_capacity(rest.len().saturating_add(rest.len() / 32));
    let first = rest.split(|byte| matches!(byte, b'\n' | b'\r')).next();
    let first = first.unwrap_or_default();
    let name = first.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    let is_header = is_name && name.len() < first.len();
    if !is_header && !first.is_empty() {
        mail.extend_from_slice(b"\r\n");
    }
    let mut bytes = rest.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {
                // A CR alone, which no line may hold, ends a line, too.
                if byte == b'\r' {
                    bytes.next_if_eq(&b'\n');
                }
                mail.extend_from_slice(b"\r\n");
            }
            byte => mail.push(byte),
        }
    }
    if !mail.ends_with(b"\n") {
        mail.extend_from_slice(b"\r\n");
    }
    mail
}

fn set(headers: &mut Headers, name: &'static str, value: &str) {
    let Ok(name) = HeaderName::new_from_ascii(name.to_owned()) else {
        return;
    };
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    headers.insert_raw(HeaderValue::dangerous_new_pre_encoded(
        name,
        value.clone(),
        value,
    ));
}

fn date(time: i64) -> String {
    let offset = std::time::Duration::from_secs(u64::try_from(time).unwrap_or_default());
    let date = header::Date::from(SystemTime::UNIX_EPOCH + offset);
    let mut headers = Headers::new();
    headers.set(date);
    headers.get_raw("Date").unwrap_or_default().to_owned()
}

/// `Name <address>`, encoded. A local address, such as `root`, stays what it is: the mail system of the host completes it.
fn mailbox(name: Option<&str>, address: &str) -> String {
    const PLACEHOLDER: &str = "local@placeholder.invalid";
    let name = name.map(str::to_owned);
    let (parsed, is_local) = match address.parse() {
        Ok(parsed) => (Some(parsed), false),
        Err(_) => (PLACEHOLDER.parse().ok(), true),
    };
    let Some(parsed) = parsed else {
        return address.to_owned();
    };
    let mut headers = Headers::new();
    headers.set(header::From::from(Mailboxes::from(Mailbox::new(
        name, parsed,
    ))));
    let text = headers.to_string();
    let text = text
        .strip_prefix("From: ")
        .unwrap_or(&text)
        .trim_end()
        .to_owned();
    match is_local {
        true => text.replace(PLACEHOLDER, address),
        false => text,
    }
}
