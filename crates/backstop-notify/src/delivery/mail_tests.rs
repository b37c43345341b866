//! Mail, by a program and by a server on the loopback that answers as it is told and keeps what it was sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use super::tests::{failure, surroundings, target};
use super::*;
use crate::notification::{Content, Severity};

/// A program that is started while another test starts one would find its file still open there.
static PROGRAMS: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A program in the place of sendmail that keeps its arguments and the mail.
fn fake_sendmail(folder: &std::path::Path, end: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("sendmail");
    let place = folder.display();
    let script =
        format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {place}/args\ncat > {place}/mail\n{end}\n");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn mail_goes_to_sendmail_with_its_recipients_and_both_texts() {
    let _alone = PROGRAMS.lock();
    let folder = tempfile::tempdir().unwrap();
    let surroundings = Surroundings {
        sendmail: fake_sendmail(folder.path(), "exit 0"),
        mail_of: BTreeMap::from([("a@pbs".to_owned(), "ann@example.com".to_owned())]),
        ..surroundings()
    };
    let mail = target(
        "sendmail",
        json!({ "mailto": ["zoe@example.com", "root"], "mailto-user": ["a@pbs", "b@pbs"], "author": "Bäckup \"x\"" }),
    );
    mail.send(&failure(), &surroundings).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let arguments = "-B\n8BITMIME\n-i\n-f\nroot\n--\nann@example.com\nroot\nzoe@example.com\n";
    assert_eq!(read("args"), arguments);
    let mail = read("mail");
    for part in [
        "To: ann@example.com, root, zoe@example.com\n",
        "Subject: Garbage Collect Datastore 's1' failed\n",
        "Date: Sat, 28 Nov 2026 12:00:00 +0000\n",
        "Auto-Submitted: auto-generated\n",
        "MIME-Version: 1.0\n",
        "Content-Type: multipart/alternative",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: text/html; charset=utf-8",
    ] {
        assert!(mail.contains(part), "{part}\n{mail}");
    }
    assert!(
        mail.starts_with("From: ") && mail.contains("<root>\n"),
        "{mail}"
    );
    assert!(!mail.contains('\r') && mail.is_ascii(), "{mail}");
}

#[test]
fn a_mail_program_that_fails_or_is_missing_is_said() {
    let _alone = PROGRAMS.lock();
    let folder = tempfile::tempdir().unwrap();
    let mail = target("sendmail", json!({ "mailto": ["a@example.com"] }));
    let text = mail
        .send(&failure(), &surroundings())
        .unwrap_err()
        .to_string();
    assert!(text.contains("/nonexistent/sendmail"), "{text}");
    let surroundings = Surroundings {
        sendmail: fake_sendmail(folder.path(), "echo no relay >&2; exit 75"),
        ..surroundings()
    };
    let text = mail
        .send(&failure(), &surroundings)
        .unwrap_err()
        .to_string();
    assert!(text.contains("no relay") && text.contains("75"), "{text}");
}

#[test]
fn mail_for_users_without_an_address_has_nobody_to_go_to() {
    let mail = target("sendmail", json!({ "mailto-user": ["root@pam"] }));
    let error = mail.send(&failure(), &surroundings()).unwrap_err();
    assert!(matches!(error, SendError::Nobody(_)), "{error}");
}

#[test]
fn a_mail_program_that_leaves_somebody_behind_holds_up_nobody() {
    let _alone = PROGRAMS.lock();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let end = format!("sleep 600 >/dev/null & echo $! > {place}/left; exit 0");
    let surroundings = Surroundings {
        sendmail: fake_sendmail(folder.path(), &end),
        ..surroundings()
    };
    let mail = target("sendmail", json!({ "mailto": ["a@example.com"] }));
    let begun = Instant::now();
    let sent = mail.send(&failure(), &surroundings);
    let took = begun.elapsed();
    let left = std::fs::read_to_string(folder.path().join("left")).unwrap();
    let left = rustix::process::Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
    sent.unwrap();
    assert!(took < LIMIT, "{took:?}");
    let mail = std::fs::read_to_string(folder.path().join("mail")).unwrap();
    assert!(mail.contains("Subject: "), "{mail}");
}

#[test]
fn a_mail_program_that_does_not_end_is_ended_with_all_it_started() {
    let _alone = PROGRAMS.lock();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(status.unwrap().success());
    let reading = OFlags::RDONLY | OFlags::NONBLOCK;
    let mut held = std::fs::File::from(rustix::fs::open(&pipe, reading, Mode::empty()).unwrap());
    // Both hold it open as long as they live.
    let end = format!("exec 3>{}; sleep 600 & sleep 600", pipe.display());
    let surroundings = Surroundings {
        sendmail: fake_sendmail(folder.path(), &end),
        limit: Duration::from_millis(300),
        ..surroundings()
    };
    let mail = target("sendmail", json!({ "mailto": ["a@example.com"] }));
    let error = mail.send(&failure(), &surroundings).unwrap_err();
    assert!(
        error.to_string().contains("did not end within 300ms"),
        "{error}"
    );
    rustix::fs::fcntl_setfl(&held, OFlags::empty()).unwrap();
    let begun = Instant::now();
    held.read_to_end(&mut Vec::new()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(300), "they lived on");
}

