//! `berth adopt`: takes a node over from another container runtime, and gives it back. A process of the host, never of a pod.
//!
//! Owns: the command line and what each word does. The plan is `berth_adopt`'s, the steps are in [`steps`]. Must not: cordon, drain or uncordon:
//! that is for whoever gives the grant.
mod configure;
mod connected;
mod deadman;
mod gather;
mod hold;
mod interrupted;
mod node_lock;
mod own_group;
mod record;
mod report;
mod revision;
mod runtime;
mod steps;
mod systemd;
mod talk;
mod walk;
mod wreck;

use crate::commands::output::Format;
use crate::commands::time;
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::Plan;
use berth_adopt::journal::{InForce, State};
use berth_adopt::plan;
pub(crate) use deadman::Again as DeadmanAgain;
use interrupted::Why;
use record::Lock;
pub(crate) use record::try_exclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use talk::Talk;
use walk::{Interrupt, Outcome, Walk};

/// It failed, and everything is as it was.
const WALKED_BACK: u8 = 3;
/// It failed, and something could not be undone yet.
const STUCK: u8 = 4;
/// Why what another boot has left is walked back.
const REBOOTED: &str = "the node was started again in the middle of it";
/// How long `abandon` waits for the walk back.
const ABANDON_LIMIT: Duration = Duration::from_secs(600);

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

/// The words of `berth adopt`.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_long_help = "Exit codes: 0 done; 1 refused or impossible, and nothing was changed; 3 failed, and everything is as it was before; 4 failed,
and something could not be undone yet: `berth adopt status` says what, `berth adopt recover` tries again."
)]
enum Action {
    /// Take this node over: its kubelet uses Berth afterwards
    Start(Box<Start>),
    /// Give this node back to the runtime that it was taken from
    Return(Give),
    /// Change settings of this node's kubelet, which is on Berth; its pods go on
    Kubelet(configure::Options),
    /// Show where this node is
    Status(Show),
    /// Have an operation that is under way walk back
    Abandon(Show),
    /// Walk back, or finish, what an adopter that died has left
    Recover(Recover),
    /// Watch an operation; started by it
    #[command(hide = true)]
    Deadman(deadman::Options),
}

/// Who allows that every pod of the node ends.
#[derive(Debug, clap::Args)]
struct Permit {
    /// Name of the grant: the node is cordoned and drained
    #[arg(long, value_name = "ID", requires = "grant_expires", conflicts_with = "without_grant")]
    grant: Option<String>,
    /// When the grant ends: RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = moment)]
    grant_expires: Option<i64>,
    /// On a node without a cluster: end its pods without asking anybody
    #[arg(long)]
    without_grant: bool,
}

impl Permit {
    fn expires(&self) -> u64 {
        self.grant_expires.and_then(|nanos| u64::try_from(nanos / 1_000_000_000).ok()).unwrap_or(0)
    }
}

fn moment(text: &str) -> Result<i64> {
    // A span before now, which the parser knows too, makes no sense here.
    match text.parse::<i64>() {
        Ok(seconds) => Ok(seconds.saturating_mul(1_000_000_000)),
        Err(_) => time::parse_rfc3339(text).ok_or_else(|| anyhow!("is no RFC 3339 time and no Unix time in seconds")),
    }
}

/// How the kubelet is started.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Profile {
    /// A unit that kubeadm configures
    Kubeadm,
    /// Any other unit of systemd
    Systemd,
    /// Commands that are given
    Command,
}

impl From<Profile> for plan::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Kubeadm => Self::Kubeadm,
            Profile::Systemd => Self::Systemd,
            Profile::Command => Self::Command,
        }
    }
}

/// Which process the kubelet is, and how it is stopped and started.
#[derive(Debug, clap::Args)]
struct TheKubelet {
    /// The kubelet's process, to be sure
    #[arg(long, value_name = "PID")]
    kubelet_pid: Option<u32>,
    #[command(flatten)]
    commands: KubeletCommands,
}

/// How the kubelet is stopped and started without systemd.
#[derive(Debug, clap::Args)]
struct KubeletCommands {
    /// Command that stops the kubelet, without systemd: a program and words, no shell
    #[arg(long, value_name = "COMMAND")]
    kubelet_stop: Option<String>,
    /// Command that starts it; it returns once the kubelet is started
    #[arg(long, value_name = "COMMAND")]
    kubelet_start: Option<String>,
}

