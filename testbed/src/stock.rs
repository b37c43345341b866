//! The stock programs, where a machine has them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Name of the environment variable that names the folder of the stock programs.
pub const FOLDER_VARIABLE: &str = "BACKSTOP_STOCK_BIN";

/// The stock program `name`, or `None` (and a line that says so) where there is none.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else {
        println!("skipped: no stock binaries ({FOLDER_VARIABLE} is not set)");
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    if path.is_file() {
        Some(path)
    } else {
        println!("skipped: no stock binaries ({} is missing)", path.display());
        None
    }
}

/// A stock server in mount and network namespaces of its own, so that it touches neither the
/// configuration nor the ports of this machine. Needs root. Dropping it ends its processes.
pub struct StockServer {
    namespace: Child,
    /// Fingerprint of its certificate.
    pub fingerprint: String,
    /// Folder of the stock programs.
    folder: PathBuf,
    home: TempDir,
}

/// Password of `admin@pbs` on a stock server.
pub const PASSWORD: &str = "stock-test-password";

/// What starts the server, inside its namespaces. `$1` is the folder of the programs, `$2` a scratch directory,
/// `$3` the path of the datastore `store1`.
const START: &str = r#"
set -e
ip link set lo up
for dir in /etc /var /usr/share; do
    work="$2/$(echo $dir | tr / _)"
    mkdir -p "$work/upper" "$work/work"
    mount -t overlay overlay -o "lowerdir=$dir,upperdir=$work/upper,workdir=$work/work" $dir
done
mount -t tmpfs tmpfs /run
rm -rf /etc/proxmox-backup /var/lib/proxmox-backup /var/log/proxmox-backup /var/cache/proxmox-backup
mkdir -p /run/proxmox-backup /usr/share/javascript/proxmox-backup /usr/share/pve-xtermjs
mount -t tmpfs -o mode=0755,uid=backup,gid=backup tmpfs /run/proxmox-backup
install -d -o backup -g backup -m 700 /etc/proxmox-backup
for dir in /var/lib/proxmox-backup /var/log/proxmox-backup /var/log/proxmox-backup/api /var/cache/proxmox-backup; do
    install -d -o backup -g backup $dir
done
echo '<html></html>' > /usr/share/javascript/proxmox-backup/index.hbs
echo '<html></html>' > /usr/share/pve-xtermjs/index.html.hbs
listens() { ss -Hltn "sport = :$1" | grep -q .; }
wait_for() { for _ in $(seq 600); do listens $1 && return; sleep 0.1; done; echo "nothing listens on $1"; exit 1; }
"$1/proxmox-backup-api" < /dev/null > "$2/api.log" 2>&1 &
wait_for 82
setpriv --reuid backup --regid backup --init-groups "$1/proxmox-backup-proxy" < /dev/null > "$2/proxy.log" 2>&1 &
wait_for 8007
manager="$1/proxmox-backup-manager"
$manager user create admin@pbs --password "$PASSWORD"
$manager acl update / Admin --auth-id admin@pbs
install -d -o backup -g backup "$(dirname "$3")"
$manager datastore create store1 "$3" > "$2/create.log" 2>&1 || { cat "$2/create.log"; exit 1; }
$manager cert info
echo READY
wait
"#;

impl StockServer {
    /// Starts a fresh server whose datastore `store1` is at `datastore`; its folder must be open to the user `backup`.
    /// `None` (and a line that says so) where it cannot run.
    ///
    /// # Errors
    ///
    /// When the server does not start; the error holds what it said.
    pub fn start(datastore: &Path) -> Result<Option<Self>> {
        let Some(program) = program("proxmox-backup-proxy") else {
            return Ok(None);
        };
        if !crate::is_root() {
            println!("skipped: a stock server needs root");
            return Ok(None);
        }
        let folder = program
            .parent()
            .context("the stock program has no folder")?
            .to_path_buf();
        let home = tempfile::tempdir()?;
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755))?;
        let mut namespace = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", START, "stock-server"])
            .args([folder.as_path(), home.path(), datastore])
            .env("PASSWORD", PASSWORD)
            .env_remove("RUST_BACKTRACE")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("making namespaces with unshare")?;
        let stdout = namespace.stdout.take().context("no output")?;
        let mut said = String::new();
        let mut fingerprint = None;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(found) = line.strip_prefix("Fingerprint (sha256): ") {
                fingerprint = Some(found.to_string());
            }
            if let (Some(fingerprint), "READY") = (&fingerprint, line.as_str()) {
                return Ok(Some(Self {
                    namespace,
                    fingerprint: fingerprint.clone(),
                    folder,
                    home,
                }));
            }
            said.push_str(&line);
            said.push('\n');
        }
        if let Some(mut stderr) = namespace.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let status = namespace.wait()?;
        bail!("the stock server did not start ({status}): {said}")
    }

    /// The process whose descendants are the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.namespace.id()
    }

    /// `program`, prepared to run beside the server and to talk to its datastore `store1` as `admin@pbs`.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.namespace.id().to_string(),
                "--mount",
                "--net",
            ])
            .arg(program);
        command
            .env("PBS_REPOSITORY", "admin@pbs@127.0.0.1:store1")
            .env("PBS_PASSWORD", PASSWORD)
            .env("PBS_FINGERPRINT", &self.fingerprint)
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("XDG_CACHE_HOME", self.home.path().join("cache"))
            .env("XDG_RUNTIME_DIR", self.home.path())
            .env("LANG", "C.UTF-8")
            .env_remove("LC_ALL")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    }

    /// A stock program of that name, prepared as by [`StockServer::command`].
    #[must_use]
    pub fn stock_command(&self, name: &str) -> Command {
        self.command(&self.folder.join(name))
    }
}

impl Drop for StockServer {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.namespace.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let _ = self.namespace.wait();
    }
}
