//! The one executable. The name it is called by decides which tool it is: under the name of a stock
//! tool it is that tool, as `backstop` its first word chooses. It holds no logic of its own.

mod activity;
mod archive_listing;
mod background;
mod backstop_commands;
mod calendar_command;
mod client_commands;
mod command;
mod demo;
mod event_log;
mod failed_tasks;
mod installation;
mod key_commands;
mod manager_commands;
mod moment;
mod output;
mod password_prompt;
mod prune_simulator_command;
mod pve_commands;
mod pxar_commands;
mod secret;
mod server_address;
mod server_command;
mod server_log;
mod server_process;
mod task_follow;
mod terminal;
mod tree_compare;
mod user_files;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let name = Path::new(&called)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    match run(name, words) {
        Ok(code) => code,
        Err(error) => command::report(Err(error)),
    }
}

fn run(name: String, words: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if let Some(tool) = tool_called(&name) {
        return run_tool(tool, name, words);
    }
    // Not even an odd word may make it fail.
    if name == pve_commands::HOOK_NAME {
        return Ok(pve_commands::hook(&words));
    }
    if words.first().is_some_and(|word| word == "pve-hook") {
        return Ok(pve_commands::hook(words.get(1..).unwrap_or_default()));
    }
    let texts: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    if let Some(ended) = backstop_server::privileged_helper::serve(&texts) {
        return ended
            .map(|()| ExitCode::SUCCESS)
            .map_err(anyhow::Error::msg);
    }
    if words.first().is_some_and(|word| word == "demo") {
        return demo::run(words.get(1..).unwrap_or_default());
    }
    let mut words = words;
    match words.first().map(|word| word.to_str().unwrap_or_default()) {
        None => {
            output::err(backstop_commands::OVERVIEW);
            Ok(command::failure())
        }
        Some("help" | "--help" | "-h") if words.len() == 1 => {
            output::out(backstop_commands::OVERVIEW);
            Ok(ExitCode::SUCCESS)
        }
        Some(word @ ("client" | "manager" | "pxar")) => {
            let program = format!("{name} {word}");
            let tool = word.to_string();
            words.remove(0);
            run_tool(&tool, program, words)
        }
        Some(_) => Ok(backstop_commands::program(name).run(&words)),
    }
}

/// The tool that the executable is under a stock name.
fn tool_called(name: &str) -> Option<&'static str> {
    match name {
        "proxmox-backup-client" => Some("client"),
        "proxmox-backup-manager" => Some("manager"),
        "pxar" => Some("pxar"),
        _ => None,
    }
}

fn run_tool(tool: &str, program: String, mut words: Vec<OsString>) -> anyhow::Result<ExitCode> {
    installation::take_root(&mut words)?;
    let program = match tool {
        "client" => client_commands::program(program),
        "manager" => manager_commands::program(program),
        _ => pxar_commands::program(program),
    };
    Ok(program.run(&words))
}