/// Taking over.
#[derive(Debug, clap::Args)]
struct Start {
    #[command(flatten)]
    permit: Permit,
    /// Print the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Refuse unless the kubelet is started this way
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    #[command(flatten)]
    kubelet: TheKubelet,
    /// File that has the kubelet's flags, where --container-runtime-endpoint is one of them
    #[arg(long, value_name = "FILE")]
    kubelet_flags_file: Vec<PathBuf>,
    /// Directory of the programs' versions, and of `current`
    #[arg(long, value_name = "DIR", default_value = "/opt/berth")]
    prefix: PathBuf,
    /// Directory that the programs are copied from; default: where this one lies
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Name of the directory of this version
    #[arg(long, value_name = "NAME")]
    version_name: Option<String>,
    /// How long it may take before it is walked back
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = time::parse_span)]
    deadline: Duration,
    /// Take over a node of the control plane too
    #[arg(long)]
    control_plane: bool,
    /// RuntimeRevision, as JSON, that Berth is to run with from the beginning: a configuration, and in a second file or a list a set of image
    /// policies; `-` is standard input
    #[arg(long, value_name = "FILE")]
    revision: Vec<PathBuf>,
    /// Leave the kubelet's feature gate PodAndContainerStatsFromCRI as it is
    #[arg(long)]
    keep_stats_gate: bool,
    /// How to show the outcome
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Giving back.
#[derive(Debug, clap::Args)]
struct Give {
    #[command(flatten)]
    permit: Permit,
    #[command(flatten)]
    kubelet: KubeletCommands,
    /// Where Berth's daemon cannot be made to run: end its pods by their processes, with SIGKILL
    #[arg(long)]
    without_daemon: bool,
    /// Print the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long it may take before it is walked back
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = time::parse_span)]
    deadline: Duration,
    /// How to show the outcome
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Showing.
#[derive(Debug, clap::Args)]
struct Show {
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Recovering.
#[derive(Debug, clap::Args)]
struct Recover {
    /// Called when the daemon starts: only what another boot has left is looked at
    #[arg(long)]
    at_start: bool,
    /// How to show the outcome
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Does it; the exit code.
pub fn run(layout: &Layout, options: Options) -> Result<u8> {
    if !rustix::process::geteuid().is_root() {
        bail!("berth adopt is for root only");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("async runtime")?;
    runtime.block_on(async {
        let done = match options.action {
            Action::Start(options) => start(layout, &options).await,
            Action::Return(options) => give_back(layout, &options).await,
            Action::Kubelet(options) => configure::run(layout, &options).await,
            Action::Status(options) => show(layout, options.output).await.map(|()| 0),
            Action::Abandon(options) => abandon(layout, options.output).await,
            Action::Recover(options) => recover(layout, &options).await,
            Action::Deadman(options) => deadman::run(layout, &options).await.map(|()| 0),
        };
        own_group::go_back(layout).await;
        own_group::clear(layout).await;
        done
    })
}

/// What another boot has left is walked back before the daemon starts; whether the daemon is wanted after that. For supervisors; a failure is
/// told and stops no start.
pub(crate) async fn at_start(layout: &Layout) -> Result<bool> {
    let Some(mut walk) = left_by_another_boot(layout)? else { return Ok(true) };
    walk.recover(Why::interrupted(REBOOTED)).await?;
    walk.flush()?;
    Ok(is_wanted(walk.records()))
}

/// An operation of another boot that nobody works at.
fn left_by_another_boot(layout: &Layout) -> Result<Option<Walk<'_>>> {
    let state = State::last(&record::read(layout)?.records);
    // Whoever works in this boot, or watches, does it himself.
    let left = state.is_some_and(|s| s.ended.is_none() && boot_id().is_ok_and(|boot| boot != s.plan.boot_id));
    if !left {
        return Ok(None);
    }
    let Some(lock) = Lock::take(layout)? else { return Ok(None) };
    Ok(Some(Walk::new(layout, lock, Talk { quiet: false })?.at_start()))
}

/// Whether the daemon is to run, as the journal has it. An operation that is not over yet decides nothing.
fn is_wanted(records: &[berth_adopt::journal::Record]) -> bool {
    let over = State::last(records).filter(|state| state.ended.is_some());
    over.is_none_or(|state| state.plan.install.daemon_before || InForce::of(records).adoption.is_some())
}

/// The lock, for whoever works at operations: what he starts, the kubelet too, must not be in a pod's control group either.
fn try_lock(layout: &Layout) -> Result<Option<Lock>> {
    let lock = Lock::take(layout)?;
    if lock.is_some() {
        own_group::leave(layout);
    }
    Ok(lock)
}

fn lock(layout: &Layout) -> Result<Lock> {
    try_lock(layout)?.ok_or_else(|| {
        let who = Lock::holder(layout).map_or(String::new(), |holder| format!(" (process {})", holder.pid));
        anyhow!("another operation is under way{who}; see `berth adopt status`")
    })
}

async fn start(layout: &Layout, options: &Start) -> Result<u8> {
    // Before anybody waits for this process: whoever writes it may take his time.
    let handed = revision::read(&options.revision);
    let lock = lock(layout)?;
    let mut interrupt = Interrupt::new()?;
    let mut walk = Walk::new(layout, lock, Talk { quiet: false })?;
    unfinished(&walk)?;
    if let Some(plan) = InForce::of(walk.records()).adoption {
        bail!(
            "this node was taken over already, from {} (operation {}); `berth adopt return` gives it back",
            plan.from.name,
            plan.id
        );
    }
    let settings = configure::of_revision(handed.as_ref());
    let facts = unless_interrupted(&mut interrupt, gather::node(layout, options, handed)).await?;
    let planned = plan::adopt(&facts).and_then(|plan| {
        let obstacles = plan::obstacles(&facts.kubelet.configuration, &settings);
        if obstacles.is_empty() { Ok(plan) } else { Err(obstacles) }
    });
    let plan = match planned {
        Ok(plan) => gather::complete(plan)?,
        Err(refusals) => {
            let native = facts.old.socket == facts.new.socket;
            return report::refusals(&refusals, native, options.output).map(|()| 1);
        }
    };
    if options.dry_run {
        return report::plan(&plan, options.output).map(|()| 0);
    }
    walk.begin(plan)?;
    let ended = walk.go(&mut interrupt).await;
    conclude(layout, walk, ended, options.output)
}

async fn give_back(layout: &Layout, options: &Give) -> Result<u8> {
    let lock = lock(layout)?;
    let mut interrupt = Interrupt::new()?;
    let mut walk = Walk::new(layout, lock, Talk { quiet: false })?;
    unfinished(&walk)?;
    let Some(adopted) = InForce::of(walk.records()).to_give_back() else {
        bail!("this node was not taken over; there is nothing to give back")
    };
    let looked = gather::way_back(&adopted, options);
    let facts = unless_interrupted(&mut interrupt, looked).await?;
    let plan = match plan::give_back(&adopted, &facts) {
        Ok(plan) => gather::complete(plan)?,
        Err(refusals) => return report::refusals(&refusals, false, options.output).map(|()| 1),
    };
    if options.dry_run {
        return report::plan(&plan, options.output).map(|()| 0);
    }
    walk.begin(plan)?;
    let ended = walk.go(&mut interrupt).await;
    conclude(layout, walk, ended, options.output)
}

/// While nothing is changed yet, whoever is asked to end just does.
async fn unless_interrupted<T>(interrupt: &mut Interrupt, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        why = interrupt.wanted() => bail!("{why}; nothing was changed"),
    }
}

fn unfinished(walk: &Walk<'_>) -> Result<()> {
    match walk.state() {
        Some(state) if state.ended.is_none() => {
            bail!("operation {} was not finished; `berth adopt recover` does it", state.plan.id)
        }
        _ => Ok(()),
    }
}

/// Says how it ended.
fn conclude(layout: &Layout, walk: Walk<'_>, ended: Result<Outcome>, format: Format) -> Result<u8> {
    let records = walk.records().to_vec();
    drop(walk);
    let code = match &ended {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::WalkedBack(_)) => WALKED_BACK,
        Err(e) => {
            Talk { quiet: false }.say(&format!("berth: {e:#}"));
            STUCK
        }
    };
    let holder = Lock::holder(layout);
    let told = report::status(State::last(&records).as_ref(), &InForce::of(&records), holder, &[], format);
    if let Err(e) = told {
        // Whoever asked reads the code all the same.
        Talk { quiet: false }.say(&format!("berth: {e:#}"));
    }
    Ok(code)
}

