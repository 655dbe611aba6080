//! RunPodSandbox: plan, then named steps with undo: record, directory, monitor, namespaces, network, ready.
use crate::clock;
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::record::{MonitorRef, PodPhase, PodRecord, Span};
use crate::steps::Walk;
use berth_cgroups::{CgroupPath, DevicePolicy};
use berth_model::{
    Error, ErrorKind, NamespaceMode, NetworkOperation, PhaseLog, Phases, PodConfig, PodId, Resources, Result,
};
use berth_monitor_api::frame::TaskKind;
use berth_monitor_api::spec::InitSpec;
use berth_network::PodNetwork;
use berth_oci::monitor::{Event, LaunchOptions, Monitor, SpawnRequest, TaskStdio};
use berth_oci::pod_dir::{PodDir, PodFiles};
use berth_oci::spec::{SandboxInputs, sandbox_spec, validate_pod};
use berth_store::Sync;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the monitors' own cgroup.
pub(crate) const MONITORS: &str = "monitors";
/// How long the processes of a sandbox that is undone may take to go.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// What init said of its own steps.
#[derive(Default)]
struct Made {
    begun: Option<Instant>,
    phases: Phases,
}

impl Engine {
    /// Runs a pod sandbox, or joins the run of an equal request, or returns what exists.
    /// Errors: `InvalidArgument` naming the field; `AlreadyExists` with the id, state and remedy when the key is taken by
    /// another request or a dead pod.
    pub async fn run_pod(self: &Arc<Self>, config: PodConfig) -> Result<PodId> {
        validate_pod(&config, &self.facts)?;
        self.check_network(&config)?;
        let engine = self.clone();
        let key = config.metadata.clone();
        self.runs
            .join_or_start(key, config.clone(), || async move {
                match engine.table.by_key(&config.metadata) {
                    Some(pod) => existing(&pod, &config),
                    None => engine.execute_run(config).await,
                }
            })
            .await
    }

    fn check_network(&self, config: &PodConfig) -> Result<()> {
        let on_node = config.security.namespaces.network == NamespaceMode::Node;
        if on_node {
            return Ok(());
        }
        // A bad annotation is refused before anything exists.
        PodNetwork::of(config)?;
        self.network.check_usable()
    }

    async fn execute_run(self: Arc<Self>, config: PodConfig) -> Result<PodId> {
        let id = PodId::from_random(clock::random()?);
        let metadata = config.metadata.clone();
        let mut walk = Walk::new("run", &self.metrics);
        match self.run_steps(&mut walk, &id, config).await {
            Ok(pod) => {
                let timeline = walk.timeline();
                self.starts.usual(&timeline);
                let ready = pod.update(Sync::Later, |r| {
                    r.ran = Span { began: timeline.began, micros: timeline.micros };
                    r.phases = timeline.phases;
                    r.phase = PodPhase::Ready;
                });
                if let Err(e) = ready.await {
                    tracing::error!(pod = %pod.id, error = %e, "record is behind; it is written again at the next change");
                }
                tracing::info!(pod = %pod.id, name = pod.record().config.metadata.name, "pod is ready");
                Ok(id)
            }
            Err(error) => {
                let unwound = walk.unwind(error).await;
                self.troubles.run(&metadata, &unwound.error);
                self.forget_failed_run(&id, unwound.clean).await;
                Err(unwound.error)
            }
        }
    }

    /// A run that failed leaves nothing; where an undo failed too, the pod stays as NOTREADY, so that stop and remove can finish.
    async fn forget_failed_run(&self, id: &PodId, clean: bool) {
        let Ok(pod) = self.table.pod(id.as_str()) else { return };
        let finished = if clean { pod.erase().await } else { Err(Error::internal("an undo step failed")) };
        if finished.is_ok() {
            self.table.remove(id);
            pod.tell_deleted();
            return;
        }
        self.metrics.event("undo_failed");
        let reason = "start failed and could not be undone; remove the pod".to_owned();
        if let Err(e) = pod.update(Sync::Later, |r| r.phase = PodPhase::NotReady { reason }).await {
            tracing::error!(pod = %id, error = %e, "cannot record a failed run");
        }
    }

