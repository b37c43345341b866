//! A real Zabbix on loopback, as Debian installs it: server, frontend and a PostgreSQL of its own, all in one temporary folder.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{LIMIT, Service};

const FRONTEND: &str = "/usr/share/zabbix";
const SCHEMA: &str = "/usr/share/zabbix-server-pgsql";
/// Between two looks at what Zabbix has found.
const PAUSE: Duration = Duration::from_millis(500);

/// A running Zabbix. Dropping it ends its processes.
pub struct Zabbix {
    frontend: Service,
    token: String,
    _server: Service,
    _database: Service,
    _folder: TempDir,
}

/// A host that Zabbix watches.
#[derive(Debug, Clone)]
pub struct Host(String);

/// The folder of PostgreSQL's programs, or `None` (and a line that says so) where nobody asks for it with `BACKSTOP_ZABBIX`, as it takes
/// minutes, or where Zabbix' server, its frontend or PostgreSQL are not installed.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    if std::env::var_os("BACKSTOP_ZABBIX").is_none() {
        println!("skipped: no Zabbix (BACKSTOP_ZABBIX is not set)");
        return None;
    }
    let parts = [
        "/usr/sbin/zabbix_server",
        "/usr/share/zabbix/api_jsonrpc.php",
        "/usr/share/zabbix-server-pgsql/schema.sql.gz",
        "/usr/bin/php",
        "/usr/bin/psql",
    ];
    let postgresql = std::fs::read_dir("/usr/lib/postgresql").into_iter();
    let mut postgresql: Vec<_> = postgresql
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("postgres").is_file())
        .collect();
    postgresql.sort();
    let found = postgresql.pop();
    let found = found.filter(|_| parts.iter().all(|part| Path::new(part).is_file()));
    if found.is_none() {
        println!(
            "skipped: no Zabbix (zabbix-server-pgsql, zabbix-frontend-php and postgresql are not installed)"
        );
    }
    found
}

