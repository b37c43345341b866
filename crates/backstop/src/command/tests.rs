//! The rules of the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use proptest::prelude::*;

use super::parse::{ParseError, parse};
use super::*;

fn nothing(_: &Arguments) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}

fn sample() -> Command {
    Command::new("Try the rules.", nothing)
        .argument(Parameter::text("store", "A store.").length(3, 32))
        .optional_argument(Parameter::text("path", "A path."))
        .options(&[
            Parameter::flag("all", "All."),
            Parameter::flag("enable", "On by default.").default("true"),
            Parameter::integer("limit", "How many.", Some(1), Some(1000)).default("50"),
            Parameter::text("exclude", "A pattern.").repeated(),
            Parameter::choice(
                "output-format",
                "The form.",
                &["text", "json", "json-pretty"],
            ),
        ])
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_string()).collect()
}

fn parsed(line: &[&str]) -> Result<Arguments, ParseError> {
    parse(&sample(), &words(line))
}

fn refused(line: &[&str]) -> String {
    parsed(line).unwrap_err().to_string()
}

fn program() -> Program {
    let leaf = || Command::new("x", nothing);
    Program {
        name: "tool".to_string(),
        root: Group::new()
            .command("list", leaf())
            .command("login", leaf())
            .group(
                "snapshot",
                Group::new()
                    .command("list", leaf())
                    .command("files", leaf()),
            ),
        aliases: &[(&["files"], &["snapshot", "files"])],
        observer: None,
    }
}

fn resolved(line: &[&str]) -> String {
    match program().resolve(&words(line)) {
        Resolved::Command { path, rest, .. } => format!("{} {rest:?}", path.join(" ")),
        Resolved::NoCommand { path, .. } => format!("none after {path:?}"),
        Resolved::Unknown { path, word, .. } => format!("unknown {word} after {path:?}"),
    }
}

