//! Mail to a real mail server, aiosmtpd: each way of protecting the connection, and what is refused.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use testbed::server::ServerProcess;

struct MailServer {
    child: Child,
    output: BufReader<ChildStdout>,
    port: String,
}

impl MailServer {
    /// `None` where there is no Python that has it.
    fn start(etc: &Path, mode: &str, user: &str, password: &str) -> Option<Self> {
        let Some(python) = std::env::var_os("BACKSTOP_PROXMOXER_PYTHON") else {
            println!("skipped: BACKSTOP_PROXMOXER_PYTHON names no Python that has aiosmtpd");
            return None;
        };
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/notifications/smtp_server.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(mode)
            .arg(etc.join("proxy.pem"))
            .arg(etc.join("proxy.key"))
            .args([user, password])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        let port = port.trim().to_owned();
        assert!(!port.is_empty(), "the mail server did not start");
        Some(Self {
            child,
            output,
            port,
        })
    }

    fn mail(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn mail_arrives_at_a_mail_server_in_each_mode_and_a_wrong_password_is_said() {
    let dir = testbed::scratch::directory().unwrap();
    let root = dir.path();
    let server = ServerProcess::start(
        Path::new(env!("CARGO_BIN_EXE_backstop")),
        root,
        ([127, 0, 0, 1], 0).into(),
    )
    .unwrap();
    let etc = root.join("etc/proxmox-backup");
    let manager = |words: &[&str]| {
        let mut command = server.command("manager", "store1");
        // The authority that this system trusts, for this test: the one that made the mail server's certificate.
        command
            .args(words)
            .env("SSL_CERT_FILE", etc.join("proxy.pem"));
        command.output().unwrap()
    };
    for mode in ["insecure", "starttls", "tls"] {
        let Some(mut mails) = MailServer::start(&etc, mode, "pbs", "hush-hush") else {
            return;
        };
        let create = ["notification", "endpoint", "smtp", "create", mode];
        let settings = [
            "--server",
            "localhost",
            "--port",
            &mails.port,
            "--mode",
            mode,
            "--from-address",
            "pbs@example.com",
            "--author",
            "Bäckup",
            "--mailto",
            "ann@example.com",
            "--mailto",
            "zoe@example.com",
            "--username",
            "pbs",
            "--password",
            "hush-hush",
        ];
        let made = manager(&[&create[..], &settings].concat());
        assert!(made.status.success(), "{made:?}");
        let sent = manager(&["notification", "target", "test", mode]);
        assert!(sent.status.success(), "{mode}: {sent:?}");
        let mail = mails.mail();
        assert_eq!(mail["from"], "pbs@example.com");
        assert_eq!(
            mail["to"],
            serde_json::json!(["ann@example.com", "zoe@example.com"])
        );
        assert_eq!(mail["tls"], mode != "insecure");
        assert_eq!(mail["user"], "pbs");
        let data = mail["data"].as_str().unwrap();
        for part in [
            "Subject: Test notification\r\n",
            "To: ann@example.com, zoe@example.com\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "<pbs@example.com>\r\n",
        ] {
            assert!(data.contains(part), "{part}\n{data}");
        }
        let update = ["notification", "endpoint", "smtp", "update", mode];
        let wrong = manager(&[&update[..], &["--password", "wrong-hush"]].concat());
        assert!(wrong.status.success());
        let refused = manager(&["notification", "target", "test", mode]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success());
        assert!(
            text.contains("535") && !text.contains("hush"),
            "{mode}: {text}"
        );
    }
}
