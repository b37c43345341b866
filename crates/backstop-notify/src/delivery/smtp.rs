//! Mail by a server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::address::{Address, Envelope};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::response::Code;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use tokio::time::timeout;

use super::{SendError, Surroundings, TIMEOUT, mail, masked};
use crate::notification::Notification;
use crate::target::{Mail, Smtp, SmtpMode};

pub(super) fn send(
    mail: &Mail,
    server: &Smtp,
    notification: &Notification,
    surroundings: &Surroundings,
) -> Result<(), SendError> {
    let envelope = mail::envelope(mail, surroundings)?;
    let message = mail::message(&envelope, notification, surroundings);
    let place = format!("{}:{}", server.server, server.port);
    // As the mechanism PLAIN sends it: what would be left of that tells the name, and the length of the password.
    let login = server.username.as_ref().zip(server.password.as_ref());
    let login = login.map(|(name, password)| STANDARD.encode(format!("\0{name}\0{password}")));
    let said = |reason: String| {
        let secrets = [login.as_deref(), server.password.as_deref()];
        let reason = masked(&reason, secrets.into_iter().flatten());
        format!("mail server {place}: {reason}")
    };
    let failed = |reason: String| SendError::Failed(said(reason));
    let address = |text: &String| {
        text.parse::<Address>()
            .map_err(|err| failed(format!("'{text}' is no mail address - {err}")))
    };
    let to = envelope.to.iter().map(address);
    let to: Vec<Address> = to.collect::<Result<_, _>>()?;
    let path =
        Envelope::new(Some(address(&envelope.from)?), to).map_err(|err| failed(chain(&err)))?;
    let tls = || TlsParameters::new(server.server.clone()).map_err(|err| failed(chain(&err)));
    let tls = match server.mode {
        SmtpMode::Insecure => Tls::None,
        SmtpMode::StartTls => Tls::Required(tls()?),
        SmtpMode::Tls => Tls::Wrapper(tls()?),
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.server)
        .port(server.port)
        .tls(tls)
        .timeout(Some(TIMEOUT.min(surroundings.limit)));
    if let (Some(username), Some(password)) = (&server.username, &server.password) {
        transport = transport.credentials(Credentials::new(username.clone(), password.clone()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| failed(format!("unable to prepare a connection - {err}")))?;
    // A server that keeps saying something never exceeds the time of one step.
    let sent = runtime.block_on(async {
        let transport = transport.build();
        timeout(surroundings.limit, transport.send_raw(&path, &message)).await
    });
    // A name server that does not answer must not hold up the caller any longer.
    runtime.shutdown_background();
    match sent {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(err)) if err.status().is_some_and(is_final) => {
            Err(SendError::Refused(said(chain(&err))))
        }
        Ok(Err(err)) => Err(failed(chain(&err))),
        Err(_) => {
            let limit = surroundings.limit;
            Err(failed(format!("it did not take the mail within {limit:?}")))
        }
    }
}

/// Whether a server refuses this mail or its recipients for good (55x), and not whoever sends, or how.
fn is_final(status: Code) -> bool {
    (550..560).contains(&u16::from(status))
}

fn chain(err: &dyn std::error::Error) -> String {
    backstop_outgoing::http_client::chain(err)
}
