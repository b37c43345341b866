//! The three files that name the script of a job, as text. Whatever is not the missing script stays as it is.

use std::fmt::Write as _;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/etc/vzdump.conf`: a line `script: PATH`.
    Defaults,
    /// `/etc/pve/jobs.cfg`: in each section `vzdump: ID` a line `script PATH`.
    Jobs,
    /// `/etc/pve/vzdump.cron`: in each line an option `--script PATH` of `vzdump`.
    Cron,
}

/// A file as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole text.
    pub text: String,
    /// In how many places the script was added or replaced.
    pub missing: usize,
    /// Other scripts that are set and stay.
    pub foreign: Vec<String>,
}

/// What one place says of a script.
enum Found {
    Ours,
    Other(String),
    None,
}

impl Edited {
    /// Counts a place; says whether something has to be written there.
    fn meet(&mut self, found: &Found, replace: bool) -> bool {
        match found {
            Found::Ours => false,
            Found::Other(other) if !replace => {
                self.foreign.push(other.clone());
                false
            }
            Found::Other(_) | Found::None => {
                self.missing += 1;
                true
            }
        }
    }
}

impl Form {
    /// The text with the script wherever it belongs.
    pub fn edit(self, text: &str, script: &str, replace: bool) -> Edited {
        match self {
            Self::Defaults => edit_defaults(text, script, replace),
            Self::Jobs => edit_jobs(text, script, replace),
            Self::Cron => edit_cron(text, script, replace),
        }
    }
}

fn found(value: &str, script: &str) -> Found {
    let value = value.trim();
    if value == script {
        Found::Ours
    } else {
        Found::Other(value.to_owned())
    }
}

const fn nothing() -> Edited {
    Edited {
        text: String::new(),
        missing: 0,
        foreign: Vec::new(),
    }
}

fn edit_defaults(text: &str, script: &str, replace: bool) -> Edited {
    let mut edited = nothing();
    let mut is_set = false;
    for line in text.split_inclusive('\n') {
        match line.trim_start().strip_prefix("script:") {
            Some(value) if !is_set => {
                is_set = true;
                if edited.meet(&found(value, script), replace) {
                    let _ = write!(edited.text, "script: {script}{}", line_end(line));
                    continue;
                }
            }
            _ => {}
        }
        edited.text.push_str(line);
    }
    if !is_set && edited.meet(&Found::None, replace) {
        end_line(&mut edited.text);
        let _ = writeln!(edited.text, "script: {script}");
    }
    edited
}

fn line_end(line: &str) -> &str {
    line.get(line.trim_end_matches(['\r', '\n']).len()..)
        .unwrap_or_default()
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

fn edit_jobs(text: &str, script: &str, replace: bool) -> Edited {
    let mut edited = nothing();
    // The lines of the section so far, if it is one of a backup job.
    let mut section: Option<Vec<&str>> = None;
    for line in text.split_inclusive('\n') {
        let is_property = line.starts_with([' ', '\t']) && !line.trim().is_empty();
        match &mut section {
            Some(lines) if is_property => {
                lines.push(line);
                continue;
            }
            _ => {}
        }
        if let Some(lines) = section.take() {
            finish_section(&mut edited, &lines, script, replace);
        }
        edited.text.push_str(line);
        if line.starts_with("vzdump:") {
            section = Some(Vec::new());
        }
    }
    if let Some(lines) = section.take() {
        finish_section(&mut edited, &lines, script, replace);
    }
    edited
}

/// Writes the properties of a section, with the script.
fn finish_section(edited: &mut Edited, lines: &[&str], script: &str, replace: bool) {
    let value = |line: &str| -> Option<String> {
        let (name, value) = line.trim().split_once([' ', '\t'])?;
        (name == "script").then(|| value.trim().to_owned())
    };
    let set = lines.iter().find_map(|line| value(line));
    let state = set.map_or(Found::None, |value| found(&value, script));
    let needed = edited.meet(&state, replace);
    let indent = lines.first().map_or("\t", |line| {
        line.get(..line.len() - line.trim_start().len())
            .unwrap_or("\t")
    });
    let mut is_written = !needed;
    for line in lines {
        match value(line) {
            Some(_) if needed => {
                if !is_written {
                    let _ = write!(edited.text, "{indent}script {script}{}", line_end(line));
                    is_written = true;
                }
            }
            _ => edited.text.push_str(line),
        }
    }
    if !is_written {
        end_line(&mut edited.text);
        let _ = writeln!(edited.text, "{indent}script {script}");
    }
}

fn edit_cron(text: &str, script: &str, replace: bool) -> Edited {
    let mut edited = nothing();
    for line in text.split_inclusive('\n') {
        let Some(after) = end_of_command(line) else {
            edited.text.push_str(line);
            continue;
        };
        let (command, arguments) = line.split_at(after);
        let set = script_option(arguments);
        let state = set
            .as_ref()
            .map_or(Found::None, |option| found(option.value, script));
        if !edited.meet(&state, replace) {
            edited.text.push_str(line);
            continue;
        }
        let _ = write!(edited.text, "{command} --script {script}");
        match set {
            // Without the option that it replaces.
            Some(option) => {
                let (before, rest) = arguments.split_at(option.start);
                edited.text.push_str(before.trim_end());
                edited
                    .text
                    .push_str(rest.get(option.length..).unwrap_or_default());
            }
            None => edited.text.push_str(arguments),
        }
    }
    edited
}

/// Where the arguments of `vzdump` begin in a line of a schedule: five fields of time, the user, the command, which a `#` switches off.
fn end_of_command(line: &str) -> Option<usize> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let mut rest = line;
    let mut position = 0;
    for field in 0.. {
        let word = rest.trim_start();
        position += rest.len() - word.len();
        let length = word.find(char::is_whitespace).unwrap_or(word.len());
        if length == 0 {
            return None;
        }
        let (text, after) = word.split_at(length);
        position += length;
        let is_command = text.trim_start_matches('#').rsplit('/').next() == Some("vzdump");
        // A line may begin with a name such as @daily instead of five fields.
        if field >= 2 && is_command {
            return Some(position);
        }
        rest = after;
    }
    None
}

struct ScriptOption<'a> {
    start: usize,
    length: usize,
    value: &'a str,
}

/// The option `--script PATH`, also as `-script PATH` and `--script=PATH`.
fn script_option(arguments: &str) -> Option<ScriptOption<'_>> {
    let mut position = 0;
    let mut rest = arguments;
    loop {
        let word = rest.trim_start();
        position += rest.len() - word.len();
        let length = word.find(char::is_whitespace).unwrap_or(word.len());
        if length == 0 {
            return None;
        }
        let (text, after) = word.split_at(length);
        let name = text.trim_start_matches('-');
        if name.len() < text.len() {
            if let Some(value) = name.strip_prefix("script=") {
                return Some(ScriptOption {
                    start: position,
                    length,
                    value,
                });
            }
            if name == "script" {
                let value = after.trim_start();
                let gap = after.len() - value.len();
                let end = value.find(char::is_whitespace).unwrap_or(value.len());
                return Some(ScriptOption {
                    start: position,
                    length: length + gap + end,
                    value: value.get(..end).unwrap_or_default(),
                });
            }
        }
        position += length;
        rest = after;
    }
}
