//! A real directory server (OpenLDAP's `slapd`) on loopback, with a configuration and data of its own.
//!
//! It plays both an LDAP server and an Active Directory: users have a `uid` and a `sAMAccountName`, and the root names a
//! `defaultNamingContext`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::authority::Authority;

/// Where everything is.
pub const BASE: &str = "dc=example,dc=com";
/// Who may search.
pub const READER: &str = "cn=reader,dc=example,dc=com";
/// The reader's password.
pub const READER_PASSWORD: &str = "Reader-Secret";
/// How often another port is tried.
const ATTEMPTS: usize = 8;

/// A user in the directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// `uid` and `sAMAccountName`.
    pub name: &'a str,
    /// Its password.
    pub password: &'a str,
    /// More lines of LDIF, such as `mail: a@example.com`.
    pub more: &'a [&'a str],
}

/// A running server. Dropping it ends the process.
pub struct Slapd {
    process: Child,
    /// Port of plain connections and StartTLS.
    pub port: u16,
    /// Port of TLS.
    pub tls_port: u16,
    /// Who signed its certificate.
    pub authority: Authority,
    program: PathBuf,
    folder: TempDir,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, or `None` (and a line that says so) where there is none.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let known = [
        "/usr/sbin/slapd",
        "/usr/lib/openldap/slapd",
        "/usr/libexec/slapd",
    ];
    let found = known.iter().map(PathBuf::from).find(|path| path.is_file());
    let has_parts = Path::new("/etc/ldap/schema/inetorgperson.schema").is_file()
        && Path::new("/usr/lib/ldap/back_mdb.so").exists();
    if found.is_none() || !has_parts {
        println!("skipped: no OpenLDAP server (slapd is not installed)");
        return None;
    }
    found
}

impl Slapd {
    /// Starts a server with these users below `ou=people`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(program: &Path, users: &[Entry<'_>]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path())?;
        std::fs::create_dir(folder.path().join("data"))?;
        let configuration = folder.path().join("slapd.conf");
        std::fs::write(
            &configuration,
            configuration_text(folder.path(), &authority),
        )?;
        std::fs::write(
            folder.path().join("root.ldif"),
            format!("dn:\ndefaultNamingContext: {BASE}\n"),
        )?;
        let data = folder.path().join("data.ldif");
        std::fs::write(&data, data_text(users))?;
        let loaded = Command::new(program)
            .args(["-T", "add", "-f"])
            .arg(&configuration)
            .arg("-l")
            .arg(&data)
            .output()
            .context("filling the directory")?;
        if !loaded.status.success() {
            bail!("slapadd: {}", String::from_utf8_lossy(&loaded.stderr));
        }
        for _ in 0..ATTEMPTS {
            if let Some((process, port, tls_port)) = run(program, &configuration)? {
                return Ok(Self {
                    process,
                    port,
                    tls_port,
                    authority,
                    program: program.to_owned(),
                    folder,
                });
            }
        }
        bail!("slapd does not start")
    }

    /// Ends the server and starts it with other users, on other ports.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn restarted_with(self, users: &[Entry<'_>]) -> Result<Self> {
        Self::start(&self.program, users)
    }

    /// Ends the server; its ports refuse connections from then on.
    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Starts the server; `None` when a port was taken meanwhile.
fn run(program: &Path, configuration: &Path) -> Result<Option<(Child, u16, u16)>> {
    let (port, tls_port) = (free_port()?, free_port()?);
    let mut process = Command::new(program)
        .arg("-f")
        .arg(configuration)
        .args(["-d", "stats", "-h"])
        .arg(format!(
            "ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting slapd")?;
    let said = process.stderr.take().context("slapd has no output")?;
    let mut said = BufReader::new(said);
    let mut line = String::new();
    while said.read_line(&mut line)? > 0 {
        if line.contains("slapd starting") {
            // Keep reading, so that it never blocks on a full pipe.
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            return Ok(Some((process, port, tls_port)));
        }
        line.clear();
    }
    process.wait()?;
    Ok(None)
}

fn configuration_text(folder: &Path, authority: &Authority) -> String {
    let folder = folder.display();
    format!(
        r#"include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.4.221 NAME 'sAMAccountName'
  EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.484 NAME 'defaultNamingContext'
  EQUALITY distinguishedNameMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 SINGLE-VALUE )
objectclass ( 1.2.840.113556.1.5.9 NAME 'user' SUP inetOrgPerson STRUCTURAL MAY sAMAccountName )
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
rootDSE {folder}/root.ldif
TLSCACertificateFile {ca}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
TLSVerifyClient never
# Whoever asks without pages gets no more than this.
sizelimit size.soft=5 size.hard=5 size.prtotal=unlimited
database mdb
suffix "{BASE}"
directory {folder}/data
maxsize 33554432
rootdn "cn=admin,{BASE}"
rootpw Admin-Secret
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{READER}" read by * none
"#,
        ca = authority.certificate.display(),
        certificate = authority.server_certificate.display(),
        key = authority.server_key.display(),
    )
}

fn data_text(users: &[Entry<'_>]) -> String {
    let mut text = format!(
        "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n\
         dn: {READER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: reader\n\
         userPassword: {READER_PASSWORD}\n\n\
         dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n"
    );
    for (number, user) in users.iter().enumerate() {
        let Entry {
            name,
            password,
            more,
        } = user;
        let _ = write!(
            text,
            "dn: cn=user {number},ou=people,{BASE}\nobjectClass: user\ncn: user {number}\nsn: {name}\nuid: {name}\n\
             sAMAccountName: {name}\nuserPassword: {password}\n"
        );
        for line in *more {
            let _ = writeln!(text, "{line}");
        }
        text.push('\n');
    }
    text
}
