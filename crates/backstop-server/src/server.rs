//! The running server: its parts, its start and its end.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use backstop_format::Fingerprint;
use backstop_outgoing::{Courier, SpoolError};
use backstop_types::{AuthId, Privileges};
use hyper::HeaderMap;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::{AccessControl, Administrator, KeyError, Refused, create_administrator};
use crate::api;
use crate::audit_log::{self, AuditLog};
use crate::backup_session::chunk_gate::ChunkGate;
use crate::certificate_change;
use crate::config::remote::{self, RemoteAccount};
use crate::config::{ConfigError, ConfigStore, EditError, migration};
use crate::cut_off;
use crate::datastores::{DatastoreRegistry, Watcher, foreign_owner};
use crate::exposition::{ExpositionError, Latency};
use crate::health::{Health, HealthWatch};
use crate::heartbeats::Heartbeats;
use crate::http::access_log::{AuthLog, LineLog};
use crate::http::credentials::Credentials;
use crate::http::real_ip::RealIp;
use crate::jobs::{self, JobRuns, JobStates, Timer};
use crate::listener::{self, Limits, Listener};
use crate::log_rotation;
use crate::metrics::{Forwarding, History, Sampler};
use crate::notifications::{self, Notifier};
use crate::privileged_helper::PrivilegedHelper;
use crate::retention_clock;
use crate::roots::Roots;
use crate::router::tree::{Tree, TreeError};
use crate::router::{Endpoint, dispatch};
use crate::rrd::LongHistory;
use crate::runtime::{RuntimeHandles, Runtimes};
use crate::task::{TaskError, TaskRegistry};
use crate::tls::{CertificateStore, TlsError};
use crate::tls_ciphers::CipherChoice;

