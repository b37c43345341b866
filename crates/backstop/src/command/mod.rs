//! The table of commands: each command and option is declared once, and from that declaration come
//! the parser, the usage text, the help and the completion. It never runs anything by itself and
//! never prints.

pub mod completion;
pub mod parameter;
pub mod parse;
pub mod usage;
pub mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

pub use parameter::{Kind, Parameter};
pub use parse::Arguments;

use crate::output;

/// What a command does with its checked arguments.
pub type Action = fn(&Arguments) -> anyhow::Result<ExitCode>;

/// A word in the tree of commands.
pub enum Node {
    /// A word that only leads to further words.
    Group(Group),
    /// A word that runs something.
    Leaf(Box<Command>),
}

/// A set of commands under one word (or under the program's name).
#[derive(Default)]
pub struct Group {
    children: BTreeMap<&'static str, Node>,
    otherwise: Option<&'static str>,
}

impl Group {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command under `word`.
    pub fn command(mut self, word: &'static str, command: Command) -> Self {
        self.children.insert(word, Node::Leaf(Box::new(command)));
        self
    }

    /// Adds a group of commands under `word`.
    pub fn group(mut self, word: &'static str, group: Group) -> Self {
        self.children.insert(word, Node::Group(group));
        self
    }

    /// The command under `word` is meant where nothing or an option follows.
    pub fn otherwise(mut self, word: &'static str) -> Self {
        self.otherwise = Some(word);
        self
    }

    /// The words of this group in alphabetical order with what they lead to.
    pub fn children(&self) -> impl Iterator<Item = (&'static str, &Node)> {
        self.children.iter().map(|(word, node)| (*word, node))
    }

    /// Finds the child that `word` names: the exact word, else the only word that begins with it.
    pub fn find(&self, word: &str) -> Option<(&'static str, &Node)> {
        if let Some((name, node)) = self.children.get_key_value(word) {
            return Some((name, node));
        }
        let mut matching = self
            .children
            .iter()
            .filter(|(name, _)| name.starts_with(word));
        match (matching.next(), matching.next()) {
            (Some((name, node)), None) => Some((name, node)),
            _ => None,
        }
    }
}

/// One command: its arguments, its options and what it does.
pub struct Command {
    /// One sentence for the help.
    pub help: &'static str,
    /// Every argument and option, in the order of the declaration.
    pub parameters: Vec<Parameter>,
    /// The names of the parameters that are filled by position, in order.
    pub positional: Vec<&'static str>,
    /// The action.
    pub action: Action,
}

impl Command {
    /// A command without arguments.
    pub fn new(help: &'static str, action: Action) -> Self {
        Self {
            help,
            parameters: Vec::new(),
            positional: Vec::new(),
            action,
        }
    }

    /// Adds a mandatory argument that is filled by position.
    pub fn argument(mut self, parameter: Parameter) -> Self {
        self.positional.push(parameter.name);
        self.parameters.push(parameter.required());
        self
    }

    /// Adds the optional last argument, which may also be given as an option.
    pub fn optional_argument(mut self, parameter: Parameter) -> Self {
        self.positional.push(parameter.name);
        self.parameters.push(parameter);
        self
    }

    /// Adds one option.
    pub fn option(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Adds several options.
    pub fn options(mut self, parameters: &[Parameter]) -> Self {
        self.parameters.extend_from_slice(parameters);
        self
    }

    /// The declaration of the parameter called `name`, now or in old versions.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        let mut parameters = self.parameters.iter();
        parameters.find(|p| p.name == name || p.former_name == Some(name))
    }
}

