//! The three files that name the script of a job, as bytes: what people write into comments need not be UTF-8. Whatever is not the
//! script in question stays as it is.

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
    pub is_as_good: &'a dyn Fn(&[u8]) -> bool,
}

/// A file as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edited {
    /// All of it.
    pub text: Vec<u8>,
    /// In how many places the script was added, replaced or removed.
    pub changes: usize,
    /// Other scripts that are set and stay.
    pub foreign: Vec<String>,
}

impl Edited {
    fn push(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    fn end_line(&mut self) {
        if self.text.last().is_some_and(|last| *last != b'\n') {
            self.text.push(b'\n');
        }
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

impl Wanted<'_> {
    /// Whether the script has to be written to a place that says this of one; what is foreign is noted.
    fn is_needed(&self, set: Option<&[u8]>, edited: &mut Edited) -> bool {
        let needed = match set.map(<[u8]>::trim_ascii) {
            None => true,
            Some(set) if set == self.script.as_bytes() || (self.is_as_good)(set) => false,
            Some(_) if self.replace => true,
            Some(other) => {
                let other = String::from_utf8_lossy(other).into_owned();
                edited.foreign.push(other);
                false
            }
        };
        edited.changes += usize::from(needed);
        needed
    }
}

impl Form {
    /// The text with the script wherever it belongs.
    pub fn edit(self, text: &[u8], wanted: &Wanted<'_>) -> Edited {
        match self {
            Self::Defaults => edit_defaults(text, wanted),
            Self::Jobs => edit_jobs(text, wanted),
            Self::Cron => edit_cron(text, wanted),
        }
    }

    /// The text without the script, wherever it is.
    pub fn without(self, text: &[u8], script: &str) -> Edited {
        let mut edited = Edited::default();
        let mut is_backup_job = false;
        for line in lines(text) {
            let kind = JobLine::of(line);
            match kind {
                JobLine::Header { is_backup } => is_backup_job = is_backup,
                JobLine::End => is_backup_job = false,
                JobLine::Property | JobLine::Ignored => {}
            }
            let (set, keep) = match self {
                Self::Defaults => (default_of(line), None),
                Self::Jobs if is_backup_job && kind == JobLine::Property => {
                    (property_of(line), None)
                }
                Self::Jobs => (None, None),
                Self::Cron => cron_option_of(line)
                    .map_or((None, None), |(value, rest)| (Some(value), Some(rest))),
            };
            if set.is_some_and(|set| set.trim_ascii() == script.as_bytes()) {
                edited.changes += 1;
                edited.push(&keep.unwrap_or_default());
            } else {
                edited.push(line);
            }
        }
        edited
    }
}

/// The script that a line of `vzdump.conf` names.
fn default_of(line: &[u8]) -> Option<&[u8]> {
    line.trim_ascii_start().strip_prefix(b"script:")
}

/// The script that a property of a job names.
fn property_of(line: &[u8]) -> Option<&[u8]> {
    let (name, value) = split_word(line.trim_ascii());
    (name == b"script" && !value.is_empty()).then_some(value)
}

/// The first word, and what follows.
fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| is_blank(*byte));
    text.split_at(end.unwrap_or(text.len()))
}

/// The script that a line of a schedule names, and the line without it.
fn cron_option_of(line: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let (command, arguments) = line.split_at(end_of_command(line)?);
    let option = script_option(arguments)?;
    let (before, rest) = arguments.split_at(option.start);
    let rest = rest.get(option.length..).unwrap_or_default();
    Some((
        option.value,
        [command, before.trim_ascii_end(), rest].concat(),
    ))
}

/// A name that is given more than once means its last value, so that all of them count.
fn edit_defaults(text: &[u8], wanted: &Wanted<'_>) -> Edited {
    let mut edited = Edited::default();
    let mut is_set = false;
    let script = ["script: ", wanted.script].concat();
    for line in lines(text) {
        if let Some(value) = default_of(line) {
            is_set = true;
            if wanted.is_needed(Some(value), &mut edited) {
                edited.push(script.as_bytes());
                edited.push(line_end(line));
                continue;
            }
        }
        edited.push(line);
    }
    if !is_set && wanted.is_needed(None, &mut edited) {
        edited.end_line();
        edited.push(script.as_bytes());
        edited.push(b"\n");
    }
    edited
}

fn line_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    line.get(end.map_or(0, |end| end + 1)..).unwrap_or_default()
}

/// What a line of `jobs.cfg` is for whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobLine {
    /// The first one of a section.
    Header { is_backup: bool },
    /// A property of the section.
    Property,
    /// Comments, and what makes no sense; the section goes on after them.
    Ignored,
    /// The empty line that ends a section.
    End,
}

impl JobLine {
    fn of(line: &[u8]) -> Self {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let text = line.trim_ascii();
        match line.first() {
            None => Self::End,
            _ if text.is_empty() || text.starts_with(b"#") => Self::Ignored,
            Some(first) if is_blank(*first) => Self::Property,
            _ if split_word(text).0.contains(&b':') => Self::Header {
                is_backup: text.starts_with(b"vzdump:"),
            },
            _ => Self::Ignored,
        }
    }
}