/// The port that clients expect.
pub const DEFAULT_PORT: u16 = 8007;
/// How often the certificate files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Files, addresses or threads; the text says which.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Task logs.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Pushes that wait for their delivery.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The keys that sign tickets.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The first administrator.
    #[error("unable to create the first administrator - {0}")]
    Administrator(#[from] EditError),
    /// The families of metrics contradict each other: a fault of the program.
    #[error(transparent)]
    Metrics(#[from] ExpositionError),
    /// Two declarations of endpoints contradict each other: a fault of the program.
    #[error("the endpoints contradict each other: {0}")]
    Endpoints(#[from] TreeError),
}

/// What to start.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where configuration, state and logs are.
    pub roots: Roots,
    /// Addresses to listen on; port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// Name of this host in task ids and certificates; `None` asks the system.
    pub node: Option<String>,
    /// Whether jobs run by their schedules; if not, they run on demand only.
    pub schedules: bool,
    /// How reverse proxies tell where requests come from.
    pub real_ip: Option<RealIp>,
}

impl ServerOptions {
    /// A server for these directories, on the stock port of all addresses.
    pub fn new(roots: Roots) -> Self {
        Self {
            roots,
            listen: vec![(Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into()],
            node: None,
            schedules: true,
            real_ip: None,
        }
    }
}

/// What a process prepared while it was root, before it became another user.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The helper that is root still.
    pub helper: Option<PrivilegedHelper>,
    /// Sockets that listen already, in the order of [`ServerOptions::listen`], which they stand for. Empty: they are opened.
    pub sockets: Vec<std::net::TcpListener>,
}

/// All parts of the server. Handlers reach it through their request's context.
#[derive(Debug)]
pub struct Server {
    roots: Roots,
    node: String,
    config: Arc<ConfigStore>,
    access: AccessControl,
    helper: Option<Arc<PrivilegedHelper>>,
    certificates: Arc<CertificateStore>,
    tasks: TaskRegistry,
    job_states: JobStates,
    job_runs: JobRuns,
    notifier: Arc<Notifier>,
    heartbeats: Arc<Heartbeats>,
    runtimes: RuntimeHandles,
    datastores: DatastoreRegistry,
    chunk_gate: ChunkGate,
    metrics: Arc<History>,
    rrd: Arc<LongHistory>,
    latency: Latency,
    health: Health,
    access_log: LineLog,
    auth_log: AuthLog,
    audit_log: AuditLog,
    real_ip: Option<RealIp>,
    tree: Tree,
}

impl Server {
    /// Where configuration, state and logs are.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Name of this host, without domain.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The configuration directory.
    pub fn config(&self) -> &Arc<ConfigStore> {
        &self.config
    }

    /// The helper that does what only root may, when the server was started as root.
    pub fn privileged_helper(&self) -> Option<&PrivilegedHelper> {
        self.helper.as_deref()
    }

    /// The certificate in use.
    pub fn certificates(&self) -> &CertificateStore {
        &self.certificates
    }

    /// Uses the certificate files, if they have changed; says whether they hold another certificate. The key so far signs for it,
    /// unless it did so before. Blocking.
    ///
    /// # Errors
    /// When they cannot be used; the certificate so far then stays in use.
    pub(crate) fn use_certificate_files(&self) -> Result<bool, TlsError> {
        let mut signed = true;
        let before = self.certificates.current();
        let changed = self.certificates.reload_if_changed(|old, new| {
            // Somebody may have put the files there, which is no reason to lose those who pinned the old certificate.
            let extended = certificate_change::extend_chain(&self.config, old, new.fingerprint());
            if let Err(err) = extended {
                signed = false;
                tracing::error!(%err, "peers that pinned the old certificate have to accept the new one by hand");
            }
        })?;
        if changed {
            let fingerprint = self.certificates.current().fingerprint().to_string();
            tracing::info!(fingerprint, "using a new certificate");
            self.notifier
                .certificate_changed(&before, &self.certificates.current(), signed);
        }
        Ok(changed)
    }

    /// How to reach a remote. What becomes of its pin is written to the audit log, and told. Blocks for small files.
    ///
    /// # Errors
    /// When there is no such remote, or its section makes no sense.
    pub(crate) fn remote_account(&self, name: &str) -> Result<RemoteAccount, EditError> {
        let mut account = remote::account(&self.config, name)?;
        account.pins.audited(self.audit_log.clone());
        let (notifier, remote) = (Arc::clone(&self.notifier), account.name.clone());
        account
            .pins
            .tell(move |change| notifier.pin_changed(&remote, change));
        Ok(account)
    }

    /// Background tasks.
    pub fn tasks(&self) -> &TaskRegistry {
        &self.tasks
    }

    /// When jobs ran last.
    pub fn job_states(&self) -> &JobStates {
        &self.job_states
    }

    /// Which runs of jobs are not noted as ended.
    pub fn job_runs(&self) -> &JobRuns {
        &self.job_runs
    }

    /// Tells people what happened.
    pub fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    /// Who is told of finished runs.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// The runtimes, to start work on.
    pub fn runtimes(&self) -> &RuntimeHandles {
        &self.runtimes
    }

    /// The datastores.
    pub fn datastores(&self) -> &DatastoreRegistry {
        &self.datastores
    }

    /// The gate in front of chunk checks of all backup sessions.
    pub(crate) fn chunk_gate(&self) -> &ChunkGate {
        &self.chunk_gate
    }

    /// What was measured lately.
    pub fn metrics(&self) -> &History {
        &self.metrics
    }

    /// What was measured over days, months and years.
    pub fn rrd(&self) -> &LongHistory {
        &self.rrd
    }

    /// How long requests took.
    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// What is wrong: the one list of checks that everybody shows, counts or sends.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The log of log-ins.
    pub fn auth_log(&self) -> &AuthLog {
        &self.auth_log
    }

    /// The log of who changed what.
    pub(crate) fn audit_log(&self) -> &AuditLog {
        &self.audit_log
    }

    /// Whom a request comes from that arrived on a connection from `peer`.
    pub(crate) fn client_of(&self, headers: &HeaderMap, peer: SocketAddr) -> SocketAddr {
        match &self.real_ip {
            Some(real_ip) => real_ip.of(headers, peer),
            None => peer,
        }
    }

    /// All endpoints.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn access_log(&self) -> &LineLog {
        &self.access_log
    }

    /// Log-ins, tickets, tokens and permissions.
    pub fn access(&self) -> &AccessControl {
        &self.access
    }

    /// Whom these credentials of a request from `peer` prove; `writes` says whether the request can change anything. Blocking.
    ///
    /// # Errors
    /// When they are not good.
    pub(crate) fn authenticate(
        &self,
        credentials: &Credentials,
        peer: SocketAddr,
        writes: bool,
    ) -> Result<AuthId, Refused> {
        match credentials {
            Credentials::Ticket { ticket, csrf } => {
                self.access.check_ticket(ticket, csrf.as_deref(), writes)
            }
            Credentials::Token { auth_id, secret } => {
                self.access
                    .check_token_from(Some(peer.ip()), auth_id, secret)
            }
        }
    }

    /// What somebody may do on a path; nothing while the rules cannot be read. Blocks for a small file.
    pub fn privileges(&self, auth_id: &AuthId, path: &str) -> Privileges {
        if auth_id.is_root() {
            return Privileges::ALL;
        }
        match self.access.permissions(auth_id, path) {
            Ok(permissions) => permissions.privileges,
            Err(err) => {
                tracing::error!(%err, "no permissions are granted");
                Privileges::NONE
            }
        }
    }

    /// Whether somebody holds one of `privileges` on a path or anywhere below it. Blocks for a small file.
    pub fn privileges_below(&self, auth_id: &AuthId, path: &str, privileges: Privileges) -> bool {
        self.access
            .any_below(auth_id, path, privileges)
            .unwrap_or_else(|err| {
                tracing::error!(%err, "no permissions are granted");
                false
            })
    }

    /// Whether a user or token exists and may be used. Blocks for a small file.
    ///
    /// # Errors
    /// The configuration cannot be read.
    pub fn is_active(&self, auth_id: &AuthId) -> Result<bool, ConfigError> {
        self.access.is_active(auth_id)
    }
}