    async fn run_steps(self: &Arc<Self>, walk: &mut Walk, id: &PodId, config: PodConfig) -> Result<Arc<Pod>> {
        let dir = self.paths.pod_dir(id);
        let pod = self.enter_with_level(id, self.new_record(config))?;
        walk.step("record", pod.update(Sync::Now, |_| ())).await?;
        self.make_directory(walk, &pod, &dir).await?;
        let monitor = self.start_monitor(walk, &pod, &dir).await?;
        self.make_namespaces(walk, &pod, &monitor, &dir).await?;
        self.attach_network(walk, &pod, &dir).await?;
        Ok(pod)
    }

    fn new_record(&self, config: PodConfig) -> PodRecord {
        PodRecord {
            oom_kills: self.oom_kills_so_far(&config),
            config,
            created_at: clock::now(),
            boot_id: self.boot_id.clone(),
            phase: PodPhase::Creating,
            selinux_level: None,
            monitor: None,
            network: None,
            init_pid: None,
            init_cgroup: None,
            phases: Default::default(),
            ran: Span::default(),
            resized: None,
            containers: BTreeMap::new(),
        }
    }

    async fn make_directory(&self, walk: &mut Walk, pod: &Pod, dir: &PodDir) -> Result<()> {
        let record = pod.record();
        let on_node = record.config.security.namespaces.network == NamespaceMode::Node;
        // On the node's network the pod has the node's name (it shares the UTS namespace).
        let hostname = if on_node { String::new() } else { record.config.hostname.clone() };
        let files = PodFiles { dns: record.config.dns.clone(), hostname };
        let (make, take) = (dir.clone(), dir.clone());
        walk.undo("directory", move || blocking(move || take.teardown()));
        let label = self.pod_file_label(&record)?;
        let prepare = blocking(move || {
            make.prepare(&files, None)?;
            label.map_or(Ok(()), |label| make.label(&label))
        });
        walk.step("directory", prepare).await
    }

    async fn start_monitor(self: &Arc<Self>, walk: &mut Walk, pod: &Arc<Pod>, dir: &PodDir) -> Result<Monitor> {
        let group = self.helper_group(MONITORS).await?;
        let options = LaunchOptions { cgroup: self.cgroups.join(&group) };
        let launch = self.launcher.launch(&pod.id, dir.path(), &options);
        let (monitor, _process) = walk.step("monitor", launch).await?;
        pod.set_monitor(Some(monitor.clone()));
        let (engine, owner) = (self.clone(), pod.clone());
        walk.undo("monitor", move || async move { engine.end_monitor(&owner).await });
        let pid = monitor.pid();
        pod.update(Sync::Later, |r| r.monitor = Some(MonitorRef { pid })).await?;
        self.clone().supervise(pod.clone(), monitor.clone(), monitor.exits());
        Ok(monitor)
    }

    async fn make_namespaces(
        self: &Arc<Self>,
        walk: &mut Walk,
        pod: &Arc<Pod>,
        monitor: &Monitor,
        dir: &PodDir,
    ) -> Result<()> {
        let record = pod.record();
        let shared_pid = record.config.security.namespaces.pid == NamespaceMode::Pod;
        let cgroup = if shared_pid { Some(self.make_init_cgroup(walk, pod).await?) } else { None };
        let inputs = SandboxInputs {
            pod: &record.config,
            dir,
            file_label: self.pod_file_label(&record)?,
            init_cgroup: cgroup.as_ref().map(|c| self.cgroups.join(c)),
        };
        let spec = InitSpec::Sandbox(sandbox_spec(&inputs)?);
        let (engine, owner) = (self.clone(), pod.clone());
        walk.undo("namespaces", move || async move { engine.end_pod_init(&owner).await });
        let mut made = Made::default();
        let parts = walk.parts();
        let making = self.drive_sandbox((pod, monitor), &spec, cgroup.as_ref(), &parts, &mut made);
        let init_pid = walk.step("namespaces", making).await?;
        if let Some(origin) = made.begun {
            walk.adopt("namespaces", origin, made.phases);
        }
        pod.update(Sync::Later, |r| r.init_pid = init_pid).await
    }