async fn show(layout: &Layout, format: Format) -> Result<()> {
    let records = record::read(layout)?.records;
    let (state, in_force) = (State::last(&records), InForce::of(&records));
    // In the middle of an operation the files are on their way.
    let settled = state.as_ref().is_some_and(|state| state.ended.is_some());
    let outdated = if settled { gather::outdated(&in_force).await } else { Vec::new() };
    report::status(state.as_ref(), &in_force, Lock::holder(layout), &outdated, format)
}

/// Whoever works at the operation is asked to walk back; where nobody does, that is done here. Code 0 if it was walked back, by whomever.
async fn abandon(layout: &Layout, format: Format) -> Result<u8> {
    // From here on, so that this process too does what it has begun.
    let _interrupt = Interrupt::new()?;
    let state = State::last(&record::read(layout)?.records);
    let Some(state) = state.filter(|state| state.ended.is_none()) else { bail!("no operation is under way") };
    if let Some(holder) = Lock::holder(layout) {
        let process = berth_sys::pidfd::open(holder.pid)?;
        if process_start(holder.pid) == Some(holder.started) {
            // As a person at its terminal would: SIGTERM comes from whoever shuts the node down, and says nothing of the operation.
            berth_sys::pidfd::signal(std::os::fd::AsFd::as_fd(&process), 2)?;
            Talk { quiet: false }.say(&format!("process {} is asked to walk back", holder.pid));
        }
    }
    let end = Instant::now() + ABANDON_LIMIT;
    let lock = loop {
        match try_lock(layout)? {
            Some(lock) => break lock,
            None if Instant::now() > end => bail!("operation {} does not end", state.plan.id),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let mut walk = Walk::new(layout, lock, Talk { quiet: false })?;
    let ended = walk.recover(Why::failed("it was abandoned")).await.map(|_| Outcome::Done);
    let late = walk.state().is_some_and(|state| state.ended == Some(true));
    match conclude(layout, walk, ended, format)? {
        0 if late => bail!("operation {} was finished before it could be abandoned", state.plan.id),
        code => Ok(code),
    }
}

async fn recover(layout: &Layout, options: &Recover) -> Result<u8> {
    // Whoever asks this to end in the middle of an undo, as systemd does with a unit's start that is taken back, is not heard.
    let _interrupt = Interrupt::new()?;
    let mut walk = if options.at_start {
        let Some(walk) = left_by_another_boot(layout)? else { return Ok(0) };
        walk
    } else {
        Walk::new(layout, lock(layout)?, Talk { quiet: false })?
    };
    let left = walk.state().map(|state| state.plan);
    let why = match options.at_start {
        true => Why::interrupted(REBOOTED),
        false => Why::left("its process has died", left.as_ref()),
    };
    let ended = walk.recover(why).await.map(|_| Outcome::Done);
    let plan: Option<Plan> = walk.state().map(|state| state.plan);
    let unwanted = options.at_start && ended.is_ok() && !is_wanted(walk.records());
    let code = conclude(layout, walk, ended, options.output)?;
    if unwanted && plan.is_some_and(|plan| plan.install.systemd) {
        steps::do_not_start(layout).await;
    }
    Ok(code)
}

/// Unix time in milliseconds.
fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Unix time in seconds.
fn now_seconds() -> u64 {
    now_millis() / 1000
}

/// Of this boot.
fn boot_id() -> Result<String> {
    let id =
        node_files::text("/proc/sys/kernel/random/boot_id").ok_or_else(|| anyhow!("the boot's id cannot be read"))?;
    Ok(id.trim().to_owned())
}

/// When a process was started, in ticks since the boot; with its id it names one process.
fn process_start(pid: u32) -> Option<u64> {
    let text = node_files::text(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have anything in it: field 3 onwards.
    text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

fn operation_id(word: &str) -> String {
    format!("{word}-{:x}-{:x}", now_millis(), std::process::id())
}