/// A running server. Dropping it stops the server at once; [`ServerHandle::shutdown`] lets tasks and requests end.
#[derive(Debug)]
pub struct ServerHandle {
    server: Arc<Server>,
    administrator: Option<Administrator>,
    addresses: Vec<SocketAddr>,
    shutdown: watch::Sender<bool>,
    listener: Listener,
    listeners: Vec<JoinHandle<io::Result<()>>>,
    sampler: Sampler,
    forwarding: Forwarding,
    watcher: Watcher,
    couriers: [Courier; 2],
    timer: Option<Timer>,
    health: HealthWatch,
    runtimes: Runtimes,
}

impl ServerHandle {
    /// The first address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addresses
            .first()
            .copied()
            .unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into())
    }

    /// All addresses that the server listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Fingerprint of the certificate in use, for clients to pin.
    pub fn fingerprint(&self) -> Fingerprint {
        *self.server.certificates.current().fingerprint()
    }

    /// The administrator that the first start made, to be told once.
    pub fn administrator(&self) -> Option<&Administrator> {
        self.administrator.as_ref()
    }

    /// The server's parts.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Stops accepting, asks running tasks to end, and waits for them and for the answers under way, at most for
    /// `patience` each.
    pub async fn shutdown(self, patience: Duration) {
        self.shutdown.send_replace(true);
        // It may be starting a job, which the end of all tasks waits for.
        let timer = self.timer;
        let stop = tokio::task::spawn_blocking(|| timer.map(Timer::stop));
        let _ = tokio::time::timeout(patience, stop).await;
        self.server.tasks.shut_down(patience).await;
        for listener in self.listeners {
            // A listener that has ended, in whichever way, is what is wanted here.
            let _ = listener.await;
        }
        // What is still open after that is cut off.
        let _ = tokio::time::timeout(patience, self.listener.closed()).await;
        let (server, sampler, watcher) = (Arc::clone(&self.server), self.sampler, self.watcher);
        let health = self.health;
        let couriers = self.couriers;
        // The writers may have ended; nothing more can be done about their last lines.
        let _ = tokio::task::spawn_blocking(move || {
            server.access_log.flush();
            server.auth_log.flush();
            server.audit_log.flush();
            sampler.stop();
            if let Err(err) = server.rrd.commit() {
                tracing::error!(%err, "unable to write the history of what was measured");
            }
            watcher.stop();
            health.stop();
            // What it does not get done waits for the next start.
            drop(couriers);
        })
        .await;
        drop(self.forwarding);
        drop(self.runtimes);
    }
}

/// Starts a server inside this process.
///
/// What is missing is created: directories, certificate, keys, and an administrator when there is no user at all.
///
/// # Errors
/// When something that the server cannot do without is missing or broken; nothing keeps running then.
pub async fn run(options: ServerOptions) -> Result<ServerHandle, ServerError> {
    run_with(options, api::endpoints(), Inherited::default()).await
}

/// Starts a server with what its process prepared as root.
///
/// # Errors
/// As [`run`].
pub async fn run_inheriting(
    options: ServerOptions,
    inherited: Inherited,
) -> Result<ServerHandle, ServerError> {
    run_with(options, api::endpoints(), inherited).await
}

