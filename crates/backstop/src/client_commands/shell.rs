//! The shell of `catalog shell`: moves through an archive, collects patterns and restores what they match.
//! An error in a line never ends it; the archive is never changed.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{BufRead as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use backstop_client::archive::{ExtractOptions, MatchType, Pattern, evaluate, extract_path};
use backstop_format::pxar::accessor::{Accessor, Node};
use backstop_format::pxar::entry::EntryKind;
use backstop_format::read_at::ReadAt;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::activity::TerminalActivity;
use crate::archive_listing::{mode_text, quoted};
use crate::command::words;
use crate::output::{self, time};
use crate::terminal;

/// Symbolic links that are followed for one path at most.
const MOST_LINKS: usize = 40;

const HELP: &str = "\
pwd                               show the current directory
cd [PATH]                         change the current directory; without PATH to the root
ls [PATH]                         list a directory
stat PATH                         show what is known about an entry
find PATTERN [--select]           list what matches, and select it
select PATH                       select an entry or a pattern
deselect PATH                     take it from the selection
list-selected [--patterns]        list what is selected, or the patterns
clear-selected                    select nothing
restore-selected TARGET           restore what is selected below the directory TARGET
restore TARGET [--pattern P]      restore everything, or what matches, below the directory TARGET
exit                              leave
";

/// The state of a shell.
pub struct Shell<R, P> {
    archive: Accessor<R, P>,
    /// The current directory: path from the root without slashes at its ends.
    directory: Vec<u8>,
    selected: Vec<String>,
}

impl<R: ReadAt + Sync, P: ReadAt + Sync> Shell<R, P> {
    /// A shell in the root directory of the archive.
    pub fn new(archive: Accessor<R, P>) -> Self {
        Self {
            archive,
            directory: Vec::new(),
            selected: Vec::new(),
        }
    }

    fn prompt(&self) -> String {
        format!("pxar:/{} > ", String::from_utf8_lossy(&self.directory))
    }

    /// Reads and executes lines until the input ends.
    ///
    /// # Errors
    /// If lines cannot be read.
    pub fn run(mut self) -> anyhow::Result<()> {
        if !terminal::can_ask() {
            return self.run_piped();
        }
        let mut editor = DefaultEditor::new().context("unable to set up the line editor")?;
        loop {
            match editor.readline(&self.prompt()) {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    if !self.print_result(&line) {
                        return Ok(());
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error).context("unable to read a line"),
            }
        }
    }

    fn run_piped(&mut self) -> anyhow::Result<()> {
        let mut lines = std::io::stdin().lock().lines();
        loop {
            output::out(&self.prompt());
            let _ = std::io::stdout().flush();
            let Some(line) = lines.next() else {
                output::out("\n");
                return Ok(());
            };
            if !self.print_result(&line.context("unable to read a line")?) {
                return Ok(());
            }
        }
    }

    /// Tells whether to go on.
    fn print_result(&mut self, line: &str) -> bool {
        if line.trim() == "exit" {
            return false;
        }
        match self.execute(line) {
            Ok(text) => output::out(&text),
            Err(error) => output::err(&format!("error: {error:#}\n")),
        }
        true
    }

    /// Executes one line and returns what it prints.
    fn execute(&mut self, line: &str) -> anyhow::Result<String> {
        let (words, closed) = words::split(line);
        if !closed {
            bail!("a quote is not closed");
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => Ok(String::new()),
            ["help"] => Ok(HELP.to_string()),
            ["pwd"] => Ok(format!(
                "{}\n",
                quoted(&[b"/", self.directory.as_slice()].concat())
            )),
            ["cd"] => self.change_directory("/"),
            ["cd", path] => self.change_directory(path),
            ["ls"] => self.list("."),
            ["ls", path] => self.list(path),
            ["stat", path] => self.stat(path),
            ["select", path] => Ok(self.select(path)),
            ["deselect", path] => Ok(self.deselect(path)),
            ["clear-selected"] => {
                self.selected.clear();
                Ok("cleared selection\n".to_string())
            }
            ["list-selected"] => self.matching(&self.selected.clone()),
            ["list-selected", "--patterns"] => Ok(self
                .selected
                .iter()
                .map(|pattern| format!("{pattern}\n"))
                .collect()),
            ["find", pattern] => self.matching(&[(*pattern).to_string()]),
            ["find", pattern, "--select"] => {
                let found = self.matching(&[(*pattern).to_string()])?;
                self.selected.push((*pattern).to_string());
                Ok(found)
            }
            ["restore-selected", target] => {
                if self.selected.is_empty() {
                    bail!("no entries selected");
                }
                self.restore(target, &self.selected.clone())
            }
            ["restore", target] => self.restore(target, &[]),
            ["restore", target, "--pattern", pattern] => {
                self.restore(target, &[(*pattern).to_string()])
            }
            [command, ..] => bail!("'{command}' with these arguments is no command; try help"),
        }
    }