#[test]
fn a_word_is_found_by_its_only_prefix() {
    assert_eq!(resolved(&["snap", "l", "x"]), r#"snapshot list ["x"]"#);
    assert_eq!(resolved(&["li"]), "list []");
    assert_eq!(resolved(&["l"]), "unknown l after []");
    assert_eq!(resolved(&["snapshot"]), r#"none after ["snapshot"]"#);
    assert_eq!(
        resolved(&["snapshot", "x"]),
        r#"unknown x after ["snapshot"]"#
    );
    assert_eq!(resolved(&["--all", "list"]), "unknown --all after []");
    assert_eq!(resolved(&[]), "none after []");
}

#[test]
fn an_alias_stands_for_its_words_only_when_exact_and_first() {
    assert_eq!(resolved(&["files", "a"]), r#"snapshot files ["a"]"#);
    assert_eq!(resolved(&["file"]), "unknown file after []");
    assert_eq!(resolved(&["list", "files"]), r#"list ["files"]"#);
}

#[test]
fn options_take_one_or_two_dashes_and_an_equals_sign() {
    for line in [
        ["store1", "--limit", "7"].as_slice(),
        &["--limit=7", "store1"],
        &["-limit", "7", "store1"],
        &["-limit=7", "store1"],
    ] {
        let arguments = parsed(line).unwrap();
        assert_eq!(arguments.integer("limit"), Some(7));
        assert_eq!(arguments.text("store"), Some("store1"));
    }
    let arguments = parsed(&["store1", "--exclude=a=b", "--exclude", "-", "--exclude="]).unwrap();
    assert_eq!(arguments.list("exclude"), ["a=b", "-", ""]);
}

#[test]
fn paths_may_be_any_bytes_and_everything_else_is_text() {
    let command = Command::new("Try the rules.", nothing)
        .argument(Parameter::path("source", "A path.").repeated())
        .options(&[
            Parameter::path("keyfile", "A path."),
            Parameter::text("name", "A text."),
        ]);
    let raw = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let words = [raw(b"a:/x\xff"), raw(b"--keyfile=/k\xfe=1"), raw(b"b")];
    let arguments = parse(&command, &words).unwrap();
    assert_eq!(arguments.paths("source"), [raw(b"a:/x\xff"), raw(b"b")]);
    assert_eq!(
        arguments.path("keyfile"),
        Some(Path::new(&raw(b"/k\xfe=1")))
    );
    for words in [
        [raw(b"a"), raw(b"--name"), raw(b"\xff")],
        [raw(b"a"), raw(b"--name=\xff"), raw(b"b")],
    ] {
        assert_eq!(
            parse(&command, &words).unwrap_err().to_string(),
            "parameter verification failed - 'name': value is not valid UTF-8."
        );
    }
    assert!(parse(&command, &[raw(b"a"), raw(b"--\xff=1")]).is_err());
}

#[test]
fn names_of_options_are_not_abbreviated() {
    assert_eq!(
        refused(&["store1", "--lim", "7"]),
        "parameter verification failed - 'lim': schema does not allow additional properties."
    );
}

#[test]
fn a_bare_flag_means_yes_unless_that_is_the_default() {
    assert!(parsed(&["store1", "--all"]).unwrap().flag("all"));
    assert!(
        parsed(&["--all", "--limit", "3", "store1"])
            .unwrap()
            .flag("all")
    );
    assert!(!parsed(&["store1"]).unwrap().flag("all"));
    assert!(parsed(&["store1"]).unwrap().flag("enable"));
    assert!(!parsed(&["store1", "--enable", "0"]).unwrap().flag("enable"));
    assert_eq!(
        refused(&["store1", "--enable"]),
        "parameter verification failed - 'enable': missing boolean value."
    );
}

#[test]
fn a_word_that_reads_as_yes_or_no_belongs_to_the_flag_before_it() {
    let arguments = parsed(&["store1", "--all", "OFF"]).unwrap();
    assert!(!arguments.flag("all"));
    assert_eq!(arguments.text("path"), None);
    let arguments = parsed(&["--all", "store1"]).unwrap();
    assert!(arguments.flag("all"));
    assert_eq!(arguments.text("store"), Some("store1"));
}

#[test]
fn a_missing_value_and_a_missing_argument_are_named() {
    assert_eq!(
        refused(&["store1", "--limit"]),
        "parameter verification failed - 'limit': missing parameter value."
    );
    assert_eq!(
        refused(&["store1", "--limit", "--all"]),
        "parameter verification failed - 'limit': missing parameter value."
    );
    assert_eq!(
        refused(&[]),
        "parameter verification failed - 'store': missing argument"
    );
}

#[test]
fn a_scalar_given_twice_is_refused() {
    assert_eq!(
        refused(&["store1", "--limit", "1", "--limit", "2"]),
        "parameter verification failed - 'limit': duplicate parameter."
    );
    assert_eq!(
        refused(&["store1", "--store", "store2"]),
        "parameter verification failed - 'store': duplicate parameter."
    );
}

#[test]
fn the_optional_last_argument_may_be_an_option() {
    assert_eq!(parsed(&["store1", "/x"]).unwrap().text("path"), Some("/x"));
    assert_eq!(
        parsed(&["store1", "--path", "/x"]).unwrap().text("path"),
        Some("/x")
    );
}

#[test]
fn words_left_over_are_listed() {
    assert_eq!(
        refused(&["store1", "a", "b", "c"]),
        r#"got additional arguments: ["b", "c"]"#
    );
    assert_eq!(
        refused(&["store1", "a", "--", "--all"]),
        r#"got additional arguments: ["--", "--all"]"#
    );
}

#[test]
fn values_are_checked_and_every_problem_is_told() {
    assert_eq!(
        refused(&["ab", "--limit", "0", "--output-format", "xml"]),
        "parameter verification failed:\n\
         - 'limit': value must have a minimum value of 1 (got 0)\n\
         - 'output-format': value 'xml' is not defined in the enumeration.\n\
         - 'store': value must be at least 3 characters long"
    );
    assert_eq!(
        refused(&["store1", "--limit", "x"]),
        "parameter verification failed - 'limit': invalid digit found in string"
    );
}

#[test]
fn the_usage_shows_arguments_then_mandatory_then_optional_parameters() {
    let command = Command::new("Make it.", nothing)
        .argument(Parameter::text("name", "The name."))
        .options(&[
            Parameter::text("host", "The host.").required(),
            Parameter::text("comment", "A comment."),
            Parameter::flag("use-node-proxy", "Use the proxy.").default("false"),
        ]);
    assert_eq!(
        usage::command_usage("tool", &["remote", "create"], &command),
        "Usage: tool remote create <name> --host <string> [OPTIONS]\n\n \
         <name>     <string>\n             The name.\n\n \
         --host     <string>\n             The host.\n\n\
         Optional parameters:\n\n \
         --comment  <string>\n             A comment.\n \
         --use-node-proxy <boolean>   (default=false)\n             Use the proxy.\n"
    );
}

#[test]
fn completion_proposes_commands_options_and_values() {
    let program = Program {
        name: "tool".to_string(),
        root: Group::new().group("store", Group::new().command("show", sample())),
        aliases: &[],
        observer: None,
    };
    let at = |line: &str| completion::candidates(&program, line);
    assert_eq!(at("tool "), ["help", "store"]);
    assert_eq!(at("tool st"), ["store"]);
    assert_eq!(at("tool store "), ["show"]);
    assert_eq!(at("tool store show x --l"), ["--limit"]);
    assert_eq!(
        at("tool store show x --output-format js"),
        ["json", "json-pretty"]
    );
    assert_eq!(at("tool nope x"), Vec::<String>::new());
    assert_eq!(at(""), Vec::<String>::new());
}

proptest! {
    #[test]
    fn no_command_line_makes_the_parser_panic(line in prop::collection::vec(
        prop_oneof![
            "\\PC{0,12}",
            Just("--".to_string()),
            Just("-".to_string()),
            Just("--limit".to_string()),
            Just("--all".to_string()),
            Just("-=".to_string()),
            Just("--=".to_string()),
            Just("store1".to_string()),
        ], 0..8)) {
        let _ = parse(&sample(), &line).map_err(|error| error.to_string());
        let _ = program().resolve(&line);
    }

    #[test]
    fn no_command_line_makes_completion_panic(line in "\\PC{0,40}") {
        let _ = completion::candidates(&program(), &line);
        let _ = super::words::split(&line);
    }

    #[test]
    fn what_is_given_by_name_arrives_unchanged(value in "\\PC{0,20}") {
        let line = ["store1".to_string(), format!("--exclude={value}")];
        let arguments = parse(&sample(), &line).unwrap();
        prop_assert_eq!(arguments.list("exclude"), std::slice::from_ref(&value));
    }
}
