//! `berth info`.
use crate::commands::connect::{self, said};
use crate::commands::output::{self, Document, Format};
use crate::commands::table::size;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::{InfoRequest, InfoResponse, PrefetchedImage};
use serde::Serialize;

/// How to show it.
#[derive(clap::Args)]
#[command(after_long_help = "Fields of -o json and -o yaml:
  version pid root criSocket furtherCriSockets metricsAddress cgroupDriver cgroupLayout kernel
  networkMode networkMessage bridge subnet documentsDirectory documents refusedDocuments
  pendingRestart settingsProblems unknownPods
  podsReady containersRunning images imageBytes
  prefetch[]: reference state problem failures")]
pub struct Options {
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
    /// TEMPLATE of those fields, or `json`
    #[arg(short, long, value_name = "TEMPLATE", conflicts_with = "output")]
    format: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    version: String,
    pid: u32,
    root: String,
    cri_socket: String,
    further_cri_sockets: Vec<String>,
    metrics_address: String,
    cgroup_driver: String,
    cgroup_layout: String,
    kernel: String,
    network_mode: String,
    network_message: String,
    bridge: String,
    subnet: String,
    documents_directory: String,
    documents: Vec<String>,
    refused_documents: String,
    pending_restart: Vec<String>,
    settings_problems: Vec<String>,
    unknown_pods: Vec<String>,
    pods_ready: u32,
    containers_running: u32,
    images: u32,
    image_bytes: u64,
    prefetch: Vec<Prefetched>,
}

/// An image of `spec.images.prefetch`.
#[derive(Serialize)]
struct Prefetched {
    reference: String,
    state: String,
    problem: String,
    failures: u32,
}

impl From<PrefetchedImage> for Prefetched {
    fn from(image: PrefetchedImage) -> Self {
        let PrefetchedImage { reference, state, problem, failures } = image;
        Self { reference, state, problem, failures }
    }
}

impl From<InfoResponse> for Info {
    fn from(i: InfoResponse) -> Self {
        Self {
            version: i.version,
            pid: i.pid,
            root: i.root,
            cri_socket: i.cri_socket,
            further_cri_sockets: i.further_cri_sockets,
            metrics_address: i.metrics_address,
            cgroup_driver: i.cgroup_driver,
            cgroup_layout: i.cgroup_layout,
            kernel: i.kernel,
            network_mode: i.network_mode,
            network_message: i.network_message,
            bridge: i.bridge,
            subnet: i.subnet,
            documents_directory: i.documents_directory,
            documents: i.documents,
            refused_documents: i.refused_documents,
            pending_restart: i.pending_restart,
            settings_problems: i.settings_problems,
            unknown_pods: i.unknown_pods,
            pods_ready: i.pods_ready,
            containers_running: i.containers_running,
            images: i.images,
            image_bytes: i.image_bytes,
            prefetch: i.prefetch.into_iter().map(Prefetched::from).collect(),
        }
    }
}

/// Shows what the daemon is and has.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut node = connect::node(layout).await?;
    let info: Info = node.info(InfoRequest {}).await.map_err(said)?.into_inner().into();
    if let Some(format) = &options.format {
        return output::line(output::template::of_document(format, &info)?);
    }
    match options.output {
        Format::Json => output::document(&info, Document::Json),
        Format::Yaml => output::document(&info, Document::Yaml),
        Format::Table | Format::Wide => output::bytes(text(&info).as_bytes()),
    }
}

fn text(i: &Info) -> String {
    let network = match (i.bridge.as_str(), i.subnet.as_str()) {
        ("", _) => i.network_mode.clone(),
        (bridge, subnet) => format!("{}, bridge {bridge}, subnet {subnet}", i.network_mode),
    };
    let documents = if i.documents.is_empty() { "none".to_owned() } else { i.documents.join(", ") };
    let metrics =
        if i.metrics_address.is_empty() { "off".to_owned() } else { format!("http://{}/metrics", i.metrics_address) };
    // Never in force before the daemon's next start.
    let pending = match i.pending_restart.as_slice() {
        [] => String::new(),
        fields => format!("{} (at the next restart)", fields.join(", ")),
    };
    let lines = [
        ("Version", i.version.clone()),
        ("Process", i.pid.to_string()),
        ("Root", i.root.clone()),
        ("CRI socket", i.cri_socket.clone()),
        ("CRI also on", i.further_cri_sockets.join(", ")),
        ("Metrics", metrics),
        ("Kernel", i.kernel.clone()),
        ("Cgroups", format!("{}, driver {}", i.cgroup_layout, i.cgroup_driver)),
        ("Network", network),
        ("Network state", i.network_message.clone()),
        ("Documents", format!("{documents} (in {})", i.documents_directory)),
        ("Refused", i.refused_documents.clone()),
        ("Pending", pending),
        ("Not applied", i.settings_problems.join("; ")),
        ("Pods ready", i.pods_ready.to_string()),
        ("Containers", format!("{} running", i.containers_running)),
        ("Unknown pods", i.unknown_pods.join("; ")),
        ("Images", format!("{} ({})", i.images, size(i.image_bytes))),
        ("Prefetched", prefetch(&i.prefetch)),
    ];
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{:<15} {value}\n", format!("{name}:"))).collect()
}

/// How far it is; what cannot be had is told with its reason.
fn prefetch(images: &[Prefetched]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let here = images.iter().filter(|image| image.state == "present").count();
    let problems = images.iter().filter(|image| !image.problem.is_empty());
    let problems = problems.map(|image| format!("; {}: {}", image.reference, image.problem));
    problems.fold(format!("{here} of {}", images.len()), |text, problem| text + &problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out() {
        let info = Info::from(InfoResponse {
            version: "1".into(),
            network_mode: "builtin".into(),
            bridge: "berth0".into(),
            subnet: "10.0.0.0/24".into(),
            documents_directory: "/etc/berth".into(),
            further_cri_sockets: vec!["/run/a.sock".into(), "/run/b.sock".into()],
            images: 2,
            image_bytes: 1500,
            ..InfoResponse::default()
        });
        let text = text(&info);
        assert!(text.contains("Network:        builtin, bridge berth0, subnet 10.0.0.0/24\n"), "{text}");
        assert!(text.contains("CRI also on:    /run/a.sock, /run/b.sock\n"), "{text}");
        assert!(text.contains("Documents:      none (in /etc/berth)\n"), "{text}");
        assert!(text.contains("Images:         2 (1.5 kB)\n") && text.contains("Metrics:        off\n"), "{text}");
        assert!(!text.contains("Refused") && !text.contains("Prefetched"), "{text}");
    }

    #[test]
    fn prefetched_images_are_counted_and_problems_told() {
        let image = |reference: &str, state: &str, problem: &str| PrefetchedImage {
            reference: reference.into(),
            state: state.into(),
            problem: problem.into(),
            failures: u32::from(!problem.is_empty()),
        };
        let prefetch = vec![image("r.io/a:1", "present", ""), image("r.io/b:1", "failed", "no such tag")];
        let text = text(&InfoResponse { prefetch, ..InfoResponse::default() }.into());
        assert!(text.contains("Prefetched:     1 of 2; r.io/b:1: no such tag\n"), "{text}");
    }
}
