//! Usage and help texts, made from the declarations of the commands.

use std::fmt::Write as _;

use super::{Command, Group, Node, Parameter, Program};

/// Greatest width of a line of explanation, in columns.
const WIDTH: usize = 80;
/// Indent of an explanation, in columns.
const INDENT: &str = "             ";

/// One line: the words of the command, its arguments and its mandatory options.
pub fn synopsis(program: &str, path: &[&str], command: &Command) -> String {
    let mut line = program.to_string();
    for word in path {
        line.push(' ');
        line.push_str(word);
    }
    for name in &command.positional {
        let Some(parameter) = command.parameter(name) else {
            continue;
        };
        let _ = match (parameter.repeated, parameter.required) {
            (true, true) => write!(line, " {{<{name}>}}"),
            (true, false) => write!(line, " [{{<{name}>}}]"),
            (false, true) => write!(line, " <{name}>"),
            (false, false) => write!(line, " [<{name}>]"),
        };
    }
    let mut optional = false;
    for parameter in named_options(command) {
        if parameter.required {
            let _ = write!(line, " --{} {}", parameter.name, parameter.value_text());
        } else {
            optional = true;
        }
    }
    if optional {
        line.push_str(" [OPTIONS]");
    }
    line
}

/// The options of a command that are not arguments, by name.
fn named_options(command: &Command) -> Vec<&Parameter> {
    let mut options: Vec<&Parameter> = command
        .parameters
        .iter()
        .filter(|p| !command.positional.contains(&p.name))
        .collect();
    options.sort_by_key(|p| p.name);
    options
}

/// The usage text below an error: the synopsis and every parameter.
pub fn command_usage(program: &str, path: &[&str], command: &Command) -> String {
    let mut text = format!("Usage: {}\n\n", synopsis(program, path, command));
    text.push_str(&parameters(command));
    text
}

/// The text of `help` and `--help`: the usage with the command's purpose.
pub fn command_help(program: &str, path: &[&str], command: &Command) -> String {
    let mut text = format!("Usage: {}\n\n", synopsis(program, path, command));
    for line in wrap(command.help, WIDTH) {
        text.push_str(&line);
        text.push('\n');
    }
    let parameters = parameters(command);
    if !parameters.is_empty() {
        text.push('\n');
        text.push_str(&parameters);
    }
    text
}

fn parameters(command: &Command) -> String {
    let mut required = Vec::new();
    for name in &command.positional {
        if let Some(parameter) = command.parameter(name) {
            required.push(describe(&format!("<{name}>"), parameter));
        }
    }
    let (needed, optional): (Vec<&Parameter>, Vec<&Parameter>) =
        named_options(command).into_iter().partition(|p| p.required);
    for parameter in needed {
        required.push(describe(&format!("--{}", parameter.name), parameter));
    }
    let mut text = required.join("\n");
    if !optional.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str("Optional parameters:\n\n");
        for parameter in optional {
            text.push_str(&describe(&format!("--{}", parameter.name), parameter));
        }
    }
    text
}

fn describe(label: &str, parameter: &Parameter) -> String {
    let mut text = format!(" {label:<10} {}", parameter.value_text());
    if let Some(default) = parameter.default {
        let _ = write!(text, "   (default={default})");
    }
    text.push('\n');
    let mut explanation = parameter.help.to_string();
    if parameter.repeated {
        explanation.push_str(" Can be specified more than once.");
    }
    for line in wrap(&explanation, WIDTH.saturating_sub(INDENT.len())) {
        text.push_str(INDENT);
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// One line per command below a group.
pub fn group_usage(program: &str, path: &[&'static str], group: &Group) -> String {
    let mut lines = Vec::new();
    collect(program, path, group, &mut lines);
    if path.is_empty() {
        lines.push(format!("{program} help [{{<command>}}] [OPTIONS]"));
        lines.sort();
    }
    format!("Usage:\n\n{}\n", lines.join("\n"))
}

fn collect(program: &str, path: &[&'static str], group: &Group, lines: &mut Vec<String>) {
    for (word, node) in group.children() {
        let mut path = path.to_vec();
        path.push(word);
        match node {
            Node::Group(group) => collect(program, &path, group, lines),
            Node::Leaf(command) => lines.push(synopsis(program, &path, command)),
        }
    }
}

/// The reference of all commands as reStructuredText.
pub fn document(program: &Program) -> String {
    let mut text = String::new();
    write_group(program, &[], &program.root, &mut text);
    text
}

fn write_group(program: &Program, path: &[&'static str], group: &Group, text: &mut String) {
    for (word, node) in group.children() {
        let mut path = path.to_vec();
        path.push(word);
        match node {
            Node::Group(group) => write_group(program, &path, group, text),
            Node::Leaf(command) => {
                let _ = write!(
                    text,
                    "``{}``\n\n{}\n\n",
                    synopsis(&program.name, &path, command),
                    command.help
                );
                for parameter in &command.parameters {
                    let _ = write!(
                        text,
                        "``{}`` ``{}``\n    {}\n\n",
                        parameter.name,
                        parameter.value_text(),
                        parameter.help
                    );
                }
            }
        }
    }
}