/// A mail server that answers each line with what `answer` says of it, and hands over what it was sent as `DATA`, as it came.
fn mail_server(answer: fn(&str) -> Option<&'static str>) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, got) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let say = |reader: &mut BufReader<std::net::TcpStream>, text: &str| {
            reader
                .get_mut()
                .write_all(format!("{text}\r\n").as_bytes())
                .is_ok()
        };
        let mut goes_on = say(&mut reader, "220 here");
        while goes_on {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end();
            let word = line.split([' ', ':']).next().unwrap_or_default();
            let usual = match word {
                "EHLO" => "250-here\r\n250-AUTH PLAIN\r\n250 8BITMIME",
                "DATA" => "354 go on",
                _ => "250 fine",
            };
            let said = answer(line).unwrap_or(usual).replace("{line}", line);
            goes_on = say(&mut reader, &said);
            if said.starts_with("354") {
                let mut data: Vec<u8> = Vec::new();
                while !data.ends_with(b"\r\n.\r\n") {
                    if reader.read_until(b'\n', &mut data).unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = sender.send(data);
                goes_on = say(&mut reader, answer(".").unwrap_or("250 taken"));
            }
        }
    });
    (port, got)
}

fn by_server(port: u16, login: Option<(&str, &str)>) -> Target {
    let mut properties = json!({
        "server": "127.0.0.1", "port": port, "mode": "insecure", "from-address": "pbs@example.com", "mailto": ["ann@example.com"]
    });
    if let Some((name, password)) = login {
        properties["username"] = Value::from(name);
        properties["password"] = Value::from(password);
    }
    target("smtp", properties)
}

fn forwarded(raw: &[u8]) -> Notification {
    Notification {
        content: Content::ForwardedMail {
            raw: raw.to_vec(),
            title: "t".into(),
            body: "b".into(),
            uid: None,
        },
        severity: Severity::Unknown,
        ..failure()
    }
}

#[test]
fn a_forwarded_mail_goes_to_a_server_line_by_line_as_it_has_to_be() {
    let raw = b"From root@vm Sat Nov 28 12:00:00 2026\nSubject: cron\nX-Long: a\n b\n\nhello\r\nbare\rcr\n.\n.dot\nFrom here on\n\xfc\n";
    let (port, got) = mail_server(|_| None);
    by_server(port, None)
        .send(&forwarded(raw), &surroundings())
        .unwrap();
    let data = got.recv().unwrap();
    let text = String::from_utf8_lossy(&data).into_owned();
    let lines = text.replace("\r\n", "");
    assert!(!lines.contains('\n') && !lines.contains('\r'), "{text:?}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    for header in head.split("\r\n") {
        assert!(
            header.starts_with(' ') || header.split_once(": ").is_some(),
            "{header:?}"
        );
    }
    assert!(
        head.starts_with("Resent-From: ") && head.contains("\r\nSubject: cron\r\nX-Long: a\r\n b"),
        "{head:?}"
    );
    let wanted = "hello\r\nbare\r\ncr\r\n..\r\n..dot\r\nFrom here on\r\n\u{fffd}\r\n\r\n.\r\n";
    assert_eq!(body, wanted);
}

#[test]
fn what_is_no_mail_is_forwarded_as_the_text_of_one() {
    for raw in [
        &b"just a line"[..],
        b"",
        b"\n\ntext",
        b"From x\nno header",
        b"From x",
        b": x\n",
    ] {
        let (port, got) = mail_server(|_| None);
        by_server(port, None)
            .send(&forwarded(raw), &surroundings())
            .unwrap();
        let text = String::from_utf8(got.recv().unwrap()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        for header in head.trim_end_matches(".\r\n").trim_end().split("\r\n") {
            assert!(header.starts_with("Resent-"), "{raw:?}: {text:?}");
        }
    }
}

#[test]
fn a_mail_server_that_never_comes_to_the_point_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let greeter = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Until nobody listens any more.
        while stream.write_all(b"220-wait\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let surroundings = Surroundings {
        limit: Duration::from_millis(300),
        ..surroundings()
    };
    let error = by_server(port, None)
        .send(&failure(), &surroundings)
        .unwrap_err();
    assert!(error.to_string().contains("within 300ms"), "{error}");
    greeter.join().unwrap();
}

#[test]
fn what_a_mail_server_will_never_take_is_told_from_what_it_may_take_later() {
    let error = |answer: fn(&str) -> Option<&'static str>| {
        let (port, _got) = mail_server(answer);
        by_server(port, None)
            .send(&failure(), &surroundings())
            .unwrap_err()
    };
    for answer in [
        (|line| (line == ".").then_some("554 5.6.0 content rejected")) as fn(&str) -> _,
        |line| line.starts_with("MAIL").then_some("552 too large"),
        |line| line.starts_with("RCPT").then_some("550 no such user"),
    ] {
        let error = error(answer);
        assert!(matches!(error, SendError::Refused(_)), "{error:?}");
    }
    for answer in [
        (|line| line.starts_with("RCPT").then_some("451 greylisted")) as fn(&str) -> _,
        |line| line.starts_with("MAIL").then_some("530 log in first"),
        |line| line.starts_with("EHLO").then_some("421 busy"),
    ] {
        let error = error(answer);
        assert!(matches!(error, SendError::Failed(_)), "{error:?}");
    }
}

#[test]
fn a_mail_server_that_repeats_the_login_gives_no_password_away() {
    let (port, _got) = mail_server(|line| {
        line.starts_with("AUTH")
            .then_some("535 5.7.8 {line} is wrong")
    });
    let mail = by_server(port, Some(("pbs", "hush-hush")));
    let error = mail
        .send(&failure(), &surroundings())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is wrong") && error.contains("AUTH PLAIN ***"),
        "{error}"
    );
}
