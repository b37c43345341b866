//! `backstop pve-hook` and `backstop pve-guard`: what runs on a Proxmox VE node.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backstop_pve::config;
use backstop_pve::guard::{Finding, Guard, Report};
use backstop_pve::hook::{CONFIG, Call, complain};

use crate::command::{self, Arguments, Command, Parameter};
use crate::{installation, output};

/// The exit status of a guard that has done all it could and left scripts of others in place.
const FOREIGN_SCRIPTS: u8 = 2;

/// The name under which the executable is the hook: `vzdump` wants a path, and gives it no words of ours.
pub const HOOK_NAME: &str = "backstop-pve-hook";

const HOOK_USAGE: &str = "\
Usage: backstop pve-hook PHASE [MODE VMID]
       backstop-pve-hook PHASE [MODE VMID]    (under this name, as a link to backstop)

vzdump calls this at every phase of a backup job. At job-end and job-abort one push tells the receiver
in /etc/backstop/pve-hook.conf how the whole job went: up, or down if the job or one of its guests
failed. It always ends with 0, so that it never breaks a backup; what goes wrong is said on the
standard error and in the system's log.
";

/// The hook. Never fails and never hangs.
pub fn hook(words: &[OsString]) -> ExitCode {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match words.first().map(String::as_str) {
        None => complain("it is called without a phase; vzdump names one"),
        Some("help" | "--help" | "-h") => output::out(HOOK_USAGE),
        Some(_) => {
            let call = || Call::of_words(&words, installation::roots().prefix().to_owned()).run();
            // What is wrong was said when it broke.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        }
    }
    ExitCode::SUCCESS
}

/// The declaration of the guard.
pub fn guard() -> Command {
    Command::new(
        "Keep the hook in vzdump.conf and in all backup jobs of this Proxmox VE node and its cluster.",
        run_guard,
    )
    .option(Parameter::flag(
        "check",
        "Only say what is missing, and fail if something is.",
    ))
    .option(
        Parameter::text("script", "The path of the hook, which has to be the same on all nodes.")
            .default("/usr/local/bin/backstop-pve-hook"),
    )
    .option(Parameter::flag(
        "replace",
        "Replace other scripts, too, instead of failing because of them.",
    ))
    .option(Parameter::flag(
        "remove",
        "Remove the hook from all of them, so that its program may go.",
    ))
    .option(Parameter::path(
        "root",
        "Work below this directory instead of /.",
    ))
}

fn run_guard(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let root = arguments.given_path("root").map(PathBuf::from);
    let guard = Guard {
        root: root.unwrap_or_else(|| installation::roots().prefix().to_owned()),
        script: arguments.required("script")?.to_owned(),
        replace: arguments.flag("replace"),
    };
    let (only_checks, removes) = (arguments.flag("check"), arguments.flag("remove"));
    let (Report { findings, errors }, done) = match (only_checks, removes) {
        (true, true) => anyhow::bail!("--check and --remove exclude each other"),
        (true, false) => (guard.check()?, "is missing"),
        (false, true) => (guard.remove()?, "was removed"),
        (false, false) => (guard.keep()?, "was added"),
    };
    let mut is_good = errors.is_empty();
    let mut is_whole = true;
    for err in &errors {
        output::err(&format!("{err}\n"));
    }
    for Finding {
        path,
        changes,
        foreign,
    } in &findings
    {
        let path = Path::display(path);
        for other in foreign {
            output::err(&format!(
                "{path}: {other:?} is set in place of the hook and was left; its job tells nobody how it went (--replace)\n"
            ));
            is_whole = false;
        }
        if *changes == 0 {
            output::out(&format!("{path}: nothing to change\n"));
        } else {
            output::out(&format!("{path}: the hook {done} in {changes} places\n"));
            is_good &= !only_checks;
        }
    }
    // A hook that cannot tell anybody is as good as none.
    if !removes && let Err(err) = config::check(&guard.root.join(CONFIG)) {
        output::err(&format!("the hook tells nobody anything: {err}\n"));
        is_good = false;
    }
    Ok(match (is_good, is_whole) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(FOREIGN_SCRIPTS),
        (false, _) => command::failure(),
    })
}