/// A program: the name it was called by, its commands and the short forms it understands.
pub struct Program {
    /// The name for messages, with the words that lead to it (`backstop client`).
    pub name: String,
    /// The commands.
    pub root: Group,
    /// Words that stand for other words when they come first: `files` for `snapshot files`.
    pub aliases: &'static [(&'static [&'static str], &'static [&'static str])],
    /// Who is told of each command that was run.
    pub observer: Option<Observer>,
}

/// Is told of a command that was run: the words that name it with the program before them, its arguments, and whether it
/// succeeded.
pub type Observer = fn(&str, &Arguments, bool);

/// Where a command line led.
pub enum Resolved<'a> {
    /// A command, the words that named it and the remaining words.
    Command {
        /// The full words of the command.
        path: Vec<&'static str>,
        /// The command.
        command: &'a Command,
        /// What follows the command's words.
        rest: Vec<String>,
    },
    /// The words ended at a group.
    NoCommand {
        /// The full words of the group.
        path: Vec<&'static str>,
        /// The group.
        group: &'a Group,
    },
    /// A word that no command begins with, or several do.
    Unknown {
        /// The full words before it.
        path: Vec<&'static str>,
        /// The group that was searched.
        group: &'a Group,
        /// The word.
        word: String,
    },
}

impl Program {
    /// Finds the command that `words` begin with.
    pub fn resolve(&self, words: &[String]) -> Resolved<'_> {
        let words = self.replace_alias(words);
        let mut group = &self.root;
        let mut path = Vec::new();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match group.find(word) {
                Some((name, Node::Group(inner))) => {
                    path.push(name);
                    group = inner;
                }
                Some((name, Node::Leaf(command))) => {
                    path.push(name);
                    return Resolved::Command {
                        path,
                        command,
                        rest: rest.cloned().collect(),
                    };
                }
                None => {
                    return Resolved::Unknown {
                        path,
                        group,
                        word: word.clone(),
                    };
                }
            }
        }
        Resolved::NoCommand { path, group }
    }

    fn replace_alias(&self, words: &[String]) -> Vec<String> {
        for (short, long) in self.aliases {
            let matches = words.len() >= short.len()
                && short
                    .iter()
                    .zip(words)
                    .all(|(expected, word)| expected == word);
            if matches {
                return long
                    .iter()
                    .map(|word| (*word).to_string())
                    .chain(words.iter().skip(short.len()).cloned())
                    .collect();
            }
        }
        words.to_vec()
    }

    /// Runs the command that `words` name. What is wrong with the words goes to standard error.
    pub fn run(&self, raw: &[OsString]) -> ExitCode {
        let words: Vec<String> = raw
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let words = words.as_slice();
        if words.first().is_some_and(|w| w == "bashcomplete") {
            for candidate in completion::from_environment(self) {
                output::out(&format!("{candidate}\n"));
            }
            return ExitCode::SUCCESS;
        }
        if words.first().is_some_and(|w| w == "printdoc") {
            output::out(&usage::document(self));
            return ExitCode::SUCCESS;
        }
        if words.first().is_some_and(|w| "help" == w) {
            return self.help(words.get(1..).unwrap_or_default());
        }
        match self.resolve(&self.with_default(words)) {
            Resolved::Command {
                path,
                command,
                rest,
            } => {
                if wants_help(command, &rest) {
                    output::out(&usage::command_help(&self.name, &path, command));
                    return ExitCode::SUCCESS;
                }
                // The rest of the words is their end, which may hold what is no text.
                let rest = raw
                    .len()
                    .checked_sub(rest.len())
                    .and_then(|at| raw.get(at..));
                match parse::parse(command, rest.unwrap_or_default()) {
                    Ok(mut arguments) => {
                        arguments.program.clone_from(&self.name);
                        let code = report((command.action)(&arguments));
                        if let Some(observer) = self.observer {
                            let name = format!("{} {}", self.name, path.join(" "));
                            observer(&name, &arguments, code == ExitCode::SUCCESS);
                        }
                        code
                    }
                    Err(error) => {
                        output::err(&format!(
                            "Error: {error}\n{}",
                            usage::command_usage(&self.name, &path, command)
                        ));
                        failure()
                    }
                }
            }
            Resolved::NoCommand { path, group } => {
                output::err(&format!(
                    "Error: no command specified.\nPossible commands: {}\n\n{}",
                    self.possible(group, &path).join(", "),
                    self.group_usage(&path, group)
                ));
                failure()
            }
            Resolved::Unknown { path, group, word } => {
                if word == "--help" || word == "-h" {
                    output::out(&self.group_usage(&path, group));
                    return ExitCode::SUCCESS;
                }
                output::err(&format!(
                    "Error: no such command '{word}'\n\n{}",
                    self.group_usage(&path, group)
                ));
                failure()
            }
        }
    }

    /// The words with that of the command which their group means when none is named.
    fn with_default(&self, words: &[String]) -> Vec<String> {
        let (path, group) = match self.resolve(words) {
            Resolved::NoCommand { path, group } => (path, group),
            Resolved::Unknown { path, group, word }
                if word.starts_with('-') && word != "--help" && word != "-h" =>
            {
                (path, group)
            }
            _ => return words.to_vec(),
        };
        let mut words = words.to_vec();
        if let Some(word) = group.otherwise {
            words.insert(path.len().min(words.len()), word.to_owned());
        }
        words
    }

    fn possible(&self, group: &Group, path: &[&str]) -> Vec<&'static str> {
        let mut words: Vec<_> = group.children().map(|(word, _)| word).collect();
        if path.is_empty() {
            words.push("help");
            words.sort_unstable();
        }
        words
    }

    fn group_usage(&self, path: &[&'static str], group: &Group) -> String {
        usage::group_usage(&self.name, path, group)
    }

    /// `help [words] [--verbose]`: never fails, whatever the words are.
    fn help(&self, words: &[String]) -> ExitCode {
        let words: Vec<String> = words
            .iter()
            .filter(|word| !word.starts_with('-'))
            .cloned()
            .collect();
        match self.resolve(&words) {
            Resolved::Command { path, command, .. } => {
                output::out(&usage::command_help(&self.name, &path, command));
            }
            Resolved::NoCommand { path, group } => print!("{}", self.group_usage(&path, group)),
            Resolved::Unknown { word, .. } => output::err(&format!("no such command '{word}'\n")),
        }
        ExitCode::SUCCESS
    }
}

fn wants_help(command: &Command, rest: &[String]) -> bool {
    command.parameter("help").is_none() && rest.iter().any(|word| word == "--help" || word == "-h")
}

/// The exit status of every failure.
pub fn failure() -> ExitCode {
    ExitCode::from(255)
}

/// Turns what a command returned into an exit status; an error is printed with its causes.
pub fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            output::err(&format!("Error: {error}\n"));
            // Many errors say in their own text what caused them.
            let mut said = error.to_string();
            let mut causes = String::new();
            for cause in error.chain().skip(1).map(ToString::to_string) {
                if !said.contains(&cause) {
                    causes.push_str(&format!("    {cause}\n"));
                    said.push_str(&cause);
                }
            }
            if !causes.is_empty() {
                output::err(&format!("\nCaused by:\n{causes}"));
            }
            failure()
        }
    }
}

#[cfg(test)]
mod tests;