    /// The path of `text`, seen from the current directory, without `.` and `..`.
    fn absolute(&self, text: &str) -> Vec<u8> {
        let mut components: Vec<&[u8]> = Vec::new();
        let start: &[u8] = if text.starts_with('/') {
            b""
        } else {
            &self.directory
        };
        for part in start
            .split(|b| *b == b'/')
            .chain(text.as_bytes().split(|b| *b == b'/'))
        {
            match part {
                b"" | b"." => {}
                b".." => {
                    components.pop();
                }
                name => components.push(name),
            }
        }
        components.join(&b'/')
    }

    fn node(&self, path: &[u8]) -> anyhow::Result<Node> {
        self.archive.lookup(path)?.with_context(|| {
            format!(
                "no such file or directory: {}",
                quoted(&[b"/", path].concat())
            )
        })
    }

    fn change_directory(&mut self, text: &str) -> anyhow::Result<String> {
        let path = self.absolute(text);
        let node = self.node(&path)?;
        if node.entry.kind != EntryKind::Directory {
            bail!(
                "not a directory: {}",
                quoted(&[b"/", path.as_slice()].concat())
            );
        }
        self.directory = path;
        Ok(String::new())
    }

    fn list(&self, text: &str) -> anyhow::Result<String> {
        let path = self.absolute(text);
        let node = self.node(&path)?;
        if node.entry.kind != EntryKind::Directory {
            return Ok(format!("{}\n", String::from_utf8_lossy(&node.entry.name)));
        }
        let mut listing = String::new();
        for child in self.archive.directory(&node)?.children()? {
            let _ = writeln!(listing, "{}", String::from_utf8_lossy(&child?.entry.name));
        }
        Ok(listing)
    }

    /// Follows symbolic links inside the archive.
    fn followed(&self, mut path: Vec<u8>) -> anyhow::Result<(Vec<u8>, Node)> {
        for _ in 0..MOST_LINKS {
            let node = self.archive.follow_hardlink(self.node(&path)?)?;
            let EntryKind::Symlink(target) = &node.entry.kind else {
                return Ok((path, node));
            };
            let mut parent = path
                .rsplitn(2, |byte| *byte == b'/')
                .nth(1)
                .unwrap_or(b"")
                .to_vec();
            if target.starts_with(b"/") {
                parent.clear();
            }
            parent.push(b'/');
            parent.extend_from_slice(target);
            let text = String::from_utf8(parent).context("the target of a link is not UTF-8")?;
            path = self.absolute(&format!("/{text}"));
        }
        bail!("too many symbolic links")
    }

    fn stat(&self, text: &str) -> anyhow::Result<String> {
        let (path, node) = self.followed(self.absolute(text))?;
        let stat = &node.entry.metadata.stat;
        let (size, kind) = match &node.entry.kind {
            EntryKind::Directory => (0, "directory"),
            EntryKind::File { size, .. } => (*size, "regular file"),
            EntryKind::Symlink(_) => (0, "symbolic link"),
            EntryKind::Hardlink { .. } => (0, "hard link"),
            EntryKind::Device(_) => (0, "device node"),
            EntryKind::Fifo => (0, "fifo"),
            EntryKind::Socket => (0, "socket"),
        };
        Ok(format!(
            "  File: {}\n  Size: {size:<13} Type: {kind}\nAccess: ({:04o}/{})  Uid: {:<5} Gid: {}\nModify: {}\n",
            quoted(&[b"/", path.as_slice()].concat()),
            stat.permissions(),
            mode_text(stat, false),
            stat.uid,
            stat.gid,
            time::plain(stat.mtime.seconds),
        ))
    }

    /// What a path on a line stands for among the patterns: anchored at the root.
    fn pattern_text(&self, text: &str) -> String {
        format!("/{}", String::from_utf8_lossy(&self.absolute(text)))
    }

    fn select(&mut self, text: &str) -> String {
        let path = self.pattern_text(text);
        if self.selected.contains(&path) {
            return format!("path already selected: {path:?}\n");
        }
        let line = format!("added path: {path:?}\n");
        self.selected.push(path);
        line
    }

    fn deselect(&mut self, text: &str) -> String {
        let path = self.pattern_text(text);
        let before = self.selected.len();
        self.selected.retain(|selected| *selected != path);
        match self.selected.len() < before {
            true => format!("removed path from selection: {path:?}\n"),
            false => format!("path not selected: {path:?}\n"),
        }
    }

    /// The paths that one of the patterns matches.
    fn matching(&self, texts: &[String]) -> anyhow::Result<String> {
        let patterns = patterns(texts)?;
        let mut found = String::new();
        let mut open = vec![(Vec::new(), self.archive.root().clone())];
        while let Some((path, node)) = open.pop() {
            if node.entry.kind != EntryKind::Directory {
                continue;
            }
            let mut below = Vec::new();
            for child in self.archive.directory(&node)?.children()? {
                let child = child?;
                let path = [path.as_slice(), b"/", child.entry.name.as_slice()].concat();
                let mode = child.entry.metadata.stat.mode;
                let matched = evaluate(&patterns, &path, || Ok::<_, Infallible>(Some(mode)));
                if matches!(matched, Ok(Some(MatchType::Include))) {
                    let _ = writeln!(found, "{}", quoted(&path));
                }
                below.push((path, child));
            }
            open.extend(below.into_iter().rev());
        }
        Ok(found)
    }

