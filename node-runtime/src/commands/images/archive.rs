//! `berth image import` and `berth image export`, and docker's words for them, `load` and `save`.
use super::progress::Progress;
use crate::commands::connect::{self, said};
use crate::commands::output;
use crate::layout::Layout;
use anyhow::{Context, Result, anyhow, bail};
use berth_proto::node::import_images_event::Event;
use berth_proto::node::import_images_input::Input;
use berth_proto::node::{ExportImagesRequest, ImportImagesInput, ImportImagesResult, ImportImagesStart};
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes sent at a time.
const CHUNK: usize = 256 << 10;
/// Chunks on their way.
const CHUNKS: usize = 8;

/// What to import.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth image import web.tar
  docker save web:1 | berth image import
  berth image import --name registry.example/web:1 layout.tar

Takes an OCI image layout or what docker save writes, as tar, plain or compressed by gzip or zstd.
Of an image for several platforms the node's own is taken; --platform chooses a variant. Image policies decide about the names.
Prints the images that are here now.")]
pub struct ImportOptions {
    /// File to read; without one, or with -, standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same, as docker load has it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    input: Option<PathBuf>,
    /// Name for the archive's only image, instead of its own
    #[arg(long, value_name = "REFERENCE")]
    name: Option<String>,
    /// Of images for several platforms, which variant: OS/ARCH/VARIANT of this node's architecture
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    platform: String,
    /// Namespace whose image policies apply; without one the strictest do
    #[arg(long, value_name = "NAMESPACE", default_value = "")]
    namespace: String,
    /// Show no progress, only ids
    #[arg(short, long)]
    quiet: bool,
}

/// Imports it.
pub async fn import(layout: &Layout, options: &ImportOptions) -> Result<()> {
    let file = options.file.as_deref().or(options.input.as_deref()).filter(|f| *f != Path::new("-"));
    let reader: Box<dyn Read + Send> = match file {
        Some(path) => Box::new(File::open(path).with_context(|| path.display().to_string())?),
        None if std::io::stdin().is_terminal() => bail!("give a FILE, or an archive on standard input"),
        None => Box::new(std::io::stdin()),
    };
    let name = options.name.clone().unwrap_or_default();
    let (namespace, platform) = (options.namespace.clone(), options.platform.clone());
    let start = ImportImagesStart { name, namespace, platform };
    let shown = file.map_or_else(|| "standard input".to_owned(), |f| f.display().to_string());
    let result = take_in(layout, reader, start, Progress::new(&shown, options.quiet)).await?;
    show(&result, options.quiet)
}

/// Imports what the reader has. Errors: it cannot be read, or the daemon does not take it.
pub(crate) async fn take_in(
    layout: &Layout,
    reader: Box<dyn Read + Send>,
    start: ImportImagesStart,
    mut progress: Progress,
) -> Result<ImportImagesResult> {
    let mut node = connect::node(layout).await?;
    let (sender, inputs) = mpsc::channel(CHUNKS);
    // What was wrong with the reader is written down before the daemon can know that something was.
    let trouble = Arc::new(Mutex::new(None));
    let told = trouble.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(e) = send(reader, start, &sender) {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
        }
        drop(sender);
    });
    let events = async {
        let mut events = node.import_images(ReceiverStream::new(inputs)).await.map_err(said)?.into_inner();
        loop {
            match events.message().await.map_err(said)?.map(|e| e.event) {
                Some(Some(Event::Progress(step))) => progress.step(&step),
                Some(Some(Event::Result(result))) => return Ok(result),
                Some(None) => {}
                None => return Err(anyhow!("the daemon ended before the import did")),
            }
        }
    };
    let result = events.await;
    progress.finish();
    // The daemon only saw a stream that broke off.
    match trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(own) => Err(own),
        None => result,
    }
}

fn show(result: &ImportImagesResult, quiet: bool) -> Result<()> {
    for warning in &result.warnings {
        eprintln!("berth: warning: {warning}");
    }
    for image in &result.images {
        if quiet {
            output::line(&image.image_id)?;
            continue;
        }
        match image.names.as_slice() {
            [] => output::line(format_args!("<none> {} {}", image.image_id, image.digest))?,
            names => names
                .iter()
                .try_for_each(|name| output::line(format_args!("{name} {} {}", image.image_id, image.digest)))?,
        }
    }
    Ok(())
}

/// Reads all there is and hands it on. A reader that fails ends without the word that says so: the daemon takes nothing in then.
fn send(
    mut reader: Box<dyn Read + Send>,
    start: ImportImagesStart,
    sender: &mpsc::Sender<ImportImagesInput>,
) -> Result<()> {
    let put = |input| sender.blocking_send(ImportImagesInput { input: Some(input) }).is_ok();
    if !put(Input::Start(start)) {
        return Ok(());
    }
    loop {
        let mut chunk = vec![0; CHUNK];
        let n = match reader.read(&mut chunk) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.context("the archive cannot be read")?,
        };
        if n == 0 {
            put(Input::End(true));
            return Ok(());
        }
        chunk.truncate(n);
        // Nobody takes more: the daemon says why.
        if !put(Input::Data(chunk)) {
            return Ok(());
        }
    }
}

/// What to export.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth image export web:1 > web.tar
  berth image export -o node.tar web:1 registry.example/db:2
  berth image export web:1 | ssh other berth load

Writes an OCI image layout with a manifest.json, as docker save has it, beside it. The bytes are the same for the
same images. An id exports without a name.")]
pub struct ExportOptions {
    /// File to write; without one, or with -, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names and ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Exports it.
pub async fn export(layout: &Layout, options: &ExportOptions) -> Result<()> {
    let file = options.output.as_deref().filter(|f| *f != Path::new("-"));
    if file.is_none() && std::io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal: give -o FILE, or redirect standard output");
    }
    let mut node = connect::node(layout).await?;
    let request = ExportImagesRequest { names: options.images.clone() };
    let mut chunks = node.export_images(request).await.map_err(said)?.into_inner();
    let Some(path) = file else {
        while let Some(chunk) = chunks.message().await.map_err(said)? {
            output::bytes(&chunk.data)?;
        }
        return output::flush();
    };
    if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
        bail!("{} is no regular file; write an archive to a pipe or a device with > instead of -o", path.display());
    }
    // Beside its place until it is whole, so that nobody takes half an archive for one. Images may be private.
    let mut partial = path.to_owned().into_os_string();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let file = File::options().write(true).create_new(true).mode(0o600).open(&partial);
    let mut file = file.with_context(|| partial.display().to_string())?;
    let written = async {
        while let Some(chunk) = chunks.message().await.map_err(said)? {
            file.write_all(&chunk.data).with_context(|| partial.display().to_string())?;
        }
        file.sync_all().and_then(|()| std::fs::rename(&partial, path)).with_context(|| path.display().to_string())
    };
    let written: Result<()> = written.await;
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}