/// Watches the datastores; if jobs run by themselves here, a mount starts those that wait for it.
fn watch_datastores(server: &Arc<Server>, schedules: bool) -> io::Result<Watcher> {
    let own = Arc::downgrade(server);
    let control = server.runtimes.control.clone();
    Watcher::start(server.datastores.clone(), move |datastore| {
        let Some(server) = own.upgrade().filter(|_| schedules) else {
            return;
        };
        let datastore = datastore.clone();
        control.spawn_blocking(move || {
            if let Err(err) = jobs::start_after_mount(&server, &datastore) {
                tracing::error!(store = %datastore, %err, "unable to start the sync jobs of a mounted datastore");
            }
        });
    })
}

/// Starts a server that serves these endpoints.
async fn run_with(
    options: ServerOptions,
    endpoints: Vec<Endpoint>,
    inherited: Inherited,
) -> Result<ServerHandle, ServerError> {
    let Inherited { helper, sockets } = inherited;
    let runtimes = Runtimes::start()?;
    let handles = runtimes
        .handles()
        .ok_or_else(|| io::Error::other("the runtimes have ended"))?;
    let (addresses, schedules) = (options.listen.clone(), options.schedules);
    let data = handles.data.clone();
    let helper = helper.map(Arc::new);
    let prepare = move || prepare(options, endpoints, handles, helper);
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let Prepared {
        server,
        administrator,
    } = prepared.map_err(io::Error::other)??;
    let watcher = watch_datastores(&server, schedules)?;
    let sampler = Sampler::start(
        server.datastores.clone(),
        Arc::clone(&server.metrics),
        Arc::clone(&server.rrd),
    )?;
    let forwarding = Forwarding::start(&server)?;
    let control = server.runtimes.control.clone();
    let shutdown = watch::Sender::new(false);
    let answering = Arc::clone(&server);
    let service: listener::Service = Arc::new(move |request, peer| {
        Box::pin(dispatch::respond(Arc::clone(&answering), request, peer))
    });
    let listener = Listener::new(
        Arc::clone(&server.certificates),
        service,
        Limits::default(),
        shutdown.subscribe(),
    );
    let sockets = if sockets.is_empty() {
        let bound = addresses.into_iter().map(listener::bind);
        bound.collect::<Result<Vec<_>, _>>()?
    } else {
        sockets
    };
    let addresses = sockets
        .iter()
        .map(std::net::TcpListener::local_addr)
        .collect::<Result<Vec<_>, _>>()?;
    let listeners = sockets
        .into_iter()
        .map(|socket| control.spawn(listener.clone().serve(socket)))
        .collect();
    let registry = server.datastores.clone();
    data.spawn_blocking(move || foreign_owner::report(&registry));
    data.spawn(watch_certificate(Arc::clone(&server), shutdown.subscribe()));
    data.spawn(log_rotation::run_daily(
        Arc::clone(&server),
        shutdown.subscribe(),
    ));
    data.spawn(retention_clock::run(
        Arc::clone(&server),
        shutdown.subscribe(),
    ));
    let start_timer = || Timer::start(Arc::clone(&server));
    let timer = schedules.then(start_timer).transpose()?;
    let health = HealthWatch::start(Arc::clone(&server))?;
    let couriers = [
        Courier::start("heartbeats", Arc::clone(&server.heartbeats))?,
        Courier::start("notifications", Arc::clone(&server.notifier))?,
    ];
    Ok(ServerHandle {
        server,
        administrator,
        addresses,
        shutdown,
        listener,
        listeners,
        sampler,
        forwarding,
        watcher,
        couriers,
        timer,
        health,
        runtimes,
    })
}

/// A server that does not listen yet.
struct Prepared {
    server: Arc<Server>,
    administrator: Option<Administrator>,
}

/// Says which settings of old versions nothing acts on.
fn report_waiting_settings(config: &ConfigStore) {
    match migration::waiting_prune_settings(config) {
        Ok(stores) => {
            for store in stores {
                tracing::warn!(
                    %store,
                    "the datastore's section holds prune settings of an old version, which nothing acts on: \
                     'proxmox-backup-manager migrate-config update-to-prune-jobs-config' makes a prune job of them"
                );
            }
        }
        // whoever needs the datastores says so
        Err(error) => tracing::warn!(%error, "unable to look for settings of old versions"),
    }
}

