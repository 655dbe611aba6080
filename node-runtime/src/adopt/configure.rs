//! `berth adopt kubelet`: other settings for a kubelet that is on Berth.
//!
//! Owns: its command line, and the facts that its plan is made of. The plan is `berth_adopt`'s, its steps are those of the other ways. Must
//! not: know fields; which may be set, the table of `berth_crds` says.
use super::record::Lock;
use super::revision::Given;
use super::runtime::Peer;
use super::steps::found;
use super::talk::Talk;
use super::walk::{Interrupt, Walk};
use super::{Permit, TheKubelet, boot_id, conclude, gather, lock, moment, now_seconds, operation_id, report};
use super::{systemd, unfinished, unless_interrupted};
use crate::commands::output::Format;
use crate::commands::time;
use crate::kubelets;
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::Refusal;
use berth_adopt::journal::{InForce, State};
use berth_adopt::plan::{self, ConfigureFacts, KubeletProcess, Permission, Settings};
use std::path::PathBuf;
use std::time::Duration;

/// Longest text of settings, in bytes.
const MAX_SETTINGS: u64 = 64 << 10;

/// Changing settings of the kubelet.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Fields are those of KubeletConfiguration (kubelet.config.k8s.io/v1beta1), as in spec.kubelet.config of a RuntimeConfig. All of Berth's
settings are replaced by what is given; with none its file is taken away. A node that was taken over has its kubelet
stopped and started as it was then, unless commands are given. Exit codes as of `berth adopt start`."
)]
pub(super) struct Options {
    /// File with the fields, YAML or JSON; `-` is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "inline", conflicts_with = "inline")]
    config: Option<PathBuf>,
    /// The fields themselves, YAML or JSON
    #[arg(long, value_name = "FIELDS")]
    inline: Option<String>,
    /// Start the kubelet anew even if its settings are as they are wanted: it asks Berth for the cgroup driver at its start only
    #[arg(long)]
    restart: bool,
    /// Name of the grant, if somebody gave one
    #[arg(long, value_name = "ID", requires = "grant_expires")]
    grant: Option<String>,
    /// When the grant ends: RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = moment)]
    grant_expires: Option<i64>,
    #[command(flatten)]
    kubelet: TheKubelet,
    /// Print the plan, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How long it may take before it is walked back
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = time::parse_span)]
    deadline: Duration,
    /// How to show the outcome
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

impl Options {
    fn permission(&self) -> Permission {
        let permit = Permit {
            grant: self.grant.clone(),
            grant_expires: self.grant_expires,
            without_grant: self.grant.is_none(),
        };
        gather::permission(&permit)
    }
}

/// Does it; the exit code.
pub(super) async fn run(layout: &Layout, options: &Options) -> Result<u8> {
    let settings = settings(options)?;
    let lock = lock(layout)?;
    let mut interrupt = Interrupt::new()?;
    let mut walk = Walk::new(layout, lock, Talk { quiet: false })?;
    unfinished(&walk)?;
    let in_force = InForce::of(walk.records());
    let facts = unless_interrupted(&mut interrupt, look(layout, options, in_force, settings)).await?;
    let plan = match plan::configure(&facts) {
        Ok(Some(plan)) => gather::complete(plan)?,
        Ok(None) => return there_already(layout, &walk, options.output),
        Err(refusals) => return report::refused_settings(&refusals, options.output).map(|()| 1),
    };
    if options.dry_run {
        return report::plan(&plan, options.output).map(|()| 0);
    }
    walk.begin(plan)?;
    let ended = walk.go(&mut interrupt).await;
    conclude(layout, walk, ended, options.output)
}

fn there_already(layout: &Layout, walk: &Walk<'_>, format: Format) -> Result<u8> {
    let records = walk.records();
    let holder = Lock::holder(layout).filter(|holder| holder.pid != std::process::id());
    report::status(State::last(records).as_ref(), &InForce::of(records), holder, &[], format).map(|()| 0)
}

/// What is wanted, if all of it may be set.
fn settings(options: &Options) -> Result<Settings> {
    let (name, text) = match (&options.inline, &options.config) {
        (Some(text), _) => ("--inline".to_owned(), text.clone()),
        (None, Some(path)) if path.as_os_str() == "-" => ("standard input".to_owned(), standard_input()?),
        (None, Some(path)) => {
            let text = node_files::exact(path, MAX_SETTINGS).with_context(|| path.display().to_string())?;
            (path.display().to_string(), text)
        }
        (None, None) => bail!("--config: is not given"),
    };
    settings_of(&text).with_context(|| name)
}

/// The settings that the kubelet is to have with a revision: whether it can is known before the node is taken over. One that cannot be used has
/// none; why, is told with everything else.
pub(super) fn of_revision(handed: Option<&Result<Given, Refusal>>) -> Settings {
    let given = handed.and_then(|handed| handed.as_ref().ok());
    let settings = given.and_then(|given| given.configuration.settings().ok());
    settings.map(|settings| settings.spec.kubelet.config.fields()).unwrap_or_default()
}

/// The settings that a text has. Errors: it is too long or no fields, or one of them is not Berth's to set.
fn settings_of(text: &str) -> Result<Settings> {
    if text.len() as u64 > MAX_SETTINGS {
        bail!("is longer than {MAX_SETTINGS} bytes");
    }
    let fields = berth_adopt::fields(text).map_err(|e| anyhow!("{e}"))?;
    Ok(berth_settings::KubeletConfig::new(fields).map_err(|e| anyhow!("{}", e.message()))?.fields())
}

fn standard_input() -> Result<String> {
    let mut text = String::new();
    let input = std::io::Read::take(std::io::stdin(), MAX_SETTINGS + 1);
    std::io::Read::read_to_string(&mut std::io::BufReader::new(input), &mut text).context("standard input")?;
    Ok(text)
}

/// Everything about the node.
async fn look(layout: &Layout, options: &Options, in_force: InForce, settings: Settings) -> Result<ConfigureFacts> {
    let pid = gather::the_kubelet(options.kubelet.kubelet_pid).await?;
    let configuration = kubelets::configuration(pid);
    let unit = if systemd::is_here() { gather::unit_of(pid) } else { None };
    let unit_process = match &unit {
        Some(unit) => systemd::main_process(unit).await?,
        None => None,
    };
    let socket = layout.cri_socket();
    let mut peer = Peer::connect(&socket).await.context("Berth's daemon")?;
    let runtime = peer.who(&socket).await.context("Berth's daemon")?;
    let pods = peer.pods().await?.into_iter().filter(|pod| pod.is_static).map(|pod| pod.name).collect();
    let former = in_force.settings.iter().flat_map(|plan| plan.files.iter().map(|change| change.path.clone()));
    let places = former.chain(plan::settings_file(&configuration));
    let mut there = Vec::new();
    for place in places {
        there.extend(found(&place)?.map(|state| (place, state)));
    }
    let now = now_seconds();
    Ok(ConfigureFacts {
        id: operation_id("configure"),
        boot_id: boot_id()?,
        now,
        deadline: now.saturating_add(options.deadline.as_secs()),
        permission: options.permission(),
        commands: gather::commands(&options.kubelet.commands)?,
        on_berth: gather::socket(&configuration.endpoint()).is_ok_and(|endpoint| endpoint == socket),
        runtime,
        adopted: in_force.adoption,
        former: in_force.settings,
        found: there,
        pods,
        settings,
        restart: options.restart,
        kubelet: KubeletProcess { pid, configuration, unit, unit_process, kubeadm: false },
    })
}
