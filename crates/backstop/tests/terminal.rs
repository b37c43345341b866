//! What the client does on a terminal: prompts, questions, progress; and what it leaves out where there is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testbed::server::ServerProcess;
use testbed::terminal::Terminal;

const BINARY: &str = env!("CARGO_BIN_EXE_backstop");
const PASSPHRASE: &str = "open-sésame";

/// A command without a server.
fn client(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .arg("client")
        .args(arguments)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("LANG", "C.UTF-8")
        .env_remove("LC_ALL")
        .env_remove("PBS_ENCRYPTION_PASSWORD")
        .current_dir(home);
    command
}

fn create_key(home: &Path) -> (Terminal, PathBuf) {
    let path = home.join("key.json");
    let words = ["key", "create", "key.json", "--kdf", "pbkdf2"];
    (Terminal::run(client(home, &words)).unwrap(), path)
}

#[test]
fn a_new_passphrase_is_asked_twice_and_never_shown() {
    let home = tempfile::tempdir().unwrap();
    let (mut terminal, path) = create_key(home.path());
    terminal.expect("Encryption Key Password: ").unwrap();
    assert!(!terminal.is_as_usual().unwrap());
    terminal
        .type_in(&format!("wrong\x15{PASSPHRASE}x\x7f\r"))
        .unwrap();
    terminal.expect("Verify Password: ").unwrap();
    terminal.type_in(&format!("{PASSPHRASE}\r")).unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(status.success(), "{shown}");
    for secret in ["wrong", "open", "same"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("***********"), "{shown}");
    assert!(terminal.is_as_usual().unwrap());

    // The new key opens with what was typed, and with nothing else.
    let change = ["key", "change-passphrase", "key.json", "--kdf", "none"];
    let mut wrong = Terminal::run(client(home.path(), &change)).unwrap();
    wrong.expect("Encryption Key Password: ").unwrap();
    wrong.type_in("something else\r").unwrap();
    let (status, shown) = wrong.end().unwrap();
    assert_eq!(status.code(), Some(255), "{shown}");
    let mut right = Terminal::run(client(home.path(), &change)).unwrap();
    right.expect("Encryption Key Password: ").unwrap();
    right.type_in(&format!("{PASSPHRASE}\r")).unwrap();
    let (status, shown) = right.end().unwrap();
    assert!(status.success(), "{shown}");
    let file = fs::read_to_string(path).unwrap();
    assert!(
        file.contains(r#""kdf":null"#) || file.contains(r#""kdf": null"#),
        "{file}"
    );
}

#[test]
fn a_repetition_that_differs_and_a_short_passphrase_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let (mut terminal, path) = create_key(home.path());
    terminal.expect("Encryption Key Password: ").unwrap();
    terminal.type_in("passphrase one\r").unwrap();
    terminal.expect("Verify Password: ").unwrap();
    terminal.type_in("passphrase two\r").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert_eq!(status.code(), Some(255));
    assert!(shown.contains("passwords do not match!"), "{shown}");
    assert!(!path.exists());

    let (mut terminal, path) = create_key(home.path());
    terminal.expect("Encryption Key Password: ").unwrap();
    terminal.type_in("1234\r").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert_eq!(status.code(), Some(255));
    assert!(shown.contains("password too short!"), "{shown}");
    assert!(!path.exists());
}

#[test]
fn an_interrupt_at_a_prompt_ends_the_program_and_leaves_the_terminal_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let (mut terminal, path) = create_key(home.path());
    terminal.expect("Encryption Key Password: ").unwrap();
    terminal.type_in("half\x03").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT), "{shown}");
    assert!(terminal.is_as_usual().unwrap());
    assert!(!path.exists());
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let output = client(home.path(), &["key", "create", "key.json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(255));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "Error: unable to read passphrase - no tty\n");
}

struct World {
    server: ServerProcess,
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let scratch = testbed::scratch::directory().unwrap();
        let root = scratch.path().join("root");
        let server = ServerProcess::with_datastore(Path::new(BINARY), &root).unwrap();
        testbed::tree::image(&scratch.path().join("disk"), 5, 48).unwrap();
        Self { server, scratch }
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.server.command("client", "store1");
        command.args(arguments);
        command
    }

    fn backup(&self, id: &str) -> Command {
        let spec = format!("drive.img:{}", self.scratch.path().join("disk").display());
        self.client(&["backup", &spec, "--backup-id", id])
    }

    fn snapshots(&self) -> String {
        self.server.ok("client", &["snapshot", "list"]).unwrap()
    }
}

#[test]
fn progress_is_drawn_on_a_terminal_and_nowhere_else() {
    let world = World::new();
    let mut terminal = Terminal::run(world.backup("a")).unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(status.success(), "{shown}");
    assert!(shown.contains("\x1b[") && shown.contains("% "), "{shown:?}");

    let output = world.backup("b").output().unwrap();
    assert!(output.status.success());
    for said in [output.stdout, output.stderr] {
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains(['\x1b', '\r']), "{said:?}");
    }
}

#[test]
fn passwords_and_questions_are_answered_at_the_terminal() {
    let world = World::new();
    assert!(world.backup("a").output().unwrap().status.success());
    assert!(world.client(&["logout"]).status().unwrap().success());
    let mut login = world.client(&["login"]);
    login
        .env_remove("PBS_PASSWORD")
        .env_remove("PBS_FINGERPRINT");
    let mut terminal = Terminal::run(login).unwrap();
    terminal.expect("Password for \"admin@pbs\": ").unwrap();
    terminal
        .type_in(&format!("{}\r", world.server.password))
        .unwrap();
    terminal.expect(&world.server.fingerprint).unwrap();
    terminal.expect("(y/n): ").unwrap();
    terminal.type_in("what?\r").unwrap();
    terminal.expect("(y/n): ").unwrap();
    terminal.type_in("y\r").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(status.success(), "{shown}");
    assert!(!shown.contains(&world.server.password), "{shown}");

    // The ticket is kept, so that nobody is asked again.
    let mut list = world.client(&["snapshot", "list"]);
    list.env_remove("PBS_PASSWORD")
        .env_remove("PBS_FINGERPRINT");
    assert!(list.output().unwrap().status.success());

    let forget = || Terminal::run(world.client(&["group", "forget", "host/a"])).unwrap();
    for (answer, outcome) in [("\r", "Abort."), ("n\r", "Abort.")] {
        let mut terminal = forget();
        terminal
            .expect("Delete group \"host/a\" with 1 snapshot(s)? [y/N]: ")
            .unwrap();
        terminal.type_in(answer).unwrap();
        let (status, shown) = terminal.end().unwrap();
        assert!(status.success() && shown.contains(outcome), "{shown}");
    }
    let mut terminal = forget();
    terminal.expect("[y/N]: ").unwrap();
    terminal.type_in("\x03").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT), "{shown}");
    assert!(world.snapshots().contains("host/a"));
    let mut terminal = forget();
    terminal.expect("[y/N]: ").unwrap();
    terminal.type_in("y\r").unwrap();
    let (status, shown) = terminal.end().unwrap();
    assert!(
        status.success() && shown.contains("Successfully deleted group!"),
        "{shown}"
    );
    assert!(!world.snapshots().contains("host/a"));
}