fn edit_jobs(text: &[u8], wanted: &Wanted<'_>) -> Edited {
    let mut edited = Edited::default();
    // The lines of the section so far, if it is one of a backup job.
    let mut section: Option<Vec<&[u8]>> = None;
    for line in lines(text) {
        let kind = JobLine::of(line);
        if let (Some(lines), JobLine::Property | JobLine::Ignored) = (&mut section, kind) {
            lines.push(line);
            continue;
        }
        if let Some(lines) = section.take() {
            finish_section(&mut edited, &lines, wanted);
        }
        edited.push(line);
        if kind == (JobLine::Header { is_backup: true }) {
            section = Some(Vec::new());
        }
    }
    if let Some(lines) = section.take() {
        finish_section(&mut edited, &lines, wanted);
    }
    edited
}

/// Writes the lines of a section after its header, with the script after its last property.
fn finish_section(edited: &mut Edited, lines: &[&[u8]], wanted: &Wanted<'_>) {
    fn is_property(line: &[u8]) -> bool {
        JobLine::of(line) == JobLine::Property
    }
    fn script_of(line: &[u8]) -> Option<&[u8]> {
        property_of(line).filter(|_| is_property(line))
    }
    let set = lines.iter().find_map(|line| script_of(line));
    let needed = wanted.is_needed(set, edited);
    let mut properties = lines.iter().filter(|line| is_property(line));
    let indent = properties.next().map_or(&b"\t"[..], |line| {
        let length = line.len() - line.trim_ascii_start().len();
        line.get(..length).unwrap_or(b"\t")
    });
    let script = [indent, b"script ", wanted.script.as_bytes()].concat();
    let last = lines.iter().rposition(|line| is_property(line));
    let mut is_written = !needed;
    let mut add = |edited: &mut Edited, end: &[u8]| {
        if !std::mem::replace(&mut is_written, true) {
            edited.end_line();
            edited.push(&script);
            edited.push(end);
        }
    };
    if last.is_none() {
        add(edited, b"\n");
    }
    for (number, line) in lines.iter().enumerate() {
        if needed && script_of(line).is_some() {
            add(edited, line_end(line));
        } else {
            edited.push(line);
        }
        if Some(number) == last {
            add(edited, b"\n");
        }
    }
}

fn edit_cron(text: &[u8], wanted: &Wanted<'_>) -> Edited {
    let mut edited = Edited::default();
    for line in lines(text) {
        let Some(after) = end_of_command(line) else {
            edited.push(line);
            continue;
        };
        let set = cron_option_of(line);
        let script = set.as_ref().map(|(script, _)| *script);
        if !wanted.is_needed(script, &mut edited) {
            edited.push(line);
            continue;
        }
        // Without the option that it replaces.
        let rest = set.map_or_else(|| line.to_owned(), |(_, rest)| rest);
        let (command, arguments) = rest.split_at(after);
        let option = [" --script ", wanted.script].concat();
        edited.push(&[command, option.as_bytes(), arguments].concat());
    }
    edited
}

/// The words of a text and where they begin.
fn words(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let rest = text.get(position..)?;
        let start = position + (rest.len() - rest.trim_ascii_start().len());
        let (word, _) = split_word(text.get(start..)?);
        position = start + word.len();
        (!word.is_empty()).then_some((start, word))
    })
}

/// Where the arguments of `vzdump` begin in a line of a schedule: five fields of time, the user, the command, which a `#` switches off.
fn end_of_command(line: &[u8]) -> Option<usize> {
    if line.trim_ascii_start().starts_with(b"#") {
        return None;
    }
    // A line may begin with a name such as @daily instead of five fields.
    let mut commands = words(line).skip(2).filter(|(_, word)| {
        let marks = word.iter().take_while(|byte| **byte == b'#').count();
        let path = word.get(marks..).unwrap_or_default();
        path.rsplit(|byte| *byte == b'/').next() == Some(b"vzdump")
    });
    commands.next().map(|(start, word)| start + word.len())
}

struct ScriptOption<'a> {
    start: usize,
    length: usize,
    value: &'a [u8],
}

/// The option `--script PATH`, also as `-script PATH` and `--script=PATH`.
fn script_option(arguments: &[u8]) -> Option<ScriptOption<'_>> {
    let mut words = words(arguments);
    while let Some((start, word)) = words.next() {
        let dashes = word.iter().take_while(|byte| **byte == b'-').count();
        let name = word.get(dashes..).unwrap_or_default();
        if dashes == 0 {
            continue;
        }
        if let Some(value) = name.strip_prefix(b"script=") {
            let length = word.len();
            return Some(ScriptOption {
                start,
                length,
                value,
            });
        }
        if name == b"script" {
            let (end, value) = words
                .next()
                .map_or((start + word.len(), &b""[..]), |(at, value)| {
                    (at + value.len(), value)
                });
            return Some(ScriptOption {
                start,
                length: end - start,
                value,
            });
        }
    }
    None
}
