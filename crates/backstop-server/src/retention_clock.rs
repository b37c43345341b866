//! Lets datastores with a retention lock remember the time, so that a clock that is set forward while no server runs is
//! noticed by the next one.

use std::sync::Arc;
use std::time::Duration;

use backstop_types::Operation;
use tokio::sync::watch;

use crate::server::Server;

/// How often.
const PAUSE: Duration = Duration::from_secs(1800);

/// Notes the time now and then, until the server ends.
pub(crate) async fn run(server: Arc<Server>, mut shutdown: watch::Receiver<bool>) {
    loop {
        let this = Arc::clone(&server);
        if let Err(err) = tokio::task::spawn_blocking(move || note(&this)).await {
            tracing::error!(%err, "unable to note the time for retention locks");
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
    }
}

fn note(server: &Server) {
    let configs = match server.datastores().configs() {
        Ok(configs) => configs,
        Err(err) => {
            tracing::error!(%err, "unable to note the time for retention locks");
            return;
        }
    };
    for config in configs {
        // What is closed, read-only or not there now is not written to; its time is bridged later, or has to be confirmed.
        let Ok(datastore) = server.datastores().lookup(&config.name, Operation::Write) else {
            continue;
        };
        match datastore.ask(|datastore| datastore.retention_lock().note_time()) {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(err)) => {
                tracing::warn!(store = %config.name, %err, "unable to note the time for the retention lock");
            }
        }
    }
}
