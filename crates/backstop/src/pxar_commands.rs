//! `pxar`: archives of directories as files, without any server.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use backstop_client::archive::{
    CreateOptions, DeviceSet, ExtractOptions, Features, MatchType, Pattern, PlainPayload,
    create_split, create_unified, extract,
};
use backstop_format::pxar::decoder::{Decoder, Event};

use crate::activity::{Level, TerminalActivity};
use crate::archive_listing::Lister;
use crate::command::{Arguments, Command, Group, Parameter, Program};
use crate::output;

const ARCHIVE: Parameter = Parameter::text("archive", "The archive.").file();

const PAYLOAD_INPUT: Parameter = Parameter::text(
    "payload-input",
    "The file with the contents of a split archive.",
)
.file();

const fn flag(name: &'static str, help: &'static str) -> Parameter {
    Parameter::flag(name, help).default("false")
}

const FEATURES: &[Parameter] = &[
    flag("no-xattrs", "Leave out extended attributes."),
    flag("no-fcaps", "Leave out file capabilities."),
    flag("no-acls", "Leave out access control lists."),
    flag("no-device-nodes", "Leave out device nodes."),
    flag("no-fifos", "Leave out fifos."),
    flag("no-sockets", "Leave out sockets."),
];

/// The program under the name that it was called by.
pub fn program(name: String) -> Program {
    Program {
        name,
        root: Group::new()
            .command("create", create_command())
            .command("extract", extract_command())
            .command("list", list_command()),
        aliases: &[],
        observer: None,
    }
}

fn create_command() -> Command {
    Command::new("Make an archive of a directory.", create)
        .argument(ARCHIVE)
        .argument(Parameter::text("source", "The directory.").file())
        .options(FEATURES)
        .option(flag(
            "all-file-systems",
            "Enter other file systems mounted in the directory.",
        ))
        .option(Parameter::text("exclude", "A pattern of what to leave out.").repeated())
        .option(
            Parameter::integer(
                "entries-max",
                "Most directory entries held in memory.",
                Some(0),
                None,
            )
            .default("1048576"),
        )
        .option(
            Parameter::text(
                "payload-output",
                "Make a split archive, with the contents in this file.",
            )
            .file(),
        )
}

fn extract_command() -> Command {
    Command::new("Unpack an archive.", extract_archive)
        .argument(ARCHIVE.explained("The archive; - for standard input."))
        .optional_argument(
            Parameter::text("target", "The directory to unpack to.")
                .default(".")
                .file(),
        )
        .options(FEATURES)
        .option(Parameter::text("pattern", "Unpack only what matches.").repeated())
        .option(Parameter::text("files-from", "A file with patterns, one per line.").file())
        .options(&[
            flag(
                "allow-existing-dirs",
                "Do not fail if directories exist already.",
            ),
            flag(
                "overwrite",
                "Replace existing files, symbolic links and hard links.",
            ),
            flag("overwrite-files", "Replace existing files."),
            flag("overwrite-symlinks", "Replace existing symbolic links."),
            flag("overwrite-hardlinks", "Replace existing hard links."),
            flag("strict", "Stop at the first error."),
        ])
        .option(PAYLOAD_INPUT)
        .option(
            Parameter::text(
                "prelude-target",
                "A file for the patterns that a split archive was made with.",
            )
            .file(),
        )
}

fn list_command() -> Command {
    Command::new("List what is in an archive.", list)
        .argument(ARCHIVE)
        .option(PAYLOAD_INPUT)
}

fn features(arguments: &Arguments) -> Features {
    Features {
        xattrs: !arguments.flag("no-xattrs"),
        fcaps: !arguments.flag("no-fcaps"),
        acls: !arguments.flag("no-acls"),
        device_nodes: !arguments.flag("no-device-nodes"),
        fifos: !arguments.flag("no-fifos"),
        sockets: !arguments.flag("no-sockets"),
    }
}

fn new_file(path: &str) -> anyhow::Result<BufWriter<File>> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)
        .with_context(|| format!("unable to create {path:?}"))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

fn finish(mut file: BufWriter<File>, path: &str) -> anyhow::Result<()> {
    file.flush()
        .with_context(|| format!("unable to write {path:?}"))
}

