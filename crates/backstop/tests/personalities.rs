//! The executable under the names of the stock tools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(program: &Path, home: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if name.starts_with("PBS_") || name.starts_with("PROXMOX_") {
            command.env_remove(name);
        }
    }
    command
        .args(words)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_CONFIG_DIRS", home.join("none"))
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC")
        .env_remove("LC_ALL")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn backstop() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_backstop"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn links_make_it_the_stock_tools() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    for _ in 0..2 {
        let made = run(
            backstop(),
            dir.path(),
            &["install-links", bin.to_str().unwrap()],
        );
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    let version = run(&bin.join("proxmox-backup-client"), dir.path(), &["version"]);
    assert_eq!(text(&version.stdout), "client version: 4.2.3\n");
    let version = run(
        &bin.join("proxmox-backup-manager"),
        dir.path(),
        &["versions"],
    );
    assert!(text(&version.stdout).starts_with("proxmox-backup-server 4.2.3 "));
    let nothing = run(&bin.join("pxar"), dir.path(), &[]);
    assert_eq!(nothing.status.code(), Some(255));
    assert!(text(&nothing.stderr).starts_with(
        "Error: no command specified.\nPossible commands: create, extract, help, list\n\nUsage:\n\npxar create "
    ));
}

#[test]
fn a_link_never_replaces_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let pxar = dir.path().join("pxar");
    std::fs::write(&pxar, "another program").unwrap();
    let made = run(
        backstop(),
        dir.path(),
        &["install-links", dir.path().to_str().unwrap()],
    );
    assert_eq!(made.status.code(), Some(255));
    assert_eq!(std::fs::read_to_string(pxar).unwrap(), "another program");
}

#[test]
fn keys_are_made_shown_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let key = |words: &[&str]| {
        run(
            backstop(),
            dir.path(),
            &[&["client", "key"], words].concat(),
        )
    };
    let path = dir.path().join("key.json");
    let path = path.to_str().unwrap();
    let made = key(&["create", path, "--kdf", "none"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(text(&made.stdout), "");

    let shown = key(&["show", path, "--output-format", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["kdf"], "none");
    assert_eq!(shown["path"], format!("{path:?}"));
    assert_eq!(shown["fingerprint"].as_str().unwrap().len(), 95);

    let before = std::fs::read(path).unwrap();
    let again = key(&["create", path, "--kdf", "none"]);
    assert_eq!(
        text(&again.stderr),
        format!("Error: Unable to store key file {path:?} - File exists (os error 17)\n")
    );
    assert_eq!(std::fs::read(path).unwrap(), before);

    let paper = text(&key(&["paperkey", path, "--subject", "vm"]).stdout);
    assert!(
        paper.starts_with("Subject: vm\n\n-----BEGIN PROXMOX BACKUP KEY-----\n{\n"),
        "{paper}"
    );
    let asked = key(&["create", "other.json"]);
    assert_eq!(
        text(&asked.stderr),
        "Error: unable to read passphrase - no tty\n"
    );
    let missing = key(&["show", "/nonexistent/key"]);
    assert_eq!(
        text(&missing.stderr),
        "Error: unable to read \"/nonexistent/key\" - No such file or directory (os error 2)\n"
    );
}

#[test]
fn the_default_key_is_kept_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let made = run(
        backstop(),
        dir.path(),
        &["client", "key", "create", "--kdf", "none"],
    );
    let said = text(&made.stderr);
    assert!(said.starts_with("creating default key at: "), "{said}");
    let path = dir.path().join("config/proxmox-backup/encryption-key.json");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_archive_survives_making_listing_and_unpacking() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("sub/file"), "content").unwrap();
    std::os::unix::fs::symlink("file", source.join("sub/link")).unwrap();
    let source = source.to_str().unwrap();
    let pxar = |words: &[&str]| run(backstop(), dir.path(), &[&["pxar"], words].concat());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let payload = at("two.ppxar");
    let split = |option: &'static str| vec![option, payload.as_str()];

    for (archive, make, read) in [
        (at("one.pxar"), vec![], vec![]),
        (
            at("two.mpxar"),
            split("--payload-output"),
            split("--payload-input"),
        ),
    ] {
        let made = pxar(&[vec!["create", &archive, source], make].concat());
        assert!(made.status.success(), "{}", text(&made.stderr));
        let listed = pxar(&[vec!["list", archive.as_str()], read.clone()].concat());
        assert_eq!(
            text(&listed.stdout),
            "\"/\"\n\"/sub\"\n\"/sub/file\"\n\"/sub/link\"\n"
        );
        let target = format!("{archive}.unpacked");
        let unpacked = pxar(&[vec!["extract", archive.as_str(), target.as_str()], read].concat());
        assert!(unpacked.status.success(), "{}", text(&unpacked.stderr));
        let content = std::fs::read_to_string(format!("{target}/sub/link")).unwrap();
        assert_eq!(content, "content");
    }
    let again = pxar(&["create", &at("one.pxar"), source]);
    assert_eq!(
        again.status.code(),
        Some(255),
        "an archive must never be overwritten"
    );
}

#[test]
fn words_that_are_not_utf8_are_refused_politely_where_no_path_stands() {
    use std::os::unix::ffi::OsStrExt as _;
    let strange = std::ffi::OsStr::from_bytes(b"li\xffst");
    for (words, said) in [
        (&[][..], "no such command"),
        (&["list", "--repository"][..], "invalid repository"),
    ] {
        let output = Command::new(backstop())
            .arg("client")
            .args(words)
            .arg(strange)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(255));
        let error = text(&output.stderr);
        assert!(error.contains(said), "{error}");
    }
}