    fn restore(&self, target: &str, texts: &[String]) -> anyhow::Result<String> {
        let options = ExtractOptions {
            patterns: patterns(texts)?,
            only_matching: !texts.is_empty(),
            allow_existing_dirs: true,
            ..ExtractOptions::default()
        };
        let activity = TerminalActivity::new();
        extract_path(&self.archive, b"/", Path::new(target), &options, &activity)?;
        Ok(String::new())
    }
}

fn patterns(texts: &[String]) -> anyhow::Result<Vec<Pattern>> {
    texts
        .iter()
        .map(|text| Ok(Pattern::parse(text.as_bytes(), MatchType::Include)?))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Write as _;

    use backstop_format::pxar::encoder::Encoder;
    use backstop_format::pxar::entry::{Metadata, Timestamp};

    use super::*;

    /// `/dir/file` with five bytes, and `/link` to it.
    fn shell() -> Shell<Vec<u8>, Vec<u8>> {
        let metadata = |mode| Metadata::new(mode, Timestamp::from_seconds(0));
        let mut archive = Encoder::new(Vec::new(), &metadata(0o40755)).unwrap();
        archive
            .create_directory(&metadata(0o40700), b"dir")
            .unwrap();
        let mut file = archive
            .create_file(&metadata(0o100_640), b"file", 5)
            .unwrap();
        file.write_all(b"hello").unwrap();
        file.finish().unwrap();
        archive.finish_directory().unwrap();
        archive
            .add_symlink(&metadata(0o120_777), b"link", b"dir/file")
            .unwrap();
        let (archive, _) = archive.finish().unwrap();
        Shell::new(Accessor::new(archive).unwrap())
    }

    #[test]
    fn one_can_move_around_and_look() {
        let mut shell = shell();
        assert_eq!(shell.prompt(), "pxar:/ > ");
        assert_eq!(shell.execute("ls").unwrap(), "dir\nlink\n");
        assert_eq!(shell.execute("cd dir").unwrap(), "");
        assert_eq!(shell.prompt(), "pxar:/dir > ");
        assert_eq!(shell.execute("pwd").unwrap(), "\"/dir\"\n");
        assert_eq!(shell.execute("ls").unwrap(), "file\n");
        assert_eq!(shell.execute("ls ../..").unwrap(), "dir\nlink\n");
        assert_eq!(shell.execute("cd").unwrap(), "");
        assert_eq!(shell.prompt(), "pxar:/ > ");
        assert!(shell.execute("cd link").is_err(), "links are not entered");
        assert!(shell.execute("cd nope").is_err());
        assert!(shell.execute("nope").is_err());
        assert!(shell.execute("ls 'open").is_err());
    }

    #[test]
    fn stat_follows_symbolic_links() {
        let text = shell().execute("stat link").unwrap();
        assert!(
            text.starts_with("  File: \"/dir/file\"\n  Size: 5 "),
            "{text}"
        );
        assert!(text.contains("Access: (0640/-rw-r-----)"), "{text}");
    }

    #[test]
    fn a_selection_is_collected_shown_and_cleared() {
        let mut shell = shell();
        assert_eq!(
            shell.execute("select dir").unwrap(),
            "added path: \"/dir\"\n"
        );
        assert_eq!(
            shell.execute("select /dir").unwrap(),
            "path already selected: \"/dir\"\n"
        );
        assert_eq!(shell.execute("find file").unwrap(), "\"/dir/file\"\n");
        assert_eq!(shell.execute("find link --select").unwrap(), "\"/link\"\n");
        assert_eq!(
            shell.execute("list-selected --patterns").unwrap(),
            "/dir\nlink\n"
        );
        assert_eq!(
            shell.execute("list-selected").unwrap(),
            "\"/dir\"\n\"/link\"\n"
        );
        assert_eq!(
            shell.execute("deselect dir").unwrap(),
            "removed path from selection: \"/dir\"\n"
        );
        assert_eq!(
            shell.execute("deselect dir").unwrap(),
            "path not selected: \"/dir\"\n"
        );
        assert_eq!(
            shell.execute("clear-selected").unwrap(),
            "cleared selection\n"
        );
        assert!(shell.execute("restore-selected /nonexistent").is_err());
    }

    #[test]
    fn what_is_selected_is_restored() {
        let target = tempfile::tempdir().unwrap();
        let mut shell = shell();
        shell.execute("select dir/file").unwrap();
        let line = format!("restore-selected '{}'", target.path().display());
        shell.execute(&line).unwrap();
        let restored = std::fs::read_to_string(target.path().join("dir/file")).unwrap();
        assert_eq!(restored, "hello");
        assert!(!target.path().join("link").exists());
    }
}