fn create(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let exclude = arguments
        .list("exclude")
        .iter()
        .map(|text| Pattern::parse(text.as_bytes(), MatchType::Exclude))
        .collect::<Result<_, _>>()?;
    let options = CreateOptions {
        exclude,
        devices: match arguments.flag("all-file-systems") {
            true => DeviceSet::All,
            false => DeviceSet::SourceAnd(Vec::new()),
        },
        entries_max: usize::try_from(arguments.integer("entries-max").unwrap_or(1 << 20))?,
        features: features(arguments),
        ..CreateOptions::default()
    };
    let source = Path::new(arguments.required("source")?);
    let path = arguments.required("archive")?;
    let activity = TerminalActivity::new();
    let archive = new_file(path)?;
    match arguments.text("payload-output") {
        None => {
            let (_, archive) =
                create_unified(source, &options, archive, None::<&mut Catalog>, &activity)?;
            finish(archive, path)?;
        }
        Some(payload_path) => {
            let payload = PlainPayload(new_file(payload_path)?);
            let (_, archive, payload) =
                create_split(source, &options, archive, payload, None, &activity)?;
            finish(archive, path)?;
            finish(payload.0, payload_path)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

type Catalog = backstop_format::catalog::CatalogWriter<std::io::Sink>;

fn patterns(arguments: &Arguments) -> anyhow::Result<Vec<Pattern>> {
    let mut texts: Vec<String> = arguments.list("pattern").to_vec();
    if let Some(path) = arguments.text("files-from") {
        let content =
            std::fs::read_to_string(path).with_context(|| format!("unable to read {path:?}"))?;
        texts.extend(
            content
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_string),
        );
    }
    texts
        .iter()
        .map(|text| Ok(Pattern::parse(text.as_bytes(), MatchType::Include)?))
        .collect()
}

fn open(path: &str) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("unable to open {path:?}"))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn extract_archive(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let patterns = patterns(arguments)?;
    let overwrite = arguments.flag("overwrite");
    let options = ExtractOptions {
        only_matching: !patterns.is_empty(),
        patterns,
        allow_existing_dirs: arguments.flag("allow-existing-dirs"),
        overwrite_files: overwrite || arguments.flag("overwrite-files"),
        overwrite_symlinks: overwrite || arguments.flag("overwrite-symlinks"),
        overwrite_hardlinks: overwrite || arguments.flag("overwrite-hardlinks"),
        keep_going: !arguments.flag("strict"),
        features: features(arguments),
        ..ExtractOptions::default()
    };
    let target = Path::new(arguments.required("target")?);
    let path = arguments.required("archive")?;
    let prelude = match (path, arguments.text("payload-input")) {
        ("-", Some(_)) => bail!("a split archive cannot be read from standard input"),
        ("-", None) => unpack(Decoder::new(std::io::stdin().lock()), target, &options)?,
        (path, None) => unpack(Decoder::new(open(path)?), target, &options)?,
        (path, Some(payload)) => {
            let decoder = Decoder::split_seekable(open(path)?, open(payload)?);
            unpack(decoder, target, &options)?
        }
    };
    if let Some(path) = arguments.text("prelude-target") {
        std::fs::write(path, prelude.unwrap_or_default())
            .with_context(|| format!("unable to write {path:?}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Unpacks an archive and returns its prelude.
fn unpack<R: Read, P: Read>(
    mut archive: Decoder<R, P>,
    target: &Path,
    options: &ExtractOptions,
) -> anyhow::Result<Option<Vec<u8>>> {
    extract(&mut archive, target, options, &TerminalActivity::new())?;
    Ok(archive.prelude().map(<[u8]>::to_vec))
}

fn list(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = arguments.required("archive")?;
    if let Some(payload) = arguments.text("payload-input") {
        open(payload)?;
    }
    let mut lister = Lister::new(Level::from_variable("PXAR_LOG") == Level::Debug);
    let mut decoder = Decoder::new(open(path)?).seek_over_contents();
    while let Some(event) = decoder.next_event()? {
        match event {
            Event::Entry(entry) => output::out(&lister.enter(&entry)),
            Event::Leave => lister.leave(),
        }
    }
    Ok(ExitCode::SUCCESS)
}
