//! What a shell may propose for the word under the cursor.

use super::parameter::Completion;
use super::{Command, Kind, Parameter, Program, Resolved, words};

/// Candidates for the command line that the shell put into `COMP_LINE` and `COMP_POINT`.
pub fn from_environment(program: &Program) -> Vec<String> {
    let Ok(line) = std::env::var("COMP_LINE") else {
        return Vec::new();
    };
    let point = std::env::var("COMP_POINT")
        .ok()
        .and_then(|point| point.parse::<usize>().ok());
    match point {
        Some(point) => candidates(program, &line.chars().take(point).collect::<String>()),
        None => Vec::new(),
    }
}

/// Candidates for the last word of `line`, which begins with the program's name.
pub fn candidates(program: &Program, line: &str) -> Vec<String> {
    let mut given = words::split(line).0;
    if line.is_empty() || line.ends_with(char::is_whitespace) {
        given.push(String::new());
    }
    if given.len() < 2 {
        return Vec::new();
    }
    let Some(last) = given.pop() else {
        return Vec::new();
    };
    let given = given.get(1..).unwrap_or_default();
    let proposed = match program.resolve(given) {
        Resolved::NoCommand { path, group } => {
            let mut words: Vec<String> = group.children().map(|(w, _)| w.to_string()).collect();
            if path.is_empty() {
                words.push("help".to_string());
            }
            words
        }
        Resolved::Command { command, rest, .. } => command_candidates(command, &rest, &last),
        Resolved::Unknown { .. } => Vec::new(),
    };
    let mut proposed: Vec<String> = proposed
        .into_iter()
        .filter(|candidate| candidate.starts_with(&last))
        .collect();
    proposed.sort();
    proposed.dedup();
    proposed
}

fn command_candidates(command: &Command, rest: &[String], last: &str) -> Vec<String> {
    let awaited = rest
        .last()
        .and_then(|word| word.strip_prefix("--"))
        .and_then(|name| command.parameter(name));
    if let Some(parameter) = awaited {
        let boolean = matches!(parameter.kind, Kind::Boolean);
        if !boolean || !last.starts_with('-') {
            return values(parameter, last);
        }
    }
    if last.starts_with('-') {
        return command
            .parameters
            .iter()
            .filter(|p| !command.positional.contains(&p.name))
            .filter(|p| p.repeated || !rest.contains(&format!("--{}", p.name)))
            .map(|p| format!("--{}", p.name))
            .collect();
    }
    let position = position(command, rest);
    let parameter = command
        .positional
        .get(position)
        .or_else(|| command.positional.last())
        .and_then(|name| command.parameter(name))
        .filter(|p| position < command.positional.len() || p.repeated);
    parameter.map_or_else(Vec::new, |p| values(p, last))
}

/// How many arguments stand in `rest`.
fn position(command: &Command, rest: &[String]) -> usize {
    let mut count = 0;
    let mut takes_value = false;
    for word in rest {
        if let Some(name) = word.strip_prefix("--") {
            takes_value = !name.contains('=')
                && command
                    .parameter(name)
                    .is_some_and(|p| !matches!(p.kind, Kind::Boolean));
        } else if takes_value {
            takes_value = false;
        } else {
            count += 1;
        }
    }
    count
}

fn values(parameter: &Parameter, last: &str) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_string()).collect();
    match (parameter.kind, parameter.completion) {
        (_, Completion::Words(proposed)) => words(proposed),
        (_, Completion::File) => files(last),
        (Kind::Choice(choices), _) => words(choices),
        (Kind::Boolean, _) => words(&["0", "1", "yes", "no", "true", "false", "on", "off"]),
        _ => Vec::new(),
    }
}

fn files(last: &str) -> Vec<String> {
    let (directory, shown) = match last.rsplit_once('/') {
        Some(("", _)) => ("/", "/"),
        Some((directory, _)) => (directory, directory),
        None => (".", ""),
    };
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let slash = if entry.path().is_dir() { "/" } else { "" };
            Some(match shown {
                "" => format!("{name}{slash}"),
                "/" => format!("/{name}{slash}"),
                shown => format!("{shown}/{name}{slash}"),
            })
        })
        .collect()
}
