//! `berth logs`.
use crate::commands::connect::{self, Runtime};
use crate::commands::containers::log_file::LogFile;
use crate::commands::containers::log_record::Joiner;
use crate::commands::listing::{self, ContainerView, PodView};
use crate::commands::{names, time};
use crate::layout::Layout;
use anyhow::{Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a log is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// How often the daemon is asked whether the container still runs.
const ASK: Duration = Duration::from_millis(500);

/// What to show.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth logs web                    what the only container of pod web has written
  berth logs -f --tail 20 web       the last 20 lines, and what comes, until the container ends
  berth logs --since 10m db/app     of container app in pod db, not older than 10 minutes
  berth logs --previous web         what the attempt before this one has written

Standard output of the container goes to standard output, standard error to standard error.")]
pub struct Options {
    /// Pod (name, namespace/name or id) or container (name or id)
    #[arg(value_name = "POD|CONTAINER")]
    name: String,
    /// Container of the pod
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on with what comes; ends with the container
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N", value_parser = lines)]
    tail: Option<usize>,
    /// Of the attempt before this one
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Write the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Only lines that are not older: 90s, 15m, 1h30m ago, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = time::parse_moment)]
    since: Option<i64>,
    /// Only lines that are not younger
    #[arg(long, value_name = "TIME", value_parser = time::parse_moment)]
    until: Option<i64>,
}

/// docker takes `all`, and -1, for no limit.
fn lines(text: &str) -> Result<usize, String> {
    match text {
        "all" | "-1" => Ok(usize::MAX),
        _ => text.parse().map_err(|_| "is not a number of lines, or all".to_owned()),
    }
}

/// Shows them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let (pod, found) = names::container(&pods, &options.name, options.container.as_deref())?;
    let mut container = if options.previous { previous(pod, found)? } else { found.clone() };
    listing::fill_container(&mut runtime, &mut container, false).await?;
    if container.log_path.is_empty() {
        bail!("container {} has no log: its pod was made without a log directory", container.name);
    }
    let mut joiner = Joiner::new(options.timestamps, options.since.unwrap_or(0), options.until.unwrap_or(i64::MAX));
    let path = Path::new(&container.log_path).to_owned();
    if !path.exists() && !options.follow && container.state == "Created" {
        return Ok(());
    }
    let Some(mut log) = open(&mut runtime, &mut container, &path, options.follow).await? else { return Ok(()) };
    if let Some(lines) = options.tail {
        log.seek_tail(lines)?;
    }
    log.drain(&mut joiner)?;
    if options.follow {
        follow(&mut runtime, &mut container, &mut log, &mut joiner).await?;
    }
    Ok(())
}

/// The newest attempt before this one.
fn previous(pod: &PodView, container: &ContainerView) -> Result<ContainerView> {
    let before = pod.containers.iter().filter(|c| c.name == container.name && c.attempt < container.attempt);
    match before.max_by_key(|c| c.attempt) {
        Some(found) => Ok(found.clone()),
        None => {
            bail!("container {} of {} has no attempt before {}", container.name, pod.full_name(), container.attempt)
        }
    }
}

/// The log; when following, of a container that has not started it is waited for.
async fn open(
    runtime: &mut Runtime,
    container: &mut ContainerView,
    path: &Path,
    wait: bool,
) -> Result<Option<LogFile>> {
    while wait && container.state == "Created" && !path.exists() {
        tokio::time::sleep(ASK).await;
        if !lives(runtime, container).await? {
            return Ok(None);
        }
    }
    LogFile::open(path).map(Some)
}

/// Reads on until the container has ended and everything is read.
async fn follow(
    runtime: &mut Runtime,
    container: &mut ContainerView,
    log: &mut LogFile,
    joiner: &mut Joiner,
) -> Result<()> {
    let mut asked = Instant::now();
    loop {
        if log.drain(joiner)? || log.follow_rotation(joiner)? {
            continue;
        }
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            if !lives(runtime, container).await? {
                // What came between the last look and the end.
                while log.drain(joiner)? || log.follow_rotation(joiner)? {}
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether more can come.
async fn lives(runtime: &mut Runtime, container: &mut ContainerView) -> Result<bool> {
    // A container that is gone leaves the state as it is.
    container.state = String::new();
    listing::fill_container(runtime, container, false).await?;
    Ok(matches!(container.state.as_str(), "Created" | "Running"))
}
