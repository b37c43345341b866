//! Mail by a server.

use lettre::address::{Address, Envelope};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{SmtpTransport, Transport as _};

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
    let failed = |reason: String| {
        let reason = masked(&reason, server.password.as_deref());
        SendError::Failed(format!("mail server {place}: {reason}"))
    };
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
    let mut transport = SmtpTransport::builder_dangerous(server.server.clone())
        .port(server.port)
        .tls(tls)
        .timeout(Some(TIMEOUT));
    if let (Some(username), Some(password)) = (&server.username, &server.password) {
        transport = transport.credentials(Credentials::new(username.clone(), password.clone()));
    }
    transport
        .build()
        .send_raw(&path, &message)
        .map(|_| ())
        .map_err(|err| failed(chain(&err)))
}

fn chain(err: &dyn std::error::Error) -> String {
    backstop_outgoing::http_client::chain(err)
}
