//! Lets datastores with a retention lock remember the time, so that a clock that is set forward while no server runs is
//! noticed by the next one. And reminds of what is about to loosen a lock.

use std::sync::Arc;
use std::time::Duration;

use backstop_datastore::{Datastore, DatastoreError, RetentionLockStatus, moment};
use backstop_types::record::DatastoreConfig;
use backstop_types::{DatastoreName, Operation};
use tokio::sync::watch;

use crate::datastores;
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
        if let Some(Err(err)) = note_datastore(server, &config) {
            tracing::warn!(store = %config.name, %err, "unable to note the time for the retention lock");
        }
    }
}

/// `None`: it has no lock, or is closed, read-only or not there now. Its time is bridged later, or has to be confirmed.
fn note_datastore(server: &Server, config: &DatastoreConfig) -> Option<Result<(), DatastoreError>> {
    let datastores = server.datastores();
    datastores::check(config, Operation::Write).ok()?;
    let place = datastores.place(config).ok()?;
    place.check().ok()?;
    let path = place.path().to_owned();
    if !place
        .ask(move || Datastore::has_retention_lock(&path))
        .ok()?
    {
        return None;
    }
    let datastore = datastores.lookup(&config.name, Operation::Write).ok()?;
    let status = datastore.ask(|datastore| {
        datastore.retention_lock().note_time()?;
        datastore.retention_lock().status()
    });
    Some(status.ok()?.map(|status| {
        if let Some(status) = status {
            remind(&config.name, &status);
        }
    }))
}

/// Says what somebody should look at while there is time.
fn remind(store: &DatastoreName, status: &RetentionLockStatus) {
    for (ns, lock) in &status.locks.locks {
        if let Some(request) = &lock.request {
            let (by, days, on) = (&request.made_by, request.days, moment(request.effective_at));
            tracing::warn!(%store, %ns, by, days, on, "a retention lock is to be loosened; withdraw that if it is not meant");
        }
    }
    if let Some(request) = &status.locks.clock_request {
        let (by, on) = (&request.made_by, moment(request.effective_at));
        tracing::warn!(%store, by, on, "a clock that has jumped is to be believed; withdraw that if it is not meant");
    } else if status.time.ahead > 0 {
        tracing::warn!(%store, ahead = status.time.ahead, "the clock has jumped ahead, and retention locks do not go by it");
    }
}