fn prepare(
    options: ServerOptions,
    endpoints: Vec<Endpoint>,
    runtimes: RuntimeHandles,
    helper: Option<Arc<PrivilegedHelper>>,
) -> Result<Prepared, ServerError> {
    let roots = options.roots;
    roots.create_directories()?;
    let node = options.node.unwrap_or_else(host_name);
    let config = Arc::new(ConfigStore::of(&roots));
    // Also completes a switch that was cut off, after which the files may not fit each other.
    if let Err(err) = certificate_change::switch_if_due(&config) {
        tracing::error!(%err, "unable to switch to the certificate that was announced");
    }
    let certificates = Arc::new(CertificateStore::open(&roots, &node)?);
    let tasks = TaskRegistry::new(roots.task_logs(), node.clone(), runtimes.data.clone());
    let cut_off = tasks.clean_up()?;
    let job_states = JobStates::new(roots.job_states());
    let access_log = LineLog::start(roots.api_logs().join("access.log"))?;
    let audit_log = AuditLog::new(LineLog::start(roots.api_logs().join(audit_log::FILE))?);
    let auth_log = LineLog::start(roots.api_logs().join("auth.log"))?;
    let auth_log = AuthLog::new(auth_log, audit_log.clone());
    let tree = Tree::new(endpoints)?;
    let administrator = create_administrator(&config)?;
    if let Some(made) = &administrator {
        audit_log.user_created(None, made.user.as_str());
    }
    report_waiting_settings(&config);
    let access = AccessControl::open(Arc::clone(&config))?.with_helper(helper.clone());
    let notifier = Notifier::open(&roots, &node, Arc::clone(&config));
    let notifier = Arc::new(notifier.map_err(io::Error::other)?);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let datastores = DatastoreRegistry::new(Arc::clone(&config), &roots);
    let heartbeats = Arc::new(Heartbeats::open(&roots, Arc::clone(&config))?);
    let server = Arc::new(Server {
        datastores,
        chunk_gate: ChunkGate::new(cores),
        metrics: Arc::default(),
        latency: Latency::new()?,
        rrd: Arc::new(LongHistory::open(roots.var_lib().join("rrdb"))),
        health: Health::open(&roots),
        roots,
        node,
        config,
        access,
        helper,
        certificates,
        tasks,
        job_states,
        job_runs: JobRuns::default(),
        notifier,
        heartbeats,
        runtimes,
        access_log,
        auth_log,
        audit_log,
        real_ip: options.real_ip,
        tree,
    });
    choose_ciphers(&server);
    notifications::cut_off::tell(&server, &cut_off);
    jobs::tell_lost_runs(&server);
    cut_off::clear(&server, cut_off);
    Ok(Prepared {
        server,
        administrator,
    })
}

/// The host's name without its domain, or `localhost` when the system has none that task ids can carry.
pub fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let short = name.split('.').next().unwrap_or_default();
    if backstop_types::is_node_name(short) {
        short.to_owned()
    } else {
        "localhost".to_owned()
    }
}

/// Offers the ciphers that the settings of the host allow.
fn choose_ciphers(server: &Server) {
    let choice = match server.config.node() {
        Ok(node) => CipherChoice::of_node(&node.data),
        Err(err) => return tracing::warn!(%err, "the ciphers that are allowed are not known"),
    };
    let remarks = choice.remarks.clone();
    match server.certificates.use_ciphers(choice) {
        Ok(true) => {
            remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
            tracing::info!("using the ciphers that node.cfg allows");
        }
        Ok(false) => {}
        Err(err) => tracing::error!(%err, "unable to use the ciphers that node.cfg allows"),
    }
}

async fn watch_certificate(server: Arc<Server>, mut shutdown: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CERTIFICATE_CHECK) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        let this = Arc::clone(&server);
        let look = move || {
            choose_ciphers(&this);
            if let Err(err) = certificate_change::switch_if_due(&this.config) {
                tracing::error!(%err, "unable to switch to the certificate that was announced");
            }
            this.use_certificate_files()
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(_)) => {}
            Ok(Err(err)) => {
                tracing::error!(%err, "the changed certificate cannot be used, keeping the previous one")
            }
            Err(err) => tracing::error!(%err, "unable to look at the certificate files"),
        }
    }
}

#[cfg(test)]
mod tests;