    async fn make_init_cgroup(&self, walk: &mut Walk, pod: &Pod) -> Result<CgroupPath> {
        let record = pod.record();
        let path = self.cgroups.path(&record.config.cgroup_parent, &self.paths.cgroup_parent, pod.id.as_str())?;
        let (cgroups, gone) = (self.cgroups.clone(), path.clone());
        walk.undo("cgroup", move || async move {
            let (killer, target) = (cgroups.clone(), gone.clone());
            blocking(move || killer.kill(&target, KILL_WAIT)).await?;
            cgroups.remove(&gone).await
        });
        let recorded = path.clone();
        pod.update(Sync::Later, |r| r.init_cgroup = Some(recorded)).await?;
        let (cgroups, made) = (self.cgroups.clone(), path.clone());
        // The CRI has no value for a sandbox; 2 is what the peers give it.
        let limits = Resources { cpu_shares: Some(2), ..Resources::default() };
        walk.step("cgroup", blocking(move || cgroups.create(&made, &limits, &DevicePolicy::default()))).await?;
        Ok(path)
    }

    async fn drive_sandbox(
        &self,
        (pod, monitor): (&Pod, &Monitor),
        spec: &InitSpec,
        cgroup: Option<&CgroupPath>,
        parts: &PhaseLog,
        made: &mut Made,
    ) -> Result<Option<u32>> {
        let request = SpawnRequest {
            init: self.launcher.init(),
            id: pod.id.as_str(),
            kind: TaskKind::Sandbox,
            stdio: TaskStdio::Null,
            join: None,
            log: None,
            oom: None,
            kill: None,
            spec,
        };
        let mut start = monitor.spawn(request).await?;
        loop {
            match start.next().await? {
                Event::Paused { pid } => {
                    if let Some(cgroup) = cgroup {
                        let limits = Resources { cpu_shares: Some(2), ..Resources::default() };
                        let begun = Instant::now();
                        self.cgroups.start_scope(cgroup, pid, &limits, &DevicePolicy::default()).await?;
                        parts.add("run/namespaces/systemd", begun, Instant::now());
                    }
                    start.continue_().await?;
                }
                Event::Made { pid } => {
                    *made = Made { begun: Some(start.begun()), phases: start.phases().clone() };
                    return Ok(pid);
                }
                Event::Ready { .. } | Event::Started => {
                    return Err(Error::internal("init answered a sandbox as if it were a container"));
                }
            }
        }
    }

    async fn attach_network(self: &Arc<Self>, walk: &mut Walk, pod: &Arc<Pod>, dir: &PodDir) -> Result<()> {
        let record = pod.record();
        if record.config.security.namespaces.network == NamespaceMode::Node {
            return Ok(());
        }
        let netns = dir.namespace("net");
        let (undo_network, undo_id) = (self.network.clone(), pod.id.clone());
        walk.undo("network", move || async move { undo_network.detach(&undo_id, None).await });
        let attach = self.network.attach(&pod.id, Path::new(&netns), &record.config);
        let attach = self.metrics.network(self.network.name(), NetworkOperation::Attach, attach);
        let attached = walk.step("network", attach).await?;
        let address = attached.addresses.first().map(|a| a.addr());
        let (files, hostname) = (dir.clone(), record.config.hostname.clone());
        blocking(move || files.write_hosts(&hostname, address)).await?;
        pod.update(Sync::Later, |r| r.network = Some(attached)).await
    }
}

/// The answer where the key is known already.
fn existing(pod: &Pod, config: &PodConfig) -> Result<PodId> {
    let record = pod.record();
    let state = match (&record.phase, record.config == *config) {
        (PodPhase::Ready, true) => return Ok(pod.id.clone()),
        (PodPhase::Ready, false) => "READY with another configuration",
        _ => "NOTREADY",
    };
    let key = &config.metadata;
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "pod {}/{} (uid {}, attempt {}) exists as {}, {state}; remove it, or use the next attempt number",
            key.namespace, key.name, key.uid, key.attempt, pod.id
        ),
    ))
}
