//! The three files that name the script of a job, as text. Whatever is not the script in question stays as it is.

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

/// What is to be in every place.
pub struct Wanted<'a> {
    /// The path of the hook.
    pub script: &'a str,
    /// Whether other scripts are replaced.
    pub replace: bool,
    /// Whether another script is as good as the hook, say because it calls it.
    pub is_as_good: &'a dyn Fn(&str) -> bool,
}

/// A file as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edited {
    /// The whole text.
    pub text: String,
    /// In how many places the script was added, replaced or removed.
    pub changes: usize,
    /// Other scripts that are set and stay.
    pub foreign: Vec<String>,
}

impl Wanted<'_> {
    /// Whether the script has to be written to a place that says this of one; what is foreign is noted.
    fn is_needed(&self, set: Option<&str>, edited: &mut Edited) -> bool {
        let needed = match set.map(str::trim) {
            None => true,
            Some(set) if set == self.script || (self.is_as_good)(set) => false,
            Some(_) if self.replace => true,
            Some(other) => {
                edited.foreign.push(other.to_owned());
                false
            }
        };
        edited.changes += usize::from(needed);
        needed
    }
}

impl Form {
    /// The text with the script wherever it belongs.
    pub fn edit(self, text: &str, wanted: &Wanted<'_>) -> Edited {
        match self {
            Self::Defaults => edit_defaults(text, wanted),
            Self::Jobs => edit_jobs(text, wanted),
            Self::Cron => edit_cron(text, wanted),
        }
    }

    /// The text without the script, wherever it is.
    pub fn without(self, text: &str, script: &str) -> Edited {
        let mut edited = Edited::default();
        let mut is_backup_job = false;
        for line in text.split_inclusive('\n') {
            let is_property = line.starts_with([' ', '\t']) && !line.trim().is_empty();
            if !is_property {
                is_backup_job = line.starts_with("vzdump:");
            }
            let (set, keep) = match self {
                Self::Defaults => (default_of(line), None),
                Self::Jobs if is_property && is_backup_job => (property_of(line), None),
                Self::Jobs => (None, None),
                Self::Cron => cron_option_of(line)
                    .map_or((None, None), |(value, rest)| (Some(value), Some(rest))),
            };
            if set.is_some_and(|set| set.trim() == script) {
                edited.changes += 1;
                edited.text.push_str(&keep.unwrap_or_default());
            } else {
                edited.text.push_str(line);
            }
        }
        edited
    }
}

/// The script that a line of `vzdump.conf` names.
fn default_of(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("script:")
}

/// The script that a property of a job names.
fn property_of(line: &str) -> Option<&str> {
    let (name, value) = line.trim().split_once([' ', '\t'])?;
    (name == "script").then_some(value)
}

/// The script that a line of a schedule names, and the line without it.
fn cron_option_of(line: &str) -> Option<(&str, String)> {
    let (command, arguments) = line.split_at(end_of_command(line)?);
    let option = script_option(arguments)?;
    let (before, rest) = arguments.split_at(option.start);
    let rest = rest.get(option.length..).unwrap_or_default();
    Some((
        option.value,
        format!("{command}{}{rest}", before.trim_end()),
    ))
}

/// A name that is given more than once means its last value, so that all of them count.
fn edit_defaults(text: &str, wanted: &Wanted<'_>) -> Edited {
    let mut edited = Edited::default();
    let mut is_set = false;
    for line in text.split_inclusive('\n') {
        if let Some(value) = default_of(line) {
            is_set = true;
            if wanted.is_needed(Some(value), &mut edited) {
                let _ = write!(edited.text, "script: {}{}", wanted.script, line_end(line));
                continue;
            }
        }
        edited.text.push_str(line);
    }
    if !is_set && wanted.is_needed(None, &mut edited) {
        end_line(&mut edited.text);
        let _ = writeln!(edited.text, "script: {}", wanted.script);
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

fn edit_jobs(text: &str, wanted: &Wanted<'_>) -> Edited {
    let mut edited = Edited::default();
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
            finish_section(&mut edited, &lines, wanted);
        }
        edited.text.push_str(line);
        if line.starts_with("vzdump:") {
            section = Some(Vec::new());
        }
    }
    if let Some(lines) = section.take() {
        finish_section(&mut edited, &lines, wanted);
    }
    edited
}

/// Writes the properties of a section, with the script.
fn finish_section(edited: &mut Edited, lines: &[&str], wanted: &Wanted<'_>) {
    let set = lines.iter().find_map(|line| property_of(line));
    let needed = wanted.is_needed(set, edited);
    let script = wanted.script;
    let indent = lines.first().map_or("\t", |line| {
        line.get(..line.len() - line.trim_start().len())
            .unwrap_or("\t")
    });
    let mut is_written = !needed;
    for line in lines {
        if !needed || property_of(line).is_none() {
            edited.text.push_str(line);
        } else if !is_written {
            let _ = write!(edited.text, "{indent}script {script}{}", line_end(line));
            is_written = true;
        }
    }
    if !is_written {
        end_line(&mut edited.text);
        let _ = writeln!(edited.text, "{indent}script {script}");
    }
}

fn edit_cron(text: &str, wanted: &Wanted<'_>) -> Edited {
    let mut edited = Edited::default();
    for line in text.split_inclusive('\n') {
        let Some(after) = end_of_command(line) else {
            edited.text.push_str(line);
            continue;
        };
        let set = cron_option_of(line);
        let script = set.as_ref().map(|(script, _)| *script);
        if !wanted.is_needed(script, &mut edited) {
            edited.text.push_str(line);
            continue;
        }
        // Without the option that it replaces.
        let rest = set.map_or_else(|| line.to_owned(), |(_, rest)| rest);
        let (command, arguments) = rest.split_at(after);
        let _ = write!(
            edited.text,
            "{command} --script {}{arguments}",
            wanted.script
        );
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
