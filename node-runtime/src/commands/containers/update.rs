//! `berth update`: limits of running containers.
use super::each::{self, Failures};
use crate::commands::connect::{self, said};
use crate::commands::listing::ContainerView;
use crate::commands::output;
use crate::commands::pods::spec::quantity;
use crate::layout::Layout;
use anyhow::{Result, bail};
use berth_proto::cri as wire;

/// Microseconds of a CFS period (Documentation/scheduler/sched-bwc.rst).
const PERIOD: i64 = 100_000;

/// What to change.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth update -m 256m web            memory of what runs in pod web
  berth update --cpus 0.5 db/app
  berth update --cpuset-cpus 0-1 db/app

Sizes: 64m, 1g (powers of 1024, as docker has them) or 64Mi, 1Gi, 64M. A kubelet that looks after the
pod may set its own limits again.")]
pub struct Options {
    /// Memory limit
    #[arg(short, long, value_name = "SIZE", value_parser = quantity::docker_size)]
    memory: Option<i64>,
    /// CPUs, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = quantity::cpus)]
    cpus: Option<i64>,
    /// CPUs that it may run on, such as 0-3,7
    #[arg(long, value_name = "LIST", default_value = "")]
    cpuset_cpus: String,
    /// Memory nodes that it may use
    #[arg(long, value_name = "LIST", default_value = "")]
    cpuset_mems: String,
    /// Share of CPU time under load, 2 to 262144
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(2..=262_144))]
    cpu_shares: Option<i64>,
    /// Containers (name, pod/name or id), or pods for all that run in them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Changes them.
pub async fn run(layout: &Layout, options: &Options) -> Result<u8> {
    let resources = wire::LinuxContainerResources {
        memory_limit_in_bytes: options.memory.unwrap_or(0),
        cpu_period: if options.cpus.is_some() { PERIOD } else { 0 },
        cpu_quota: options.cpus.map_or(0, |millis| millis * PERIOD / 1000),
        cpu_shares: options.cpu_shares.unwrap_or(0),
        cpuset_cpus: options.cpuset_cpus.clone(),
        cpuset_mems: options.cpuset_mems.clone(),
        ..Default::default()
    };
    if resources == wire::LinuxContainerResources::default() {
        bail!("nothing to change; give --memory, --cpus, --cpu-shares, --cpuset-cpus or --cpuset-mems");
    }
    let (mut runtime, _) = connect::cri(layout).await?;
    let found = each::containers(&mut runtime, &options.names, ContainerView::running, "does not run").await?;
    let mut failures = Failures::default();
    for (name, _, container) in found {
        let request = wire::UpdateContainerResourcesRequest {
            container_id: container.id,
            linux: Some(resources.clone()),
            ..Default::default()
        };
        let done = runtime.update_container_resources(request).await.map_err(said);
        failures.note(&name, done.and_then(|_| output::line(&name)))?;
    }
    Ok(failures.code())
}
