//! `key paperkey`: a copy of a key to be printed on paper, as text and as a code to be scanned.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use qrcode::render::{svg, unicode};
use qrcode::{EcLevel, QrCode};

use super::{PATH, existing, read};
use crate::command::{Arguments, Command, Parameter};
use crate::output;

const BEGIN: &str = "-----BEGIN PROXMOX BACKUP KEY-----";
const END: &str = "-----END PROXMOX BACKUP KEY-----";

pub(super) fn command() -> Command {
    Command::new("Print a copy of a key to be kept on paper.", paperkey)
        .optional_argument(PATH)
        .option(Parameter::text(
            "subject",
            "A line above the key, such as the name of the machine.",
        ))
        .option(Parameter::choice(
            "output-format",
            "The kind of text.",
            &["text", "html"],
        ))
}

fn paperkey(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = existing(arguments)?;
    let file = read(&path)?;
    let key =
        String::from_utf8(file.to_json_pretty()?.to_vec()).context("the key file is no text")?;
    let lines: Vec<&str> = key.lines().collect();
    let subject = arguments.given("subject");
    output::out(&match arguments.given("output-format") {
        Some("html") => html(&lines, subject, &path.to_string_lossy())?,
        _ => text(&lines, subject)?,
    });
    Ok(ExitCode::SUCCESS)
}

/// The code that scanners read: the key between its markers.
fn code(lines: &[&str]) -> anyhow::Result<QrCode> {
    let content = format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"));
    QrCode::with_error_correction_level(content, EcLevel::L)
        .context("the key does not fit into a code")
}

fn text(lines: &[&str], subject: Option<&str>) -> anyhow::Result<String> {
    let mut text = String::new();
    if let Some(subject) = subject {
        let _ = write!(text, "Subject: {subject}\n\n");
    }
    let _ = write!(text, "{BEGIN}\n{}\n{END}\n\n", lines.join("\n"));
    text.push_str(
        &code(lines)?
            .render::<unicode::Dense1x2>()
            .quiet_zone(true)
            .build(),
    );
    text.push('\n');
    Ok(text)
}

fn html(lines: &[&str], subject: Option<&str>, title: &str) -> anyhow::Result<String> {
    let picture = code(lines)?
        .render::<svg::Color<'_>>()
        .min_dimensions(320, 320)
        .build();
    let heading = subject
        .map(|subject| format!("<p>Subject: {}</p>\n", escaped(subject)))
        .unwrap_or_default();
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{}</title>\n\
         <style>body {{ font-family: monospace; }} pre {{ font-size: 9pt; }} svg {{ width: 10cm; height: 10cm; }}</style>\n\
         </head>\n<body>\n{heading}<pre>\n{BEGIN}\n{}\n{END}\n</pre>\n{picture}\n</body>\n</html>\n",
        escaped(title),
        escaped(&lines.join("\n")),
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_paper_copy_holds_subject_key_and_code() {
        let text = text(&["{", "}"], Some("host")).unwrap();
        assert!(
            text.starts_with(&format!("Subject: host\n\n{BEGIN}\n{{\n}}\n{END}\n\n")),
            "{text}"
        );
        assert!(text.lines().count() > 15);
    }

    #[test]
    fn nothing_in_a_key_becomes_markup() {
        let page = html(&["<b>&"], Some("<i>"), "a<b").unwrap();
        assert!(
            page.contains("&lt;b&gt;&amp;") && page.contains("&lt;i&gt;") && page.contains("<svg")
        );
    }
}