/// User and group that PostgreSQL runs as: it refuses root.
fn account() -> Result<Option<(u32, u32)>> {
    if !crate::is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let user = users.lines().find(|line| line.starts_with("postgres:"));
    let user = user.context("there is no user 'postgres'")?;
    let mut ids = user.split(':').skip(2).map(str::parse);
    let mut id = || ids.next().context("no id")?.context("no number");
    Ok(Some((id()?, id()?)))
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Zabbix {
    /// Starts it with an empty database, without hosts. `postgresql` is the folder of PostgreSQL's programs.
    ///
    /// # Errors
    ///
    /// When one of its parts does not start.
    pub fn start(postgresql: &Path) -> Result<Self> {
        let folder = crate::scratch::directory()?;
        let path = folder.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        let database = start_database(postgresql, path)?;
        let server = Service::start("server #0 started", |port| {
            let config = path.join("server.conf");
            let text = format!(
                "ListenIP=127.0.0.1\nListenPort={port}\nAllowRoot=1\nLogType=console\nDBHost={0}/socket\nDBName=zabbix\nDBUser=zabbix\n\
                 PidFile={0}/server.pid\nSocketDir={0}\nCacheUpdateFrequency=1\nTimeout=30\nStartDiscoverers=0\nStartPingers=0\n",
                path.display()
            );
            std::fs::write(&config, text)?;
            let mut command = Command::new("/usr/sbin/zabbix_server");
            command.arg("-f").arg("-c").arg(config);
            Ok(command)
        })?
        .ended_by(Signal::TERM);
        let web = path.join("web");
        done(Command::new("cp").arg("-r").arg(FRONTEND).arg(&web))?;
        let config = path.join("zabbix.conf.php");
        let text = format!(
            "<?php\n$DB['TYPE'] = 'POSTGRESQL'; $DB['SERVER'] = '{}/socket'; $DB['PORT'] = '0'; $DB['DATABASE'] = 'zabbix';\n\
             $DB['USER'] = 'zabbix'; $DB['PASSWORD'] = ''; $DB['SCHEMA'] = ''; $DB['ENCRYPTION'] = false;\n\
             $DB['DOUBLE_IEEE754'] = true; $ZBX_SERVER = '127.0.0.1'; $ZBX_SERVER_PORT = '{}';\n",
            path.display(),
            server.port
        );
        std::fs::write(&config, text)?;
        let reader = web.join("include/classes/core/CConfigFile.php");
        let source = std::fs::read_to_string(&reader)?;
        let own = config.to_str().context("the folder is no text")?;
        std::fs::write(&reader, source.replace("/etc/zabbix/zabbix.conf.php", own))?;
        let frontend = Service::start("started", |port| {
            let mut command = Command::new("php");
            command
                .args(["-d", "memory_limit=256M", "-S"])
                .arg(format!("127.0.0.1:{port}"))
                .current_dir(&web);
            Ok(command)
        })?;
        let mut zabbix = Self {
            frontend,
            token: String::new(),
            _server: server,
            _database: database,
            _folder: folder,
        };
        let login = json!({"user": "Admin", "password": "zabbix"});
        let token = zabbix.call("user.login", login)?;
        zabbix.token = token.as_str().context("no token")?.to_owned();
        // The one that comes with it.
        for host in list(zabbix.call("host.get", json!({"output": ["hostid"]}))?) {
            let off = json!({"hostid": host["hostid"], "status": 1});
            zabbix.call("host.update", off)?;
        }
        Ok(zabbix)
    }

    /// Calls its interface.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        let mut call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        if !self.token.is_empty() {
            call["auth"] = self.token.as_str().into();
        }
        let mut answer = self.frontend.post("/api_jsonrpc.php", &call)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => bail!("{method}: {answer}"),
        }
    }

    /// Imports a template from YAML.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub fn import(&self, template: &str) -> Result<()> {
        let rule = json!({"createMissing": true, "updateExisting": true});
        let rules = json!({
            "groups": {"createMissing": true}, "templates": rule, "items": rule, "triggers": rule, "discoveryRules": rule,
        });
        let import = json!({"format": "yaml", "source": template, "rules": rules});
        self.call("configuration.import", import).map(drop)
    }

    /// Watches a host by the template, through an agent that listens on this port. `macros` are those of the host, with values.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub fn watch(&self, template: &str, agent: u16, macros: &[(&str, &str)]) -> Result<Host> {
        let one = |method: &str, name: &str, filter: Value, id: &str| {
            let found = self.call(method, json!({"filter": filter}))?;
            let id = found[0].get(id).cloned();
            id.with_context(|| format!("there is no {name}"))
        };
        let template = one(
            "template.get",
            template,
            json!({"host": template}),
            "templateid",
        )?;
        let group = one(
            "hostgroup.get",
            "group",
            json!({"name": "Linux servers"}),
            "groupid",
        )?;
        let macros: Vec<Value> = macros
            .iter()
            .map(|(name, value)| json!({"macro": name, "value": value}))
            .collect();
        let interface = json!({
            "type": 1, "main": 1, "useip": 1, "ip": "127.0.0.1", "dns": "", "port": agent.to_string(),
        });
        let host = json!({
            "host": "backstop", "groups": [{"groupid": group}], "templates": [{"templateid": template}],
            "interfaces": [interface], "macros": macros,
        });
        let made = self.call("host.create", host)?;
        let id = made["hostids"][0].as_str().context("no host")?;
        Ok(Host(id.to_owned()))
    }

    /// The items of a host, with those that were discovered.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub fn items(&self, host: &Host) -> Result<Vec<Value>> {
        let output = ["itemid", "key_", "lastvalue", "lastclock", "state", "error"];
        let items = json!({"hostids": host.0, "output": output});
        Ok(list(self.call("item.get", items)?))
    }

    /// The triggers of a host, with those that were discovered.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub fn triggers(&self, host: &Host) -> Result<Vec<Value>> {
        let output = ["description", "value", "state", "error"];
        let triggers = json!({"hostids": host.0, "output": output, "expandDescription": true});
        Ok(list(self.call("trigger.get", triggers)?))
    }

    /// The names of the problems that a host has now.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub fn problems(&self, host: &Host) -> Result<Vec<String>> {
        let problems = json!({"hostids": host.0, "output": ["name"]});
        let problems = list(self.call("problem.get", problems)?);
        let name = |problem: &Value| problem["name"].as_str().unwrap_or_default().to_owned();
        Ok(problems.iter().map(name).collect())
    }

    /// Lets these items of a host be read until something is so, with what `look` finds then.
    ///
    /// # Errors
    ///
    /// When it is not so within two minutes.
    pub fn wait_for<T>(
        &self,
        host: &Host,
        keys: &[&str],
        look: impl Fn(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let begin = Instant::now();
        loop {
            let items = self.items(host)?;
            let wanted = items
                .iter()
                .filter(|item| keys.iter().any(|key| item["key_"] == *key));
            let reads: Vec<Value> = wanted
                .map(|item| json!({"type": "6", "request": {"itemid": item["itemid"]}}))
                .collect();
            if !reads.is_empty() {
                self.call("task.create", Value::Array(reads))?;
            }
            std::thread::sleep(PAUSE);
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if begin.elapsed() > LIMIT {
                bail!("items: {items:?}; problems: {:?}", self.problems(host)?);
            }
        }
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

/// A PostgreSQL whose socket is in `folder`, with the database that Zabbix begins with.
fn start_database(programs: &Path, folder: &Path) -> Result<Service> {
    let data = folder.join("data");
    let socket = folder.join("socket");
    let account = account()?;
    let run = |name: &str| {
        let mut command = Command::new(programs.join(name));
        if let Some((user, group)) = account {
            command.uid(user).gid(group);
        }
        command.arg("-D").arg(&data).current_dir(folder);
        command
    };
    std::fs::create_dir(&data)?;
    std::fs::create_dir(&socket)?;
    if let Some((user, group)) = account {
        chown(&data, Some(user), Some(group))?;
        chown(&socket, Some(user), Some(group))?;
    }
    let cluster = ["-U", "zabbix", "--auth=trust", "-E", "UTF8", "--locale=C"];
    done(run("initdb").args(cluster))?;
    let database = Service::start("ready to accept connections", |_| {
        let mut command = run("postgres");
        command.arg("-k").arg(&socket);
        command.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        Ok(command)
    })?
    .ended_by(Signal::QUIT);
    let import = "export PGHOST=\"$1\" PGUSER=zabbix; createdb zabbix; cd \"$2\"; for part in schema images data; \
                  do zcat $part.sql.gz; done | psql -q -v ON_ERROR_STOP=1 zabbix";
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-ec", import, "import"])
        .arg(&socket)
        .arg(SCHEMA);
    done(&mut shell)?;
    Ok(database)
}
