//! One push, tried again as long as there is time.

use std::time::{Duration, Instant};

use backstop_heartbeat::Push;
use backstop_outgoing::RequestError;
use backstop_outgoing::answer::{excerpt, refusal};

use crate::receiver::Settings;

/// Pauses before further attempts.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
];

/// What this host is called, without its domain.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Sends a push until it is taken, as long as there is time.
///
/// # Errors
/// Why it was not taken. Holds no part of the URL but scheme, host and port.
pub fn deliver(settings: &Settings, push: &Push) -> Result<(), String> {
    let begun = Instant::now();
    let left = || settings.timeout.saturating_sub(begun.elapsed());
    let mut pauses = PAUSES.into_iter();
    loop {
        let request = push
            .request(settings.receiver, &settings.url, false)
            .map_err(|err| err.to_string())?
            .ok_or("this receiver has no such signal")?;
        let uri = request.uri().clone();
        let mut client = settings.client.clone();
        client.timeout = client.timeout.min(left()).max(Duration::from_millis(1));
        let (reason, may_pass) = match client.send_blocking(request) {
            Ok(answer) => match refusal(&answer, &uri, &[]) {
                Some(refusal) => (
                    format!("{}: {refusal}", settings.server()),
                    answer.status().is_server_error(),
                ),
                None => match settings.receiver.objection(answer.body()) {
                    None => return Ok(()),
                    Some(objection) => {
                        let said = excerpt(answer.body(), &uri, &[]);
                        let reason = objection.reason;
                        (format!("{}: {reason}: {said:?}", settings.server()), false)
                    }
                },
            },
            // Whom nobody trusts now, nobody trusts in a second.
            Err(err) => (err.to_string(), !matches!(err, RequestError::Tls { .. })),
        };
        match pauses.next() {
            Some(pause) if may_pass && pause < left() => std::thread::sleep(pause),
            _ => return Err(format!("the push failed - {reason}")),
        }
    }
}
